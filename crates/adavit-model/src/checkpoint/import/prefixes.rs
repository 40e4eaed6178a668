//! What wrappers put in front of the names of tensors, and inside them.
//!
//! ```text
//! DistributedDataParallel, torch.compile      module._orig_mod.blocks.0.norm1.weight
//! a Lightning module around a backbone        model.backbone.blocks.0.norm1.weight, model.head.weight
//! self-distillation                           teacher.blocks.0.norm1.weight, student. ...
//! ```
//!
//! A prefix is whatever stands in front of a name that is known. The one with most of the model counts;
//! tensors under its own beginnings, such as the head above, belong to the model too.

use std::collections::BTreeMap;

use crate::checkpoint::tensors::Tensors;

/// Parts that wrappers put anywhere into a name.
const ANYWHERE: [&str; 5] = [
    "module",
    "_orig_mod",
    "_forward_module",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
];

/// Parts of a prefix that is preferred where two hold as much, the better ones first.
const PREFERRED: [&str; 3] = ["ema", "model_ema", "teacher"];

/// Prefixes that belong to the names of transformers.
const OF_TRANSFORMERS: [&str; 2] = ["vit.", "deit."];

/// Names of single tensors.
const WHOLE: [&str; 10] = [
    "cls_token",
    "dist_token",
    "pos_embed",
    "reg_token",
    "class_token",
    "encoder.pos_embedding",
    "head.weight",
    "head.bias",
    "head_dist.weight",
    "head_dist.bias",
];

/// Beginnings of names of timm, transformers and torchvision; `N` is a number.
const BEGINNINGS: [&str; 20] = [
    "patch_embed.",
    "blocks.N.",
    "norm.",
    "fc_norm.",
    "norm_pre.",
    "tokens_to_token.",
    "embeddings.",
    "encoder.layer.N.",
    "layers.N.",
    "layernorm.",
    "pooler.",
    "classifier.",
    "cls_classifier.",
    "distillation_classifier.",
    "conv_proj.",
    "encoder.layers.encoder_layer_N.",
    "encoder.ln.",
    "heads.",
    "attn_pool.",
    "pre_logits.",
];

/// Takes prefixes off, and notes it. Tensors that lie beside the model are left out, and noted; where no
/// prefix was found, every tensor stays.
///
/// # Errors
/// If two prefixes hold as much of a model, and none is preferred, or two tensors get the same name.
pub(super) fn without_prefixes(
    tensors: Tensors,
    notes: &mut Vec<String>,
) -> Result<Tensors, String> {
    let tensors = without_wrappers(tensors, notes)?;
    let Some(prefix) = prefix_of_the_model(&tensors)? else {
        return Ok(tensors);
    };
    if prefix.is_empty() {
        return Ok(tensors);
    }
    let mut own = Tensors::new();
    let (mut beside, mut taken) = (Vec::new(), 0);
    // Of two tensors of one name, that with more of the prefix counts.
    let mut named: Vec<_> = tensors.into_iter().collect();
    named.sort_by_key(|(name, _)| std::cmp::Reverse(split(name)));
    for (name, tensor) in named {
        let at = if name.starts_with(&prefix) {
            Some(prefix.len())
        } else {
            split(&name).filter(|at| prefix.starts_with(&name[..*at]))
        };
        if let Some(at) = at.filter(|at| !own.contains_key(&name[*at..])) {
            taken += usize::from(at > 0);
            own.insert(name[at..].to_string(), tensor);
        } else {
            beside.push(name);
        }
    }
    if !OF_TRANSFORMERS.contains(&prefix.as_str()) {
        notes.push(format!("the prefix {prefix} was taken off {taken} names"));
    }
    if !beside.is_empty() {
        beside.sort_unstable();
        notes.push(format!(
            "left out, since they lie beside {prefix}: {}",
            sample(beside.iter().map(String::as_str))
        ));
    }
    Ok(own)
}

/// Some of many names, for messages.
pub(super) fn sample<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 4;
    let all = names.len();
    let text = names.take(SHOWN).collect::<Vec<_>>().join(", ");
    if all > SHOWN {
        return format!("{text} and {} more", all - SHOWN);
    }
    text
}

/// Takes off what wrappers put anywhere into names.
fn without_wrappers(tensors: Tensors, notes: &mut Vec<String>) -> Result<Tensors, String> {
    let mut found = BTreeMap::new();
    let mut own = |name: &str| -> String {
        let parts = name.split('.').filter(|part| {
            let wrapper = ANYWHERE.iter().find(|wrapper| *wrapper == part);
            if let Some(wrapper) = wrapper {
                *found.entry(*wrapper).or_insert(0) += 1;
            }
            wrapper.is_none()
        });
        parts.collect::<Vec<_>>().join(".")
    };
    let named: Vec<_> = tensors.into_iter().collect();
    let names: Vec<String> = named.iter().map(|(name, _)| own(name)).collect();
    for (wrapper, count) in found {
        notes.push(format!("{wrapper}. was taken off names, {count} times"));
    }
    let mut own = Tensors::new();
    for (name, (full, tensor)) in names.into_iter().zip(named) {
        if own.contains_key(&name) {
            return Err(format!(
                "{full} and another tensor are both {name} without what wrappers add; save the state \
                 dict of one model"
            ));
        }
        own.insert(name, tensor);
    }
    Ok(own)
}

/// The prefix with most of a model below it; empty if names have none, `None` if no name is known.
fn prefix_of_the_model(tensors: &Tensors) -> Result<Option<String>, String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in tensors.keys() {
        if let Some(at) = split(name) {
            *counts.entry(&name[..at]).or_default() += 1;
        }
    }
    let Some(most) = counts.values().copied().max() else {
        return Ok(None);
    };
    let mut best = counts.iter().filter(|(_, count)| **count == most);
    let best: Vec<&str> = best.by_ref().map(|(prefix, _)| *prefix).collect();
    let has = |prefix: &str, part: &str| prefix.split('.').any(|found| found == part);
    let preferred = PREFERRED
        .iter()
        .find_map(|part| best.iter().find(|prefix| has(prefix, part)));
    match (&best[..], preferred) {
        ([only], _) => Ok(Some((*only).to_string())),
        (_, Some(preferred)) => Ok(Some((*preferred).to_string())),
        (several, None) => Err(format!(
            "a model each under {}; save the state dict of one of them",
            several.join(" and ")
        )),
    }
}

/// Where the part of a name begins that is known.
fn split(name: &str) -> Option<usize> {
    let starts = name.match_indices('.').map(|(dot, _)| dot + 1);
    std::iter::once(0)
        .chain(starts)
        .find(|start| is_known(&name[*start..]))
}

fn is_known(name: &str) -> bool {
    let begins = |pattern: &&str| match pattern.split_once('N') {
        None => name.starts_with(pattern),
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            digits > 0 && rest[digits..].starts_with(after)
        }),
    };
    WHOLE.contains(&name) || BEGINNINGS.iter().any(begins)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::*;

    fn tensors(names: &[&str]) -> Tensors {
        let zero = Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap();
        let named = names.iter();
        named
            .map(|name| ((*name).to_string(), zero.clone()))
            .collect()
    }

    fn names(given: &[&str]) -> (Vec<String>, Vec<String>) {
        let mut notes = Vec::new();
        let own = without_prefixes(tensors(given), &mut notes).unwrap();
        let mut names: Vec<String> = own.into_keys().collect();
        names.sort_unstable();
        (names, notes)
    }

    #[test]
    fn wrappers_come_off_wherever_they_are() {
        let (own, notes) = names(&[
            "module._orig_mod.cls_token",
            "module._orig_mod.blocks.0._orig_mod.norm1.weight",
        ]);
        assert_eq!(own, ["blocks.0.norm1.weight", "cls_token"]);
        assert_eq!(
            notes,
            [
                "_orig_mod. was taken off names, 3 times",
                "module. was taken off names, 2 times"
            ]
        );
    }

    #[test]
    fn a_prefix_comes_off_whatever_it_is_called() {
        let (own, notes) = names(&[
            "net.trunk.cls_token",
            "net.trunk.blocks.11.attn.qkv.weight",
            "net.head.weight",
            "loss.weight",
        ]);
        assert_eq!(
            own,
            ["blocks.11.attn.qkv.weight", "cls_token", "head.weight"]
        );
        assert_eq!(
            notes,
            [
                "the prefix net.trunk. was taken off 3 names",
                "left out, since they lie beside net.trunk.: loss.weight"
            ]
        );
    }

    #[test]
    fn without_a_prefix_every_tensor_stays() {
        let given = ["blocks.0.norm1.weight", "cls_token", "decoder.weight"];
        assert_eq!(names(&given).0, given);
        assert!(names(&given).1.is_empty());
        let unknown = ["conv1.weight", "layer1.0.conv1.weight"];
        assert_eq!(names(&unknown).0, unknown);
    }

    #[test]
    fn an_encoder_of_transformers_is_no_prefix() {
        let given = ["embeddings.cls_token", "encoder.layer.3.output.dense.bias"];
        assert_eq!(names(&given).0, given);
    }

    #[test]
    fn of_two_models_the_teacher_counts_or_nothing() {
        let (own, notes) = names(&["student.cls_token", "teacher.cls_token"]);
        assert_eq!(own, ["cls_token"]);
        assert!(notes[1].contains("student.cls_token"), "{notes:?}");
        let error = |names: &[&str]| without_prefixes(tensors(names), &mut Vec::new()).unwrap_err();
        assert!(error(&["a.cls_token", "b.cls_token"]).contains("under a. and b.;"));
        assert!(error(&["cls_token", "module.cls_token"]).contains("are both cls_token"));
    }

    #[test]
    fn of_two_heads_that_nearer_to_the_backbone_counts() {
        let (own, notes) = names(&[
            "head.weight",
            "model.backbone.cls_token",
            "model.backbone.pos_embed",
            "model.head.weight",
        ]);
        assert_eq!(own, ["cls_token", "head.weight", "pos_embed"]);
        let beside = "left out, since they lie beside model.backbone.: head.weight";
        assert_eq!(notes[1], beside);
    }
}
