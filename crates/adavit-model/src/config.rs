//! What a model is made of: everything that its checkpoint's `config.json` says.

use adavit_data::{InputConfig, Labelled, Normalization, Preprocessing};
use adavit_decision::{DecisionConfig, Geometry};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::budget_curve::BudgetCurve;
use crate::error::{Error, Result};
use crate::stem::Stem;
use crate::stem::conv_stem::ConvStemConfig;
use crate::stem::tokens_to_token::T2tConfig;
use crate::trained_on::TrainedOn;

/// Where the position embedding comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PosEmbed {
    /// A trained table.
    #[default]
    Learned,
    /// The frozen sinusoid table of the published AdaViT code.
    Sinusoid,
}

/// A ViT, DeiT or T2T-ViT and, if it decides, how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "StoredConfig", into = "StoredConfig")]
pub struct ModelConfig {
    /// The preset that it comes from.
    pub preset: String,
    /// Height and width of the input, in pixels.
    pub img_size: (usize, usize),
    /// What makes tokens of pixels.
    pub stem: Stem,
    /// Channels of the input.
    pub in_chans: usize,
    /// K.
    pub num_classes: usize,
    /// C.
    pub embed_dim: usize,
    /// L.
    pub depth: usize,
    /// H.
    pub num_heads: usize,
    /// Width of fc1's output over C.
    pub mlp_ratio: f64,
    /// Whether query, key and value have a bias.
    pub qkv_bias: bool,
    /// Added to the variance by every LayerNorm.
    pub layer_norm_eps: f64,
    /// Where the position embedding comes from.
    pub pos_embed: PosEmbed,
    /// Whether there is a distillation token with a head of its own, as in distilled DeiT; logits
    /// are the mean of both heads. Such a model makes no decisions.
    pub distilled: bool,
    /// Whether the distillation token of a distilled model has a head. Without, as in transformers'
    /// `DeiTForImageClassification`, logits are those of the class token.
    pub head_dist: bool,
    /// The decisions; none for a dense model.
    pub decisions: Option<DecisionConfig>,
    /// What an elastic model spends, where measured.
    pub budget_curve: Option<BudgetCurve>,
    /// How pixels become numbers, where known.
    pub normalization: Option<Normalization>,
    /// How a picture of any size becomes one of `img_size`, where known.
    pub preprocessing: Option<Preprocessing>,
    /// Names of the classes, where known.
    pub class_names: Vec<String>,
    /// What it was trained on, where recorded.
    pub trained_on: Option<TrainedOn>,
}

impl ModelConfig {
    /// The same model with decisions.
    #[must_use]
    pub fn with_decisions(mut self, decisions: DecisionConfig) -> Self {
        self.decisions = Some(decisions);
        self
    }

    /// Checks that the sizes fit each other.
    pub fn validate(&self) -> Result<()> {
        let fail = |message: String| Err(Error::Config(message));
        let (height, width) = self.img_size;
        for (name, size, most) in [
            ("img_size", height.min(width), 1 << 16),
            ("img_size", height.max(width), 1 << 16),
            ("in_chans", self.in_chans, 1 << 12),
            ("num_classes", self.num_classes, 1 << 20),
            ("embed_dim", self.embed_dim, 1 << 14),
            ("depth", self.depth, 1 << 10),
            ("num_heads", self.num_heads, 1 << 14),
        ] {
            if size == 0 || size > most {
                return fail(format!(
                    "{name}: expected between 1 and {most}, found {size}"
                ));
            }
        }
        self.stem.validate(self.img_size)?;
        if !self.embed_dim.is_multiple_of(self.num_heads) {
            return fail(format!(
                "num_heads {} does not divide embed_dim {}: choose a divisor",
                self.num_heads, self.embed_dim
            ));
        }
        if !(self.mlp_ratio > 0.0 && self.mlp_ratio <= 64.0) || self.hidden_dim() == 0 {
            return fail(format!(
                "mlp_ratio: expected a number in (0, 64] that gives a hidden width, found {}",
                self.mlp_ratio
            ));
        }
        if !(self.layer_norm_eps > 0.0 && self.layer_norm_eps < 1.0) {
            return fail(format!(
                "layer_norm_eps: expected a number in (0, 1), found {}",
                self.layer_norm_eps
            ));
        }
        if self.num_tokens() > 1 << 20 {
            return fail(format!(
                "patch_size {} makes {} tokens of an image: expected at most 1048576",
                self.stem.patch_size(),
                self.num_tokens()
            ));
        }
        self.validate_data()?;
        if self.distilled && self.decisions.is_some() {
            return fail(
                "distilled: a model with a distillation token makes no decisions; set \
                 drop_distillation when it is imported"
                    .into(),
            );
        }
        self.validate_decisions()?;
        let curve = self.budget_curve.as_ref();
        curve.map_or(Ok(()), BudgetCurve::validate)
    }

    fn validate_data(&self) -> Result<()> {
        if self.class_names.len() > self.num_classes {
            return Err(Error::Config(format!(
                "class_names: expected at most {}, found {}",
                self.num_classes,
                self.class_names.len()
            )));
        }
        if let Some(preprocessing) = &self.preprocessing {
            preprocessing
                .validate()
                .map_err(|error| Error::Config(format!("preprocessing.{error}")))?;
        }
        let Some(Normalization { mean, std }) = &self.normalization else {
            return Ok(());
        };
        let usable = mean.iter().all(|x| x.is_finite()) && std.iter().all(|&x| x > 0.0);
        if mean.len() != self.in_chans || std.len() != self.in_chans || !usable {
            return Err(Error::Config(format!(
                "normalization: expected {0} finite means and {0} positive standard deviations, found \
                 {mean:?} and {std:?}",
                self.in_chans
            )));
        }
        Ok(())
    }

    fn validate_decisions(&self) -> Result<()> {
        let Some(decisions) = &self.decisions else {
            return Ok(());
        };
        decisions
            .validate(self.depth)
            .map_err(|error| Error::Config(error.to_string()))?;
        let head_v2 = decisions.ada_head == Some(adavit_decision::HeadDeactivation::HeadV2);
        if head_v2 && !self.hidden_dim().is_multiple_of(self.num_heads) {
            return Err(Error::Config(format!(
                "num_heads {} does not divide the MLP's width {}, as head_v2 needs",
                self.num_heads,
                self.hidden_dim()
            )));
        }
        Ok(())
    }

    /// Checks that images are of the model's size: `(B, in_chans, height, width)`.
    pub(crate) fn check_images(&self, images: &Tensor) -> Result<()> {
        let (height, width) = self.img_size;
        if images.rank() == 4 && images.dims()[1..] == [self.in_chans, height, width] {
            return Ok(());
        }
        Err(Error::Input(format!(
            "images: expected shape (B, {}, {height}, {width}), found {:?}",
            self.in_chans,
            images.dims()
        )))
    }

    /// How images become inputs: as the configuration says, or by their own mean and deviation.
    ///
    /// # Errors
    /// If the images cannot be read.
    pub fn normalization_for(&self, images: &dyn Labelled) -> Result<Normalization> {
        match &self.normalization {
            Some(own) => Ok(own.clone()),
            None => Ok(images.normalization()?),
        }
    }

    /// What a picture becomes for the model, by its preprocessing or the default one.
    pub fn input_config(&self) -> InputConfig {
        InputConfig {
            in_chans: self.in_chans,
            img_size: self.img_size,
            preprocessing: self.preprocessing.clone().unwrap_or_default(),
        }
    }

    /// R, the width of fc1's output.
    pub fn hidden_dim(&self) -> usize {
        (self.embed_dim as f64 * self.mlp_ratio) as usize
    }

    /// Patches in each direction, rows then columns.
    pub fn grid(&self) -> (usize, usize) {
        self.stem.grid(self.img_size)
    }

    /// The class token and, in a distilled model, the distillation token.
    pub fn num_prefix_tokens(&self) -> usize {
        1 + usize::from(self.distilled)
    }

    /// Whether there is a head on a distillation token.
    pub(crate) fn has_head_dist(&self) -> bool {
        self.distilled && self.head_dist
    }

    /// N, class token included.
    pub fn num_tokens(&self) -> usize {
        let (rows, columns) = self.grid();
        rows * columns + self.num_prefix_tokens()
    }

    /// The sizes that compute depends on.
    pub fn geometry(&self) -> Geometry {
        let heads = 1 + usize::from(self.has_head_dist());
        Geometry {
            num_tokens: self.num_tokens(),
            embed_dim: self.embed_dim,
            depth: self.depth,
            num_heads: self.num_heads,
            hidden_dim: self.hidden_dim(),
            embed_macs: self.stem.macs(self.img_size, self.in_chans, self.embed_dim),
            head_macs: (heads * self.embed_dim * self.num_classes) as u64,
        }
    }
}

/// The form of `config.json`, where the stem is three keys.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredConfig {
    preset: String,
    img_size: (usize, usize),
    patch_size: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tokens_to_token: Option<T2tConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    conv_stem: Option<ConvStemConfig>,
    in_chans: usize,
    num_classes: usize,
    embed_dim: usize,
    depth: usize,
    num_heads: usize,
    mlp_ratio: f64,
    qkv_bias: bool,
    layer_norm_eps: f64,
    #[serde(default)]
    pos_embed: PosEmbed,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    distilled: bool,
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    head_dist: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    decisions: Option<DecisionConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    budget_curve: Option<BudgetCurve>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    normalization: Option<Normalization>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    preprocessing: Option<Preprocessing>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    class_names: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trained_on: Option<TrainedOn>,
}

fn yes() -> bool {
    true
}

/// Whether a text is a `config.json` of adavit, also one that describes no model.
pub(crate) fn is_stored_config(text: &str) -> bool {
    serde_json::from_str::<StoredConfig>(text).is_ok()
}

impl TryFrom<StoredConfig> for ModelConfig {
    type Error = Error;

    fn try_from(stored: StoredConfig) -> Result<Self> {
        let patches = Stem::Patches {
            patch_size: stored.patch_size,
        };
        let stem = match (stored.tokens_to_token, stored.conv_stem) {
            (None, None) => patches,
            (None, Some(config)) => {
                Stem::Convolutions(config).with_patch_size(stored.patch_size)?
            }
            (Some(config), None) => Stem::TokensToToken(config),
            (Some(config), Some(convolutions)) => {
                Stem::TokensToToken(config).with_convolutions(convolutions)?
            }
        };
        Ok(Self {
            preset: stored.preset,
            img_size: stored.img_size,
            stem,
            in_chans: stored.in_chans,
            num_classes: stored.num_classes,
            embed_dim: stored.embed_dim,
            depth: stored.depth,
            num_heads: stored.num_heads,
            mlp_ratio: stored.mlp_ratio,
            qkv_bias: stored.qkv_bias,
            layer_norm_eps: stored.layer_norm_eps,
            pos_embed: stored.pos_embed,
            distilled: stored.distilled,
            head_dist: stored.head_dist,
            decisions: stored.decisions,
            budget_curve: stored.budget_curve,
            normalization: stored.normalization,
            preprocessing: stored.preprocessing,
            class_names: stored.class_names,
            trained_on: stored.trained_on,
        })
    }
}

impl From<ModelConfig> for StoredConfig {
    fn from(config: ModelConfig) -> Self {
        let patch_size = config.stem.patch_size();
        let (tokens_to_token, conv_stem) = match config.stem {
            Stem::Patches { .. } => (None, None),
            Stem::Convolutions(config) => (None, Some(config)),
            Stem::TokensToToken(config) => (Some(config), None),
        };
        Self {
            preset: config.preset,
            img_size: config.img_size,
            patch_size,
            tokens_to_token,
            conv_stem,
            in_chans: config.in_chans,
            num_classes: config.num_classes,
            embed_dim: config.embed_dim,
            depth: config.depth,
            num_heads: config.num_heads,
            mlp_ratio: config.mlp_ratio,
            qkv_bias: config.qkv_bias,
            layer_norm_eps: config.layer_norm_eps,
            pos_embed: config.pos_embed,
            distilled: config.distilled,
            head_dist: config.head_dist,
            decisions: config.decisions,
            budget_curve: config.budget_curve,
            normalization: config.normalization,
            preprocessing: config.preprocessing,
            class_names: config.class_names,
            trained_on: config.trained_on,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_do_not_fit_are_named() {
        let nano = ModelConfig::preset("nano_patch4_28").unwrap();
        let patch = ModelConfig {
            stem: Stem::Patches { patch_size: 5 },
            ..nano.clone()
        };
        assert!(
            patch
                .validate()
                .unwrap_err()
                .to_string()
                .contains("patch_size 5")
        );
        let heads = ModelConfig {
            num_heads: 5,
            ..nano
        };
        assert!(
            heads
                .validate()
                .unwrap_err()
                .to_string()
                .contains("num_heads 5")
        );
    }
}
