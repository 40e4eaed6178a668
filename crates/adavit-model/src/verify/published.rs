//! The argument names of the published code, in which a recording's configuration is written.

use adavit_decision::{AxisLoss, DecisionConfig, Deviation, HeadDeactivation, UsageLoss};
use serde::Deserialize;

use crate::config::{ModelConfig, PosEmbed};
use crate::stem::Stem;
use crate::stem::tokens_to_token::{T2tConfig, TokensType};

/// One number for a square, or height and width.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Size {
    Square(usize),
    Sides(usize, usize),
}

/// The published constructor's arguments.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the published arguments, each on its own"
)]
pub(super) struct PublishedConfig {
    img_size: Size,
    #[serde(default = "patch_size")]
    patch_size: usize,
    in_chans: usize,
    num_classes: usize,
    embed_dim: usize,
    depth: usize,
    num_heads: usize,
    mlp_ratio: f64,
    #[serde(default)]
    qkv_bias: bool,
    #[serde(default = "ln_eps")]
    ln_eps: f64,
    #[serde(default)]
    use_t2t: bool,
    #[serde(default)]
    tokens_type: Option<TokensType>,
    #[serde(default = "token_dim")]
    token_dim: usize,
    #[serde(default)]
    distilled: bool,
    #[serde(default)]
    ada_head: bool,
    #[serde(default)]
    ada_head_attn: bool,
    #[serde(default)]
    ada_head_v2: bool,
    #[serde(default)]
    ada_layer: bool,
    #[serde(default)]
    ada_token: bool,
    #[serde(default)]
    ada_token_with_mlp: bool,
    #[serde(default)]
    ada_token_start_layer: usize,
    #[serde(default)]
    norm_policy: bool,
    #[serde(default = "keep_layers")]
    keep_layers: usize,
}

fn patch_size() -> usize {
    16
}

fn ln_eps() -> f64 {
    1e-6
}

fn token_dim() -> usize {
    64
}

fn keep_layers() -> usize {
    1
}

impl PublishedConfig {
    pub(super) fn model(self) -> Result<ModelConfig, String> {
        let decisions = self.decisions()?;
        Ok(ModelConfig {
            preset: "recording".into(),
            img_size: match self.img_size {
                Size::Square(side) => (side, side),
                Size::Sides(height, width) => (height, width),
            },
            stem: self.stem(),
            in_chans: self.in_chans,
            num_classes: self.num_classes,
            embed_dim: self.embed_dim,
            depth: self.depth,
            num_heads: self.num_heads,
            mlp_ratio: self.mlp_ratio,
            qkv_bias: self.qkv_bias,
            layer_norm_eps: self.ln_eps,
            // With a gradient wherever one was recorded.
            pos_embed: PosEmbed::Learned,
            distilled: self.distilled,
            head_dist: true,
            decisions,
            normalization: None,
            preprocessing: None,
            class_names: Vec::new(),
            trained_on: None,
            budget_curve: None,
        })
    }

    fn stem(&self) -> Stem {
        if !self.use_t2t {
            return Stem::Patches {
                patch_size: self.patch_size,
            };
        }
        Stem::TokensToToken(T2tConfig {
            tokens_type: self.tokens_type.unwrap_or(TokensType::Performer),
            token_dim: self.token_dim,
        })
    }

    fn decisions(&self) -> Result<Option<DecisionConfig>, String> {
        let ada_head = match (self.ada_head, self.ada_head_attn, self.ada_head_v2) {
            (false, ..) => None,
            (true, true, true) => {
                return Err("config: ada_head_attn and ada_head_v2 exclude each other".into());
            }
            (true, true, false) => Some(HeadDeactivation::Partial),
            (true, false, true) => Some(HeadDeactivation::HeadV2),
            (true, false, false) => Some(HeadDeactivation::Full),
        };
        let decides = self.ada_token || self.ada_head || self.ada_layer;
        Ok(decides.then(|| DecisionConfig {
            ada_token: self.ada_token,
            ada_token_with_mlp: self.ada_token_with_mlp,
            ada_token_start_layer: self.ada_token_start_layer,
            ada_head,
            ada_layer: self.ada_layer,
            keep_layers: self.keep_layers,
            norm_policy: self.norm_policy,
            ..DecisionConfig::default()
        }))
    }
}

/// The published arguments of the budget losses; what is not there weighs nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PublishedLoss {
    head_target_ratio: f64,
    layer_target_ratio: f64,
    token_target_ratio: f64,
    head_loss_ratio: f64,
    layer_loss_ratio: f64,
    token_loss_ratio: f64,
    head_diverse_ratio: f64,
    layer_diverse_ratio: f64,
    head_entropy_weight: f64,
    layer_entropy_weight: f64,
    head_minimal: f64,
    layer_minimal: f64,
    token_minimal: f64,
    head_minimal_weight: f64,
    layer_minimal_weight: f64,
    token_minimal_weight: f64,
}

impl PublishedLoss {
    pub(super) fn usage_loss(self) -> UsageLoss {
        UsageLoss {
            tokens: AxisLoss {
                minimum: self.token_minimal,
                minimum_weight: self.token_minimal_weight,
                ..AxisLoss::new(
                    self.token_target_ratio,
                    self.token_loss_ratio,
                    Deviation::Squared,
                )
            },
            heads: AxisLoss {
                diverse_weight: self.head_diverse_ratio,
                entropy_weight: self.head_entropy_weight,
                minimum: self.head_minimal,
                minimum_weight: self.head_minimal_weight,
                ..AxisLoss::new(
                    self.head_target_ratio,
                    self.head_loss_ratio,
                    Deviation::Absolute,
                )
            },
            blocks: AxisLoss {
                diverse_weight: self.layer_diverse_ratio,
                entropy_weight: self.layer_entropy_weight,
                minimum: self.layer_minimal,
                minimum_weight: self.layer_minimal_weight,
                ..AxisLoss::new(
                    self.layer_target_ratio,
                    self.layer_loss_ratio,
                    Deviation::Absolute,
                )
            },
        }
    }
}
