//! Checkpoints of others: the same model under other names gives the same logits.
#![expect(
    clippy::unwrap_used,
    reason = "the helpers here are test code, which clippy does not see"
)]

use std::path::PathBuf;

use adavit_decision::DecisionConfig;
use adavit_model::{
    Capture, Checkpoint, ImportOptions, Imported, ModelConfig, Source, Tensors, import,
    initial_tensors, write_tensors,
};
use candle_core::{Device, Tensor};

fn small(decisions: Option<DecisionConfig>) -> Checkpoint {
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

fn logits(checkpoint: &Checkpoint) -> Vec<f32> {
    let pixels = (0..2 * 784).map(|i| (i as f32 * 0.3).sin());
    let pixels: Vec<f32> = pixels.collect();
    let images = Tensor::from_vec(pixels, (2, 1, 28, 28), &Device::Cpu).unwrap();
    let model = checkpoint.model(&Device::Cpu).unwrap();
    let output = model.forward(&images, Capture::default()).unwrap();
    output.logits.flatten_all().unwrap().to_vec1().unwrap()
}

/// As timm has them: query, key and value in one tensor.
fn fused(tensors: &Tensors) -> Tensors {
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
fn hugging_face(tensors: &Tensors) -> Tensors {
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

fn written(tensors: &Tensors) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_tensors(&folder.path().join("weights.safetensors"), tensors).unwrap();
    folder
}

fn read_with(tensors: &Tensors, options: &ImportOptions) -> adavit_model::Result<Imported> {
    import(
        &written(tensors).path().join("weights.safetensors"),
        options,
    )
}

fn read(tensors: &Tensors) -> adavit_model::Result<Imported> {
    read_with(tensors, &ImportOptions::default())
}

#[test]
fn timm_and_hugging_face_names_give_the_same_logits() {
    let ours = small(None);
    let prefixed = |tensors: Tensors| -> Tensors {
        let named = tensors.into_iter();
        named
            .map(|(name, tensor)| (format!("module.{name}"), tensor))
            .collect()
    };
    for (tensors, source) in [
        (fused(&ours.tensors), Source::Timm),
        (prefixed(fused(&ours.tensors)), Source::Timm),
        (ours.tensors.clone(), Source::Timm),
        (hugging_face(&ours.tensors), Source::HuggingFace),
    ] {
        let mut found = read(&tensors).unwrap();
        assert_eq!(found.source, source);
        assert!(
            found
                .notes
                .iter()
                .any(|note| note.contains("2 of 64 channels"))
        );
        let config = &mut found.checkpoint.config;
        assert_eq!(config.img_size, (28, 28));
        assert_eq!(
            config.layer_norm_eps == 1e-12,
            source == Source::HuggingFace
        );
        config.layer_norm_eps = ours.config.layer_norm_eps;
        assert!(logits(&found.checkpoint) == logits(&ours), "{source:?}");
    }
}

#[test]
fn decision_networks_tell_what_is_decided() {
    let decisions = DecisionConfig {
        ada_token_start_layer: 1,
        norm_policy: true,
        ..DecisionConfig::default()
    };
    let ours = small(Some(decisions.clone()));
    let found = read(&ours.tensors).unwrap().checkpoint;
    assert_eq!(found.config.decisions, Some(decisions));
    assert_eq!(found.config.num_heads, 2);
}

#[test]
fn what_a_checkpoint_tells_is_not_overruled() {
    let ours = small(Some(DecisionConfig::default()));
    let options = ImportOptions {
        num_heads: Some(4),
        ..ImportOptions::default()
    };
    let error = read_with(&ours.tensors, &options).unwrap_err().to_string();
    assert!(error.contains("tells 2, where 4 was given"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    ours.save(folder.path()).unwrap();
    let error = import(folder.path(), &options).unwrap_err().to_string();
    assert!(error.contains("tells 2, where 4 was given"), "{error}");
    // A file of torch.save beside our config.json is not ours.
    let weights =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/published/timm_saver_ema.pth");
    std::fs::copy(weights, folder.path().join("ema.pth")).unwrap();
    let found = import(&folder.path().join("ema.pth"), &ImportOptions::default()).unwrap();
    assert_eq!(
        (found.source, found.checkpoint.config.num_heads),
        (Source::Timm, 3)
    );
}

#[test]
fn our_own_checkpoints_are_read_as_they_are() {
    let ours = small(Some(DecisionConfig::default()));
    let folder = tempfile::tempdir().unwrap();
    ours.save(folder.path()).unwrap();
    for path in [
        folder.path().to_path_buf(),
        folder.path().join("model.safetensors"),
    ] {
        let found = import(&path, &ImportOptions::default()).unwrap();
        assert_eq!((found.source, found.notes.len()), (Source::Adavit, 0));
        assert_eq!(found.checkpoint.config, ours.config);
    }
}

#[test]
fn what_is_no_vit_is_refused_by_name() {
    let ours = small(None);
    let without = |name: &str| {
        let mut tensors = ours.tensors.clone();
        tensors.remove(name);
        read(&tensors).unwrap_err().to_string()
    };
    assert!(without("pos_embed").contains("no pos_embed"));
    assert!(without("blocks.1.norm2.weight").contains("blocks.1.norm2.weight"));
    let with = |name: &str, dims: &[usize]| {
        let mut tensors = ours.tensors.clone();
        let tensor = Tensor::zeros(dims, candle_core::DType::F32, &Device::Cpu).unwrap();
        tensors.insert(name.into(), tensor);
        read(&tensors).unwrap_err().to_string()
    };
    assert!(with("reg_token", &[1, 4, 128]).contains("reg_token"));
    assert!(with("dist_token", &[1, 1, 128]).contains("17 tokens are not 2"));
    assert!(with("pos_embed", &[1, 13, 128]).contains("13 tokens"));
    assert!(with("patch_embed.proj.weight", &[96, 1, 7, 7]).contains("heads"));
    assert!(with("blocks.0.attn.proj.weight", &[128, 64]).contains("expected [128, 128]"));
    assert!(with("blocks.7.norm1.weight", &[128]).contains("missing"));
    for number in ["99999999999", "18446744073709551615"] {
        let name = format!("blocks.{number}.norm1.weight");
        assert!(with(&name, &[128]).contains("without a place"), "{number}");
    }
    assert!(read(&Tensors::new()).unwrap_err().is_input_error());
}
