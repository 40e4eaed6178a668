//! The configuration that the shapes of tensors say, and what has to be assumed.

use adavit_data::{Interpolation, Normalization, Preprocessing};
use adavit_decision::{DecisionConfig, HeadDeactivation};

use super::imported::{ImportOptions, Origin};
use super::prefixes::sample;
use super::preset::{preset_name, related_preset};
use super::sidecar::Sidecar;
use crate::checkpoint::tensors::Tensors;
use crate::config::{ModelConfig, PosEmbed};
use crate::stem::Stem;
use crate::stem::tokens_to_token::{T2tConfig, TokensType};

/// Channels of a head in every ViT, DeiT and T2T-ViT that is published.
const HEAD_WIDTH: usize = 64;

/// Numbers of blocks from here on are no blocks of a model.
const MOST_BLOCKS: usize = 1 << 16;

/// Everything that says what a model is made of.
pub(super) struct Evidence<'a> {
    pub(super) tensors: &'a Tensors,
    pub(super) origin: Origin,
    pub(super) sidecar: &'a Sidecar,
    pub(super) options: &'a ImportOptions,
}

/// A configuration, and how sure it is.
pub(super) struct FoundConfig {
    pub(super) config: ModelConfig,
    pub(super) num_heads_assumed: bool,
}

impl Evidence<'_> {
    /// Finds the configuration, and notes what is assumed.
    pub(super) fn config(&self, notes: &mut Vec<String>) -> Result<FoundConfig, String> {
        let (tensors, sidecar) = (self.tensors, self.sidecar);
        let StemShape {
            stem,
            embed_dim,
            in_chans,
        } = stem_of(tensors)?;
        let t2t = stem.is_tokens_to_token();
        let hidden = dims_of(tensors, "blocks.0.mlp.fc1.weight", 2)?[0];
        let layer_norm_eps = sidecar.layer_norm_eps.unwrap_or(match self.origin {
            Origin::HuggingFace => 1e-12,
            _ if t2t => 1e-5,
            _ => 1e-6,
        });
        let heads = self.heads(embed_dim, notes)?;
        let mut config = ModelConfig {
            preset: String::new(),
            img_size: self.img_size(&stem)?,
            stem,
            in_chans,
            num_classes: self.num_classes()?,
            embed_dim,
            depth: blocks(tensors, "").map_or(0, |(_, last)| last + 1),
            num_heads: heads.count,
            mlp_ratio: mlp_ratio(hidden, embed_dim),
            qkv_bias: tensors.contains_key("blocks.0.attn.query.bias"),
            layer_norm_eps,
            pos_embed: if t2t {
                PosEmbed::Sinusoid
            } else {
                PosEmbed::Learned
            },
            distilled: self.distilled(),
            head_dist: self.has_head_dist(),
            decisions: decisions_of(tensors, notes),
            normalization: sidecar.normalization.clone(),
            preprocessing: sidecar.preprocessing.clone(),
            class_names: sidecar.class_names.clone(),
            trained_on: None,
            budget_curve: None,
        };
        self.note_sources(&config, notes);
        config.preset = preset_name(&config);
        self.assume_input(&mut config, notes);
        config.validate().map_err(|error| error.to_string())?;
        Ok(FoundConfig {
            config,
            num_heads_assumed: heads.assumed,
        })
    }

    /// Assumes how pixels are prepared where no file says it, and notes it.
    fn assume_input(&self, config: &mut ModelConfig, notes: &mut Vec<String>) {
        let of_torchvision = || Preprocessing {
            interpolation: Interpolation::Bilinear,
            crop_pct: 224.0 / 256.0,
            ..Preprocessing::default()
        };
        let preset = related_preset(config);
        let (normalization, preprocessing) = match (self.origin, preset) {
            (Origin::Torchvision, _) if config.in_chans == 3 => {
                (Some(Normalization::imagenet()), Some(of_torchvision()))
            }
            (_, Some(preset)) => (preset.normalization, preset.preprocessing),
            (_, None) => return,
        };
        if let (None, Some(assumed)) = (&config.normalization, normalization) {
            notes.push(format!(
                "no file says how pixels are normalised: mean {:?} and std {:?} were assumed; timm's vit_* \
                 of ImageNet-21k have 0.5 for both",
                assumed.mean, assumed.std
            ));
            config.normalization = Some(assumed);
        }
        if let (None, Some(assumed)) = (&config.preprocessing, preprocessing) {
            notes.push(format!(
                "no file says how pictures are resized: {:?} and crop_pct {} were assumed",
                assumed.interpolation, assumed.crop_pct
            ));
            config.preprocessing = Some(assumed);
        }
    }

    fn distilled(&self) -> bool {
        self.tensors.contains_key("dist_token")
    }

    /// transformers' `DeiTForImageClassification` has a distillation token without a head.
    fn has_head_dist(&self) -> bool {
        let has = |name: &str| self.tensors.contains_key(name);
        !self.distilled() || has("head_dist.weight") || !has("head.weight")
    }

    fn num_classes(&self) -> Result<usize, String> {
        match (
            dims_of(self.tensors, "head.weight", 2),
            self.options.num_classes,
        ) {
            (Ok(head), _) => Ok(head[0]),
            // The head is replaced.
            (Err(_), Some(num_classes)) if !self.tensors.contains_key("head.weight") => {
                Ok(num_classes)
            }
            (Err(_), None) if !self.tensors.contains_key("head.weight") => Err(format!(
                "a {} of {} without a head; set num_classes for a new one",
                if self.distilled() { "DeiT" } else { "ViT" },
                self.origin.name()
            )),
            (Err(error), _) => Err(error),
        }
    }

    fn img_size(&self, stem: &Stem) -> Result<(usize, usize), String> {
        let num_tokens = dims_of(self.tensors, "pos_embed", 3)?[1];
        let prefix = usize::from(self.distilled()) + 1;
        let patches = num_tokens.saturating_sub(prefix);
        let p = stem.patch_size();
        if let Some((height, width)) = self.sidecar.img_size
            && (height / p).checked_mul(width / p) == Some(patches)
        {
            return Ok((height, width));
        }
        let side = patches.isqrt();
        if side * side != patches || side == 0 {
            if let Some(name) = registers(self.tensors) {
                return Err(format!(
                    "{name}: register tokens are not supported; expected a ViT without them"
                ));
            }
            return Err(format!(
                "pos_embed: {num_tokens} tokens are not {prefix} and a square of patches; write the \
                 size of the images into a config.json beside the file"
            ));
        }
        Ok((side * p, side * p))
    }

    fn heads(&self, embed_dim: usize, notes: &mut Vec<String>) -> Result<Heads, String> {
        let known = self.sidecar.num_heads.or_else(|| self.gated_heads());
        let given = self.options.num_heads;
        if let (Some(known), Some(given)) = (known, given)
            && known != given
        {
            return Err(format!(
                "num_heads: expected {known}, as the checkpoint says, found {given}; leave it out"
            ));
        }
        if let Some(count) = known.or(given) {
            return Ok(Heads {
                count,
                assumed: false,
            });
        }
        if !embed_dim.is_multiple_of(HEAD_WIDTH) {
            return Err(format!(
                "embed_dim {embed_dim} is no multiple of {HEAD_WIDTH}, and no tensor says how many \
                 heads there are; set num_heads"
            ));
        }
        let count = embed_dim / HEAD_WIDTH;
        notes.push(format!(
            "no tensor says how many heads there are: {count} of {HEAD_WIDTH} channels were \
             assumed, as in every published ViT"
        ));
        Ok(Heads {
            count,
            assumed: true,
        })
    }

    /// The heads that a decision network has gates for.
    fn gated_heads(&self) -> Option<usize> {
        let mut tensors = self.tensors.iter();
        let (_, bias) = tensors.find(|(name, _)| name.ends_with("head_select.mlp_head.bias"))?;
        bias.dims().first().copied()
    }

    /// Notes where the configuration comes from.
    fn note_sources(&self, config: &ModelConfig, notes: &mut Vec<String>) {
        let (eps, origin) = (config.layer_norm_eps, self.origin.name());
        let files = &self.sidecar.files;
        if files.is_empty() {
            notes.push(format!(
                "no config.json: sizes were found from the shapes, and the eps of layer norms, \
                 {eps:e}, is {origin}'s"
            ));
            return;
        }
        notes.push(format!(
            "sizes were found from the shapes, and what these cannot say from {}",
            files.join(" and ")
        ));
        if self.sidecar.layer_norm_eps.is_none() {
            notes.push(format!("the eps of layer norms, {eps:e}, is {origin}'s"));
        }
    }
}

/// A number of heads, and whether nothing says it.
struct Heads {
    count: usize,
    assumed: bool,
}

/// What the stem's tensors say.
struct StemShape {
    stem: Stem,
    embed_dim: usize,
    in_chans: usize,
}

fn stem_of(tensors: &Tensors) -> Result<StemShape, String> {
    if !tensors.contains_key("tokens_to_token.project.weight") {
        if !tensors.contains_key("patch_embed.proj.weight") {
            return Err(no_vit(tensors));
        }
        let patch = dims_of(tensors, "patch_embed.proj.weight", 4)?;
        if tensors.contains_key("patch_embed.convs.0.weight") {
            return Err(
                "a convolutional stem, whose strides no shape says: expected the config.json of \
                 adavit beside the file"
                    .into(),
            );
        }
        return Ok(StemShape {
            stem: Stem::Patches {
                patch_size: patch[2],
            },
            embed_dim: patch[0],
            in_chans: patch[1],
        });
    }
    let project = dims_of(tensors, "tokens_to_token.project.weight", 2)?;
    let first = dims_of(tensors, "tokens_to_token.attention1.norm1.weight", 1)?;
    let performer = tensors.contains_key("tokens_to_token.attention1.w");
    Ok(StemShape {
        embed_dim: project[0],
        // Windows of 7x7 pixels, then of 3x3 tokens.
        in_chans: (first[0] / 49).max(1),
        stem: Stem::TokensToToken(T2tConfig {
            tokens_type: if performer {
                TokensType::Performer
            } else {
                TokensType::Transformer
            },
            token_dim: project[1] / 9,
        }),
    })
}

/// What a checkpoint has to hold.
const EXPECTED: &str = "expected the tensors of a ViT, DeiT or T2T-ViT by timm, Hugging Face, \
     torchvision or the AdaViT code, or a config.json of adavit beside the file";

/// Parts of names of other networks.
const OTHERS: [(&str, &str); 7] = [
    ("resblocks.", "CLIP's, of OpenCLIP"),
    ("vision_model.", "CLIP's or SigLIP's, of transformers"),
    ("relative_position_bias_table", "Swin's"),
    ("downsample_layers.", "ConvNeXt's"),
    ("stages.", "a network of stages, such as ConvNeXt"),
    ("layer1.0.conv1", "ResNet's"),
    (
        "lora_A",
        "LoRA adapters, without the model that they belong to",
    ),
];

/// The error for tensors that are no ViT's: what they are called, and what they look like.
fn no_vit(tensors: &Tensors) -> String {
    if tensors.is_empty() {
        return format!("no tensors: {EXPECTED}");
    }
    let mut names: Vec<&str> = tensors.keys().map(String::as_str).collect();
    names.sort_unstable();
    let looks = OTHERS
        .iter()
        .find(|(part, _)| names.iter().any(|name| name.contains(part)));
    let looks = looks.map_or(String::new(), |(_, other)| {
        format!(", which look like {other}")
    });
    format!(
        "no patch_embed.proj.weight among {} tensors, {}{looks}: {EXPECTED}",
        names.len(),
        sample(names.into_iter())
    )
}

/// The register tokens, which are not read.
fn registers(tensors: &Tensors) -> Option<&str> {
    let mut names = tensors.keys().map(String::as_str);
    names.find(|name| *name == "reg_token" || name.contains("register_tokens"))
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
        return Err(format!("no {name}: {EXPECTED}"));
    };
    let dims = tensor.dims().to_vec();
    if dims.len() != rank || dims.contains(&0) {
        return Err(format!(
            "{name}: expected {rank} dimensions, found {dims:?}"
        ));
    }
    Ok(dims)
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
            "no tensor says what an off head means: full deactivation was assumed, as in the \
             published checkpoints"
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
