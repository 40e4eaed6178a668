//! Models by name: published ones, and small ones for small images.

use adavit_data::{Normalization, Preprocessing};

use crate::config::{ModelConfig, PosEmbed};
use crate::error::{Error, Result};
use crate::stem::Stem;
use crate::stem::conv_stem::ConvStemConfig;
use crate::stem::tokens_to_token::T2tConfig;
use crate::stem::tokens_to_token::TokensType::{self, Performer, Transformer};

/// Every preset's name.
pub const PRESETS: [&str; 16] = [
    "deit_tiny_patch16_224",
    "deit_small_patch16_224",
    "deit_base_patch16_224",
    "t2t_vit_7",
    "t2t_vit_10",
    "t2t_vit_12",
    "t2t_vit_14",
    "t2t_vit_19",
    "t2t_vit_24",
    "t2t_vit_t_14",
    "t2t_vit_t_19",
    "t2t_vit_t_24",
    "nano_patch4_28",
    "nano_patch7_28",
    "nano_wide_patch7_28",
    "nano_conv_patch4_28",
];

impl ModelConfig {
    /// The dense model of a preset; see [`PRESETS`].
    ///
    /// # Errors
    /// If there is no such preset.
    pub fn preset(name: &str) -> Result<Self> {
        let small_pictures = |patch_size, embed_dim| Sizes {
            img_size: 28,
            stem: Stem::Patches { patch_size },
            in_chans: 1,
            num_classes: 10,
            embed_dim,
            depth: 6,
            num_heads: 4,
        };
        let nano = |patch_size, embed_dim| Self::dense(name, small_pictures(patch_size, embed_dim));
        let deit =
            |embed_dim, num_heads| Self::dense(name, Sizes::imagenet(embed_dim, 12, num_heads));
        let t2t = |tokens_type, embed_dim, depth| Self::t2t(name, tokens_type, embed_dim, depth);
        Ok(match name {
            "deit_tiny_patch16_224" => deit(192, 3),
            "deit_small_patch16_224" => deit(384, 6),
            "deit_base_patch16_224" => deit(768, 12),
            "t2t_vit_7" => t2t(Performer, 256, 7),
            "t2t_vit_10" => t2t(Performer, 256, 10),
            "t2t_vit_12" => t2t(Performer, 256, 12),
            "t2t_vit_14" => t2t(Performer, 384, 14),
            "t2t_vit_19" => t2t(Performer, 448, 19),
            "t2t_vit_24" => t2t(Performer, 512, 24),
            "t2t_vit_t_14" => t2t(Transformer, 384, 14),
            "t2t_vit_t_19" => t2t(Transformer, 448, 19),
            "t2t_vit_t_24" => t2t(Transformer, 512, 24),
            "nano_patch4_28" => nano(4, 64),
            "nano_patch7_28" => nano(7, 64),
            "nano_wide_patch7_28" => nano(7, 128),
            "nano_conv_patch4_28" => Self {
                stem: Stem::Convolutions(ConvStemConfig {
                    channels: vec![16, 32, 64],
                    strides: vec![1, 2, 2],
                }),
                depth: 4,
                ..nano(4, 64)
            },
            _ => {
                return Err(Error::Config(format!(
                    "preset: expected one of {}, found {name:?}",
                    PRESETS.join(", ")
                )));
            }
        })
    }

    fn dense(name: &str, sizes: Sizes) -> Self {
        let of_pictures = sizes.in_chans == 3;
        Self {
            preset: name.into(),
            img_size: (sizes.img_size, sizes.img_size),
            stem: sizes.stem,
            in_chans: sizes.in_chans,
            num_classes: sizes.num_classes,
            embed_dim: sizes.embed_dim,
            depth: sizes.depth,
            num_heads: sizes.num_heads,
            mlp_ratio: 4.0,
            qkv_bias: true,
            layer_norm_eps: 1e-6,
            pos_embed: PosEmbed::Learned,
            distilled: false,
            head_dist: true,
            decisions: None,
            normalization: of_pictures.then(Normalization::imagenet),
            preprocessing: of_pictures.then(Preprocessing::default),
            class_names: Vec::new(),
            trained_on: None,
            budget_curve: None,
        }
    }

    /// T2T-ViT as published (Yuan et al. 2021): heads of 64 channels, and in the small ones an MLP
    /// twice as wide as the tokens, in the others three times.
    fn t2t(name: &str, tokens_type: TokensType, embed_dim: usize, depth: usize) -> Self {
        Self {
            stem: Stem::TokensToToken(T2tConfig {
                tokens_type,
                token_dim: 64,
            }),
            mlp_ratio: if embed_dim == 256 { 2.0 } else { 3.0 },
            qkv_bias: false,
            layer_norm_eps: 1e-5,
            pos_embed: PosEmbed::Sinusoid,
            preprocessing: Some(Preprocessing {
                crop_pct: 0.9,
                ..Preprocessing::default()
            }),
            ..Self::dense(name, Sizes::imagenet(embed_dim, depth, embed_dim / 64))
        }
    }
}

/// The sizes in which presets differ.
struct Sizes {
    img_size: usize,
    stem: Stem,
    in_chans: usize,
    num_classes: usize,
    embed_dim: usize,
    depth: usize,
    num_heads: usize,
}

impl Sizes {
    /// A model for pictures of ImageNet, in patches of 16 pixels.
    fn imagenet(embed_dim: usize, depth: usize, num_heads: usize) -> Self {
        Self {
            img_size: 224,
            stem: Stem::Patches { patch_size: 16 },
            in_chans: 3,
            num_classes: 1000,
            embed_dim,
            depth,
            num_heads,
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
}
