//! What a model is made of: everything that its checkpoint's `config.json` says.

use adavit_decision::{DecisionConfig, Geometry};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

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

/// How a picture becomes an input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// Mean of each channel, of values in [0, 1].
    pub mean: Vec<f64>,
    /// Standard deviation of each channel.
    pub std: Vec<f64>,
}

/// A ViT/DeiT and, if it decides, how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The preset that it comes from.
    pub preset: String,
    /// Height and width of the input, in pixels.
    pub img_size: (usize, usize),
    /// Side of a patch, in pixels.
    pub patch_size: usize,
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
    #[serde(default)]
    pub pos_embed: PosEmbed,
    /// The decisions; none for a plain model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decisions: Option<DecisionConfig>,
    /// How a picture becomes an input, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalization: Option<Normalization>,
    /// Names of the classes, where known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub class_names: Vec<String>,
}

/// Every preset's name.
pub const PRESETS: [&str; 6] = [
    "deit_tiny_patch16_224",
    "deit_small_patch16_224",
    "deit_base_patch16_224",
    "nano_patch4_28",
    "nano_patch7_28",
    "nano_wide_patch7_28",
];

impl ModelConfig {
    /// The plain model of a preset; see [`PRESETS`].
    ///
    /// # Errors
    /// If there is no such preset.
    pub fn preset(name: &str) -> Result<Self> {
        let deit =
            |embed_dim, num_heads| Self::plain(name, (224, 16, 3, 1000), embed_dim, num_heads, 12);
        let nano = |patch_size, embed_dim, num_heads| {
            Self::plain(name, (28, patch_size, 1, 10), embed_dim, num_heads, 6)
        };
        Ok(match name {
            "deit_tiny_patch16_224" => deit(192, 3),
            "deit_small_patch16_224" => deit(384, 6),
            "deit_base_patch16_224" => deit(768, 12),
            "nano_patch4_28" => nano(4, 64, 4),
            "nano_patch7_28" => nano(7, 64, 4),
            "nano_wide_patch7_28" => nano(7, 128, 4),
            _ => {
                return Err(Error::Config(format!(
                    "preset: expected one of {}, found {name:?}",
                    PRESETS.join(", ")
                )));
            }
        })
    }

    fn plain(
        name: &str,
        (img_size, patch_size, in_chans, num_classes): (usize, usize, usize, usize),
        embed_dim: usize,
        num_heads: usize,
        depth: usize,
    ) -> Self {
        Self {
            preset: name.into(),
            img_size: (img_size, img_size),
            patch_size,
            in_chans,
            num_classes,
            embed_dim,
            depth,
            num_heads,
            mlp_ratio: 4.0,
            qkv_bias: true,
            layer_norm_eps: 1e-6,
            pos_embed: PosEmbed::Learned,
            decisions: None,
            normalization: None,
            class_names: Vec::new(),
        }
    }

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
            ("patch_size", self.patch_size, 1 << 16),
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
        if !height.is_multiple_of(self.patch_size) || !width.is_multiple_of(self.patch_size) {
            return fail(format!(
                "img_size {height}x{width} is not divisible by patch_size {}: choose a patch size \
                 that divides both sides",
                self.patch_size
            ));
        }
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
                self.patch_size,
                self.num_tokens()
            ));
        }
        self.validate_data()?;
        self.validate_decisions()
    }

    fn validate_data(&self) -> Result<()> {
        if self.class_names.len() > self.num_classes {
            return Err(Error::Config(format!(
                "class_names: expected at most {}, found {}",
                self.num_classes,
                self.class_names.len()
            )));
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

    /// R, the width of fc1's output.
    pub fn hidden_dim(&self) -> usize {
        (self.embed_dim as f64 * self.mlp_ratio) as usize
    }

    /// Patches in each direction, rows then columns.
    pub fn grid(&self) -> (usize, usize) {
        let (height, width) = self.img_size;
        (height / self.patch_size, width / self.patch_size)
    }

    /// N, class token included.
    pub fn num_tokens(&self) -> usize {
        let (rows, columns) = self.grid();
        rows * columns + 1
    }

    /// MACs that the published tables add for everything outside the blocks.
    ///
    /// # Errors
    /// If no such figure was published for the preset.
    pub fn paper_base_macs(&self) -> Result<u64> {
        match self.preset.as_str() {
            "deit_small_patch16_224" => Ok(60_000_000),
            other => Err(Error::Config(format!(
                "preset {other}: the paper's accounting is known for deit_small_patch16_224 only; \
                 use --accounting exact"
            ))),
        }
    }

    /// The sizes that compute depends on.
    pub fn geometry(&self) -> Geometry {
        let patch_pixels = self.in_chans * self.patch_size * self.patch_size;
        Geometry {
            num_tokens: self.num_tokens(),
            embed_dim: self.embed_dim,
            depth: self.depth,
            num_heads: self.num_heads,
            hidden_dim: self.hidden_dim(),
            embed_macs: ((self.num_tokens() - 1) * patch_pixels * self.embed_dim) as u64,
            head_macs: (self.embed_dim * self.num_classes) as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_valid_and_unknown_ones_are_refused() {
        for name in PRESETS {
            let config = ModelConfig::preset(name).unwrap();
            config.validate().unwrap();
            assert_eq!(config.preset, name);
        }
        assert!(
            ModelConfig::preset("deit_huge")
                .unwrap_err()
                .is_input_error()
        );
    }

    #[test]
    fn sizes_that_do_not_fit_are_named() {
        let nano = ModelConfig::preset("nano_patch4_28").unwrap();
        let patch = ModelConfig {
            patch_size: 5,
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
