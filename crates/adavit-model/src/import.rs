//! Checkpoints of others: timm's and Hugging Face's ViT and DeiT as safetensors.
//!
//! Tensors get the names of the published AdaViT code, and the configuration is found from their
//! shapes, as far as shapes tell; what they do not is said.

use std::path::Path;

use adavit_decision::{DecisionConfig, HeadDeactivation};
use candle_core::Tensor;

use crate::{Checkpoint, Error, ModelConfig, PRESETS, PosEmbed, Result, Tensors, read_tensors};

/// Channels of a head in every ViT and DeiT that timm and Hugging Face publish.
const HEAD_WIDTH: usize = 64;

/// Who wrote a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// adavit: with a `config.json` of its own.
    Adavit,
    /// timm, or PyTorch code with its names.
    Timm,
    /// The `ViTForImageClassification` of Hugging Face's transformers.
    HuggingFace,
}

impl Source {
    /// The source's name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Adavit => "adavit",
            Self::Timm => "timm",
            Self::HuggingFace => "Hugging Face transformers",
        }
    }
}

/// A checkpoint, and how it was understood.
#[derive(Debug, Clone)]
pub struct Imported {
    /// What was read.
    pub checkpoint: Checkpoint,
    /// Who wrote it.
    pub source: Source,
    /// What was assumed or changed, a sentence each.
    pub notes: Vec<String>,
}

/// Reads a checkpoint of adavit, or a safetensors file of timm or Hugging Face.
///
/// # Errors
/// If a file is missing or damaged, the shapes describe no model, or tensors are missing, unused or
/// misshapen.
pub fn import(path: &Path) -> Result<Imported> {
    if path.is_dir() || path.with_file_name("config.json").is_file() && is_native(path) {
        return Ok(Imported {
            checkpoint: Checkpoint::load(path)?,
            source: Source::Adavit,
            notes: Vec::new(),
        });
    }
    let (mut tensors, mut notes) = (read_tensors(path)?, Vec::new());
    tensors = without_prefix(tensors, "module.", &mut notes);
    let source = if tensors.keys().any(|name| name.starts_with("vit.")) {
        tensors = renamed(tensors);
        Source::HuggingFace
    } else {
        Source::Timm
    };
    let tensors = split_qkv(tensors, &mut notes)?;
    let fail = |message: String| Error::Checkpoint {
        path: path.to_path_buf(),
        message,
    };
    let config = config_of(&tensors, source, &mut notes).map_err(fail)?;
    let checkpoint = Checkpoint { config, tensors };
    checkpoint.check(path)?;
    Ok(Imported {
        checkpoint,
        source,
        notes,
    })
}

/// Whether the `config.json` beside the weights is ours; others write one too.
fn is_native(path: &Path) -> bool {
    std::fs::read_to_string(path.with_file_name("config.json"))
        .is_ok_and(|text| serde_json::from_str::<ModelConfig>(&text).is_ok())
}

fn without_prefix(tensors: Tensors, prefix: &str, notes: &mut Vec<String>) -> Tensors {
    if tensors.is_empty() || !tensors.keys().all(|name| name.starts_with(prefix)) {
        return tensors;
    }
    notes.push(format!("the prefix {prefix} of every name was taken off"));
    let named = tensors.into_iter();
    named
        .map(|(name, tensor)| (name[prefix.len()..].to_string(), tensor))
        .collect()
}

/// Hugging Face's names to ours.
fn renamed(tensors: Tensors) -> Tensors {
    let named = tensors.into_iter();
    named
        .map(|(name, tensor)| (own_name(&name).unwrap_or(name), tensor))
        .collect()
}

fn own_name(name: &str) -> Option<String> {
    let whole = [
        ("vit.embeddings.cls_token", "cls_token"),
        ("vit.embeddings.position_embeddings", "pos_embed"),
    ];
    if let Some((_, own)) = whole.iter().find(|(theirs, _)| *theirs == name) {
        return Some((*own).to_string());
    }
    let (stem, kind) = name.rsplit_once('.')?;
    let stem = match stem {
        "vit.embeddings.patch_embeddings.projection" => "patch_embed.proj".to_string(),
        "vit.layernorm" => "norm".to_string(),
        "classifier" => "head".to_string(),
        _ => {
            let (block, part) = stem.strip_prefix("vit.encoder.layer.")?.split_once('.')?;
            let part = match part {
                "layernorm_before" => "norm1",
                "layernorm_after" => "norm2",
                "attention.attention.query" => "attn.query",
                "attention.attention.key" => "attn.key",
                "attention.attention.value" => "attn.value",
                "attention.output.dense" => "attn.proj",
                "intermediate.dense" => "mlp.fc1",
                "output.dense" => "mlp.fc2",
                _ => return None,
            };
            format!("blocks.{block}.{part}")
        }
    };
    Some(format!("{stem}.{kind}"))
}

/// Splits each `attn.qkv` of 3 C rows into query, key and value.
fn split_qkv(tensors: Tensors, notes: &mut Vec<String>) -> Result<Tensors> {
    let mut split = Tensors::new();
    let mut count = 0;
    for (name, tensor) in tensors {
        let place = name.find(".attn.qkv.").filter(|_| {
            let rows = tensor.dims().first();
            rows.is_some_and(|rows| *rows > 0 && rows.is_multiple_of(3))
        });
        let Some(place) = place else {
            split.insert(name, tensor);
            continue;
        };
        let (stem, kind) = (&name[..place], &name[place + ".attn.qkv.".len()..]);
        let rows = tensor.dim(0)? / 3;
        for (index, part) in ["query", "key", "value"].into_iter().enumerate() {
            let part_tensor = tensor.narrow(0, index * rows, rows)?.contiguous()?;
            split.insert(format!("{stem}.attn.{part}.{kind}"), part_tensor);
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

/// Finds the configuration from the shapes.
fn config_of(
    tensors: &Tensors,
    source: Source,
    notes: &mut Vec<String>,
) -> Result<ModelConfig, String> {
    let dims = |name: &str, rank: usize| dims_of(tensors, name, rank);
    let patch = dims("patch_embed.proj.weight", 4)?;
    let (embed_dim, in_chans, patch_size) = (patch[0], patch[1], patch[2]);
    let num_tokens = dims("pos_embed", 3)?[1];
    let side = (num_tokens - 1).isqrt();
    if side * side + 1 != num_tokens {
        return Err(format!(
            "pos_embed: {num_tokens} tokens are a class token and no square of patches; write a \
             config.json that tells the size of the images"
        ));
    }
    let depth = blocks(tensors, "").map_or(0, |(_, last)| last + 1);
    let hidden = dims("blocks.0.mlp.fc1.weight", 2)?[0];
    let decisions = decisions_of(tensors, notes);
    let num_heads = num_heads(tensors, embed_dim, notes)?;
    let config = ModelConfig {
        preset: String::new(),
        img_size: (side * patch_size, side * patch_size),
        patch_size,
        in_chans,
        num_classes: dims("head.weight", 2)?[0],
        embed_dim,
        depth,
        num_heads,
        mlp_ratio: hidden as f64 / embed_dim as f64,
        qkv_bias: tensors.contains_key("blocks.0.attn.query.bias"),
        layer_norm_eps: if source == Source::HuggingFace {
            1e-12
        } else {
            1e-6
        },
        pos_embed: PosEmbed::Learned,
        decisions,
        normalization: None,
        class_names: Vec::new(),
    };
    notes.push(format!(
        "no config.json of adavit: sizes were found from the shapes, and the eps of layer norms, {:e}, is {}'s",
        config.layer_norm_eps,
        source.name()
    ));
    let config = ModelConfig {
        preset: preset_of(&config).unwrap_or("vit").into(),
        ..config
    };
    config.validate().map_err(|error| error.to_string())?;
    Ok(config)
}

/// The dimensions of a tensor, none of them 0.
fn dims_of(tensors: &Tensors, name: &str, rank: usize) -> Result<Vec<usize>, String> {
    let Some(tensor) = tensors.get(name) else {
        return Err(format!(
            "no {name}: expected the tensors of a ViT or DeiT by timm or Hugging Face, or a \
             config.json of adavit beside the file"
        ));
    };
    let dims = tensor.dims().to_vec();
    if dims.len() != rank || dims.contains(&0) {
        return Err(format!(
            "{name}: expected {rank} dimensions, found {dims:?}"
        ));
    }
    Ok(dims)
}

/// The preset with the same sizes, whatever the number of classes.
fn preset_of(config: &ModelConfig) -> Option<&'static str> {
    let sizes = |config: &ModelConfig| {
        let config = ModelConfig {
            num_classes: 1,
            ..config.clone()
        };
        (config.geometry(), config.img_size, config.in_chans)
    };
    let same = |preset: ModelConfig| sizes(&preset) == sizes(config);
    PRESETS
        .into_iter()
        .find(|name| ModelConfig::preset(name).is_ok_and(same))
}

/// The first and the last block with a tensor whose name continues with `part`.
fn blocks(tensors: &Tensors, part: &str) -> Option<(usize, usize)> {
    let numbers = tensors.keys().filter_map(|name| {
        let (number, rest) = name.strip_prefix("blocks.")?.split_once('.')?;
        rest.starts_with(part)
            .then(|| number.parse().ok())
            .flatten()
    });
    numbers.fold(None, |found: Option<(usize, usize)>, number: usize| {
        let (first, last) = found.unwrap_or((number, number));
        Some((first.min(number), last.max(number)))
    })
}

fn num_heads(
    tensors: &Tensors,
    embed_dim: usize,
    notes: &mut Vec<String>,
) -> Result<usize, String> {
    let select = tensors
        .iter()
        .find(|(name, _)| name.ends_with("head_select.mlp_head.bias"));
    if let Some(heads) = select.and_then(|(_, bias): (_, &Tensor)| bias.dims().first()) {
        return Ok(*heads);
    }
    if !embed_dim.is_multiple_of(HEAD_WIDTH) {
        return Err(format!(
            "embed_dim {embed_dim} is no multiple of {HEAD_WIDTH}, and no tensor tells the number \
             of heads; write a config.json"
        ));
    }
    notes.push(format!(
        "the number of heads is no shape: {} of {HEAD_WIDTH} channels, as in every published ViT",
        embed_dim / HEAD_WIDTH
    ));
    Ok(embed_dim / HEAD_WIDTH)
}

/// The decisions that there are networks for.
fn decisions_of(tensors: &Tensors, notes: &mut Vec<String>) -> Option<DecisionConfig> {
    let tokens = blocks(tensors, "attn.token_select.");
    let heads = blocks(tensors, "head_select.");
    let sublayers = blocks(tensors, "layer_select.");
    if tokens.is_none() && heads.is_none() && sublayers.is_none() {
        return None;
    }
    let default = DecisionConfig::default();
    let keep_layers = heads.or(sublayers).map(|(first, _)| first);
    if heads.is_some() {
        notes.push(
            "what an off head means is no shape: full deactivation, as in the published checkpoints"
                .into(),
        );
    }
    Some(DecisionConfig {
        ada_token: tokens.is_some(),
        ada_token_start_layer: tokens.map_or(0, |(first, _)| first),
        ada_head: heads.map(|_| HeadDeactivation::Full),
        ada_layer: sublayers.is_some(),
        keep_layers: keep_layers.unwrap_or(default.keep_layers),
        norm_policy: blocks(tensors, "norm_policy.").is_some(),
        ..default
    })
}
