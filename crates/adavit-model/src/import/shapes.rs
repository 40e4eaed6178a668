//! The configuration that the shapes of tensors tell, and what has to be assumed.

use adavit_decision::{DecisionConfig, HeadDeactivation};
use candle_core::Tensor;

use super::foreign::Told;
use super::{ImportOptions, Source};
use crate::{ModelConfig, PRESETS, PosEmbed, T2tConfig, Tensors, TokensType};

/// Channels of a head in every ViT, DeiT and T2T-ViT that is published.
const HEAD_WIDTH: usize = 64;

/// Numbers of blocks from here on are no blocks of a model.
const MOST_BLOCKS: usize = 1 << 16;

/// Finds the configuration from the shapes, and from what a file beside them told.
pub(super) fn config_of(
    tensors: &Tensors,
    source: Source,
    (told, options): (&Told, &ImportOptions),
    notes: &mut Vec<String>,
) -> Result<ModelConfig, String> {
    let dims = |name: &str, rank: usize| dims_of(tensors, name, rank);
    let stem = stem_of(tensors)?;
    let embed_dim = stem.embed_dim;
    let distilled = tensors.contains_key("dist_token");
    let num_tokens = dims("pos_embed", 3)?[1];
    let img_size = img_size(num_tokens, usize::from(distilled) + 1, &stem, told)?;
    let hidden = dims("blocks.0.mlp.fc1.weight", 2)?[0];
    let layer_norm_eps = told.layer_norm_eps.unwrap_or(match (source, &stem.t2t) {
        (Source::HuggingFace, _) => 1e-12,
        (_, Some(_)) => 1e-5,
        (_, None) => 1e-6,
    });
    let num_classes = match (dims("head.weight", 2), options.num_classes) {
        (Ok(head), _) => head[0],
        // The head is to be made anew.
        (Err(_), Some(num_classes)) if !tensors.contains_key("head.weight") => num_classes,
        (Err(error), _) => return Err(error),
    };
    let config = ModelConfig {
        preset: String::new(),
        img_size,
        patch_size: stem.patch_size,
        pos_embed: match &stem.t2t {
            Some(_) => PosEmbed::Sinusoid,
            None => PosEmbed::Learned,
        },
        tokens_to_token: stem.t2t,
        conv_stem: None,
        in_chans: stem.in_chans,
        num_classes,
        embed_dim,
        depth: blocks(tensors, "").map_or(0, |(_, last)| last + 1),
        num_heads: num_heads(tensors, embed_dim, (told, options), notes)?,
        mlp_ratio: mlp_ratio(hidden, embed_dim),
        qkv_bias: tensors.contains_key("blocks.0.attn.query.bias"),
        layer_norm_eps,
        distilled,
        decisions: decisions_of(tensors, notes),
        normalization: told.normalization.clone(),
        preprocessing: told.preprocessing.clone(),
        class_names: told.class_names.clone(),
        trained_on: None,
    };
    note_source(&config, source, told, notes);
    let preset = preset_of(&config);
    let config = described(config, preset);
    config.validate().map_err(|error| error.to_string())?;
    Ok(config)
}

/// Notes where the configuration comes from.
fn note_source(config: &ModelConfig, source: Source, told: &Told, notes: &mut Vec<String>) {
    if told.files.is_empty() {
        notes.push(format!(
            "no config.json: sizes were found from the shapes, and the eps of layer norms, {:e}, is \
             {}'s",
            config.layer_norm_eps,
            source.name()
        ));
    } else {
        notes.push(format!(
            "sizes were found from the shapes, and what these do not tell from {}",
            told.files.join(" and ")
        ));
        if told.layer_norm_eps.is_none() {
            notes.push(format!(
                "the eps of layer norms, {:e}, is {}'s",
                config.layer_norm_eps,
                source.name()
            ));
        }
    }
}

/// Names the preset, and takes from it what pictures become.
fn described(config: ModelConfig, preset: Option<ModelConfig>) -> ModelConfig {
    let Some(preset) = preset else {
        let name = match (&config.tokens_to_token, config.distilled) {
            (Some(_), _) => "t2t_vit",
            (None, true) => "deit_distilled",
            (None, false) => "vit",
        };
        return ModelConfig {
            preset: name.into(),
            ..config
        };
    };
    ModelConfig {
        preset: preset.preset,
        normalization: config.normalization.or(preset.normalization),
        preprocessing: config.preprocessing.or(preset.preprocessing),
        ..config
    }
}

/// What comes before the blocks.
struct Stem {
    embed_dim: usize,
    in_chans: usize,
    patch_size: usize,
    t2t: Option<T2tConfig>,
}

fn stem_of(tensors: &Tensors) -> Result<Stem, String> {
    if !tensors.contains_key("tokens_to_token.project.weight") {
        let patch = dims_of(tensors, "patch_embed.proj.weight", 4)?;
        if tensors.contains_key("patch_embed.convs.0.weight") {
            return Err(
                "a convolutional stem, whose strides no shape tells: expected the config.json of \
                 adavit beside the file"
                    .into(),
            );
        }
        return Ok(Stem {
            embed_dim: patch[0],
            in_chans: patch[1],
            patch_size: patch[2],
            t2t: None,
        });
    }
    let project = dims_of(tensors, "tokens_to_token.project.weight", 2)?;
    let first = dims_of(tensors, "tokens_to_token.attention1.norm1.weight", 1)?;
    let performer = tensors.contains_key("tokens_to_token.attention1.w");
    Ok(Stem {
        embed_dim: project[0],
        // Windows of 7x7 pixels, then of 3x3 tokens.
        in_chans: (first[0] / 49).max(1),
        patch_size: 16,
        t2t: Some(T2tConfig {
            tokens_type: if performer {
                TokensType::Performer
            } else {
                TokensType::Transformer
            },
            token_dim: project[1] / 9,
        }),
    })
}

fn img_size(
    num_tokens: usize,
    prefix: usize,
    stem: &Stem,
    told: &Told,
) -> Result<(usize, usize), String> {
    let patches = num_tokens.saturating_sub(prefix);
    let p = stem.patch_size;
    if let Some((height, width)) = told.img_size
        && (height / p).checked_mul(width / p) == Some(patches)
    {
        return Ok((height, width));
    }
    let side = patches.isqrt();
    if side * side != patches || side == 0 {
        return Err(format!(
            "pos_embed: {num_tokens} tokens are not {prefix} and a square of patches; write a \
             config.json that tells the size of the images"
        ));
    }
    Ok((side * p, side * p))
}

/// The ratio that gives back this very width.
fn mlp_ratio(hidden: usize, embed_dim: usize) -> f64 {
    let ratio = hidden as f64 / embed_dim as f64;
    if (embed_dim as f64 * ratio) as usize == hidden {
        ratio
    } else {
        (hidden as f64 + 0.5) / embed_dim as f64
    }
}

/// The dimensions of a tensor, none of them 0.
fn dims_of(tensors: &Tensors, name: &str, rank: usize) -> Result<Vec<usize>, String> {
    let Some(tensor) = tensors.get(name) else {
        return Err(format!(
            "no {name}: expected the tensors of a ViT, DeiT or T2T-ViT by timm, Hugging Face or the \
             AdaViT code, or a config.json of adavit beside the file"
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

/// The preset with the same sizes, whatever the number of classes and the size of the images.
pub(super) fn preset_of(config: &ModelConfig) -> Option<ModelConfig> {
    let sizes = |config: &ModelConfig| {
        (
            (config.embed_dim, config.depth, config.num_heads),
            (config.hidden_dim(), config.qkv_bias, config.distilled),
            (config.patch_size, config.in_chans),
            (config.tokens_to_token.clone(), config.conv_stem.clone()),
        )
    };
    PRESETS
        .into_iter()
        .filter_map(|name| ModelConfig::preset(name).ok())
        .find(|preset| sizes(preset) == sizes(config))
}

/// The first and the last block with a tensor whose name continues with `part`.
fn blocks(tensors: &Tensors, part: &str) -> Option<(usize, usize)> {
    let numbers = tensors.keys().filter_map(|name| {
        let (number, rest) = name.strip_prefix("blocks.")?.split_once('.')?;
        rest.starts_with(part)
            .then(|| number.parse().ok().filter(|number| *number < MOST_BLOCKS))
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
    (told, options): (&Told, &ImportOptions),
    notes: &mut Vec<String>,
) -> Result<usize, String> {
    let select = tensors
        .iter()
        .find(|(name, _)| name.ends_with("head_select.mlp_head.bias"));
    let select = select.and_then(|(_, bias): (_, &Tensor)| bias.dims().first().copied());
    let known = told.num_heads.or(select);
    if let (Some(known), Some(given)) = (known, options.num_heads)
        && known != given
    {
        return Err(format!(
            "num_heads: the checkpoint tells {known}, where {given} was given"
        ));
    }
    if let Some(heads) = known.or(options.num_heads) {
        return Ok(heads);
    }
    if !embed_dim.is_multiple_of(HEAD_WIDTH) {
        return Err(format!(
            "embed_dim {embed_dim} is no multiple of {HEAD_WIDTH}, and no tensor tells the number \
             of heads; tell it by --num-heads"
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
