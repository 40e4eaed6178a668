//! The names of torchvision's `VisionTransformer`.

use crate::checkpoint::tensors::Tensors;

/// Whether the names are torchvision's.
pub(super) fn are_torchvision(tensors: &Tensors) -> bool {
    tensors.contains_key("conv_proj.weight") && tensors.contains_key("encoder.pos_embedding")
}

/// torchvision's names to timm's; others stay.
pub(super) fn from_torchvision(tensors: Tensors) -> Tensors {
    let named = tensors.into_iter();
    named
        .map(|(name, tensor)| (timm_name(&name).unwrap_or(name), tensor))
        .collect()
}

fn timm_name(name: &str) -> Option<String> {
    match name {
        "class_token" => return Some("cls_token".into()),
        "encoder.pos_embedding" => return Some("pos_embed".into()),
        _ => {}
    }
    let whole = [
        ("conv_proj.", "patch_embed.proj."),
        ("encoder.ln.", "norm."),
        ("heads.head.", "head."),
    ];
    if let Some((leaf, timm)) = whole
        .iter()
        .find_map(|(theirs, timm)| Some((name.strip_prefix(theirs)?, timm)))
    {
        return Some(format!("{timm}{leaf}"));
    }
    let (block, part) = name
        .strip_prefix("encoder.layers.encoder_layer_")?
        .split_once('.')?;
    let parts = [
        ("ln_1.", "norm1."),
        ("ln_2.", "norm2."),
        ("self_attention.in_proj_", "attn.qkv."),
        ("self_attention.out_proj.", "attn.proj."),
        ("mlp.0.", "mlp.fc1."),
        ("mlp.3.", "mlp.fc2."),
        // Of torchvision before 0.14.
        ("mlp.linear_1.", "mlp.fc1."),
        ("mlp.linear_2.", "mlp.fc2."),
    ];
    let (leaf, timm) = parts
        .iter()
        .find_map(|(theirs, timm)| Some((part.strip_prefix(theirs)?, timm)))?;
    Some(format!("blocks.{block}.{timm}{leaf}"))
}
