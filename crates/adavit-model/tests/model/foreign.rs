//! A small checkpoint under the names of others.

use adavit_decision::DecisionConfig;
use adavit_model::{
    Capture, Checkpoint, ImportOptions, Imported, ModelConfig, Tensors, import, initial_tensors,
    write_tensors,
};
use candle_core::{Device, Tensor};

use crate::common::{images, values};

pub(crate) fn small(decisions: Option<DecisionConfig>) -> Checkpoint {
    let config = ModelConfig {
        embed_dim: 128,
        num_heads: 2,
        depth: 2,
        decisions,
        ..ModelConfig::preset("nano_patch7_28").unwrap()
    };
    let tensors = initial_tensors(&config, 4, 0.3).unwrap();
    Checkpoint { config, tensors }
}

pub(crate) fn logits(checkpoint: &Checkpoint) -> Vec<f32> {
    let images = images(&checkpoint.config, 2, 0);
    let model = checkpoint.model(&Device::Cpu).unwrap();
    let output = model.forward(&images, Capture::default()).unwrap();
    values(&output.logits)
}

/// As timm has them: query, key and value in one tensor.
pub(crate) fn fused(tensors: &Tensors) -> Tensors {
    let mut fused = Tensors::new();
    for (name, tensor) in tensors {
        let Some((stem, kind)) = name.split_once(".attn.query.") else {
            if !name.contains(".attn.key.") && !name.contains(".attn.value.") {
                fused.insert(name.clone(), tensor.clone());
            }
            continue;
        };
        let part = |part: &str| &tensors[&format!("{stem}.attn.{part}.{kind}")];
        let qkv = Tensor::cat(&[part("query"), part("key"), part("value")], 0);
        fused.insert(format!("{stem}.attn.qkv.{kind}"), qkv.unwrap());
    }
    fused
}

/// As transformers has them.
pub(crate) fn hugging_face(tensors: &Tensors) -> Tensors {
    let parts = [
        (".norm1.", ".layernorm_before."),
        (".norm2.", ".layernorm_after."),
        (".attn.query.", ".attention.attention.query."),
        (".attn.key.", ".attention.attention.key."),
        (".attn.value.", ".attention.attention.value."),
        (".attn.proj.", ".attention.output.dense."),
        (".mlp.fc1.", ".intermediate.dense."),
        (".mlp.fc2.", ".output.dense."),
    ];
    let rename = |name: &str| {
        let name = match name {
            "cls_token" => "vit.embeddings.cls_token".into(),
            "pos_embed" => "vit.embeddings.position_embeddings".into(),
            _ => name
                .replace(
                    "patch_embed.proj.",
                    "vit.embeddings.patch_embeddings.projection.",
                )
                .replace("blocks.", "vit.encoder.layer."),
        };
        let name = parts.iter().fold(name, |name: String, (own, theirs)| {
            name.replace(own, theirs)
        });
        if let Some(kind) = name.strip_prefix("norm.") {
            format!("vit.layernorm.{kind}")
        } else if let Some(kind) = name.strip_prefix("head.") {
            format!("classifier.{kind}")
        } else {
            name
        }
    };
    let named = tensors.iter();
    named
        .map(|(name, tensor)| (rename(name), tensor.clone()))
        .collect()
}

pub(crate) fn written(tensors: &Tensors) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_tensors(&folder.path().join("weights.safetensors"), tensors).unwrap();
    folder
}

pub(crate) fn read_with(
    tensors: &Tensors,
    options: &ImportOptions,
) -> adavit_model::Result<Imported> {
    import(
        &written(tensors).path().join("weights.safetensors"),
        options,
    )
}

pub(crate) fn read(tensors: &Tensors) -> adavit_model::Result<Imported> {
    read_with(tensors, &ImportOptions::default())
}

/// As torchvision has them.
pub(crate) fn torchvision(tensors: &Tensors) -> Tensors {
    let parts = [
        ("cls_token", "class_token"),
        ("pos_embed", "encoder.pos_embedding"),
        ("patch_embed.proj.", "conv_proj."),
        ("blocks.", "encoder.layers.encoder_layer_"),
        (".norm1.", ".ln_1."),
        (".norm2.", ".ln_2."),
        (".attn.qkv.", ".self_attention.in_proj_"),
        (".attn.proj.", ".self_attention.out_proj."),
        (".mlp.fc1.", ".mlp.0."),
        (".mlp.fc2.", ".mlp.3."),
    ];
    let rename = |name: &str| match name.split_once('.') {
        Some(("norm", kind)) => format!("encoder.ln.{kind}"),
        Some(("head", kind)) => format!("heads.head.{kind}"),
        _ => parts.iter().fold(name.to_string(), |name, (ours, theirs)| {
            name.replace(ours, theirs)
        }),
    };
    let named = fused(tensors).into_iter();
    named
        .map(|(name, tensor)| (rename(&name), tensor))
        .collect()
}

pub(crate) fn prefixed(tensors: &Tensors, prefix: &str) -> Tensors {
    let named = tensors.iter();
    named
        .map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone()))
        .collect()
}
