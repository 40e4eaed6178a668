//! The names that others give to tensors, as ours: those of the published AdaViT code.

use candle_core::Tensor;

use super::imported::Origin;
use super::prefixes::without_prefixes;
use super::torchvision::{are_torchvision, from_torchvision};
use crate::checkpoint::tensors::Tensors;
use crate::error::{Error, Result};

/// Gives tensors our names, with query, key and value apart, and returns whose names they had.
pub(crate) fn own_names(tensors: Tensors, notes: &mut Vec<String>) -> Result<(Tensors, Origin)> {
    let tensors = without_prefixes(tensors, notes).map_err(Error::Import)?;
    let (tensors, origin) = if are_hugging_face(&tensors) {
        (from_hugging_face(tensors, notes), Origin::HuggingFace)
    } else if are_torchvision(&tensors) {
        (from_torchvision(tensors), Origin::Torchvision)
    } else {
        (tensors, Origin::Timm)
    };
    Ok((split_qkv(tensors, notes)?, origin))
}

/// Whether the names are those of Hugging Face's transformers.
fn are_hugging_face(tensors: &Tensors) -> bool {
    tensors.keys().any(|name| name.starts_with("embeddings."))
}

/// Hugging Face's names to ours; others stay.
///
/// A classifier needs neither a pooler nor the token of masked patches.
fn from_hugging_face(tensors: Tensors, notes: &mut Vec<String>) -> Tensors {
    let of_no_use = |name: &str| name.starts_with("pooler.") || name == "embeddings.mask_token";
    let (no_use, named): (Vec<_>, Vec<_>) =
        tensors.into_iter().partition(|(name, _)| of_no_use(name));
    if !no_use.is_empty() {
        let mut names: Vec<&str> = no_use.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        notes.push(format!(
            "left out, since no classifier needs it: {}",
            names.join(", ")
        ));
    }
    named
        .into_iter()
        .map(|(name, tensor)| (own_name(&name).unwrap_or(name), tensor))
        .collect()
}

fn own_name(name: &str) -> Option<String> {
    let whole = [
        ("embeddings.cls_token", "cls_token"),
        ("embeddings.distillation_token", "dist_token"),
        ("embeddings.position_embeddings", "pos_embed"),
    ];
    if let Some((_, own)) = whole.iter().find(|(theirs, _)| *theirs == name) {
        return Some((*own).to_string());
    }
    let (module, leaf) = name.rsplit_once('.')?;
    let module = match module {
        "embeddings.patch_embeddings.projection" => "patch_embed.proj".to_string(),
        "layernorm" => "norm".to_string(),
        "classifier" | "cls_classifier" => "head".to_string(),
        "distillation_classifier" => "head_dist".to_string(),
        _ => {
            // Of transformers before version 5 and since.
            let block = module.strip_prefix("encoder.layer.");
            let (block, part) = block
                .or_else(|| module.strip_prefix("layers."))?
                .split_once('.')?;
            format!("blocks.{block}.{}", own_part(part)?)
        }
    };
    Some(format!("{module}.{leaf}"))
}

/// Of a block.
fn own_part(part: &str) -> Option<&'static str> {
    Some(match part {
        "layernorm_before" => "norm1",
        "layernorm_after" => "norm2",
        "attention.attention.query" | "attention.q_proj" => "attn.query",
        "attention.attention.key" | "attention.k_proj" => "attn.key",
        "attention.attention.value" | "attention.v_proj" => "attn.value",
        "attention.output.dense" | "attention.o_proj" => "attn.proj",
        "intermediate.dense" | "mlp.fc1" => "mlp.fc1",
        "output.dense" | "mlp.fc2" => "mlp.fc2",
        _ => return None,
    })
}

/// Splits each block's `attn.qkv` of 3 C rows into query, key and value.
fn split_qkv(tensors: Tensors, notes: &mut Vec<String>) -> Result<Tensors> {
    let mut split = Tensors::new();
    let mut count = 0;
    for (name, tensor) in tensors {
        let Some((block, leaf)) = fused(&name, &tensor) else {
            split.insert(name, tensor);
            continue;
        };
        let rows = tensor.dim(0)? / 3;
        for (index, part) in ["query", "key", "value"].into_iter().enumerate() {
            let part_tensor = tensor.narrow(0, index * rows, rows)?.force_contiguous()?;
            split.insert(format!("{block}.attn.{part}.{leaf}"), part_tensor);
        }
        count += 1;
    }
    if count > 0 {
        notes.push(format!(
            "{count} attn.qkv tensors were split into query, key and value"
        ));
    }
    Ok(split)
}

/// What comes before and after `attn.qkv` in a name, if the tensor is such a one; the
/// tokens-to-token module keeps its own in one.
fn fused<'a>(name: &'a str, tensor: &Tensor) -> Option<(&'a str, &'a str)> {
    let (block, leaf) = name.split_once(".attn.qkv.")?;
    let rows = *tensor.dims().first()?;
    (block.starts_with("blocks.") && rows > 0 && rows.is_multiple_of(3)).then_some((block, leaf))
}
