//! Models by name: published ones, and small ones for small images.

use adavit_data::{Normalization, Preprocessing};

use crate::tokens_to_token::TokensType::{self, Performer, Transformer};
use crate::{ConvStemConfig, Error, ModelConfig, PosEmbed, Result, T2tConfig};

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
        let t2t = |module, sizes| Self::t2t(name, module, sizes);
        Ok(match name {
            "deit_tiny_patch16_224" => deit(192, 3),
            "deit_small_patch16_224" => deit(384, 6),
            "deit_base_patch16_224" => deit(768, 12),
            "t2t_vit_7" => t2t(Performer, (256, 7, 4, 2.0)),
            "t2t_vit_10" => t2t(Performer, (256, 10, 4, 2.0)),
            "t2t_vit_12" => t2t(Performer, (256, 12, 4, 2.0)),
            "t2t_vit_14" => t2t(Performer, (384, 14, 6, 3.0)),
            "t2t_vit_19" => t2t(Performer, (448, 19, 7, 3.0)),
            "t2t_vit_24" => t2t(Performer, (512, 24, 8, 3.0)),
            "t2t_vit_t_14" => t2t(Transformer, (384, 14, 6, 3.0)),
            "t2t_vit_t_19" => t2t(Transformer, (448, 19, 7, 3.0)),
            "t2t_vit_t_24" => t2t(Transformer, (512, 24, 8, 3.0)),
            "nano_patch4_28" => nano(4, 64, 4),
            "nano_patch7_28" => nano(7, 64, 4),
            "nano_wide_patch7_28" => nano(7, 128, 4),
            "nano_conv_patch4_28" => Self {
                conv_stem: Some(ConvStemConfig {
                    channels: vec![16, 32, 64],
                    strides: vec![1, 2, 2],
                }),
                depth: 4,
                ..nano(4, 64, 4)
            },
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
        let of_pictures = in_chans == 3;
        Self {
            preset: name.into(),
            img_size: (img_size, img_size),
            patch_size,
            tokens_to_token: None,
            conv_stem: None,
            in_chans,
            num_classes,
            embed_dim,
            depth,
            num_heads,
            mlp_ratio: 4.0,
            qkv_bias: true,
            layer_norm_eps: 1e-6,
            pos_embed: PosEmbed::Learned,
            distilled: false,
            decisions: None,
            normalization: of_pictures.then(Normalization::imagenet),
            preprocessing: of_pictures.then(Preprocessing::default),
            class_names: Vec::new(),
            trained_on: None,
        }
    }

    /// T2T-ViT as published (Yuan et al. 2021): `(C, L, H, mlp_ratio)`.
    fn t2t(
        name: &str,
        tokens_type: TokensType,
        (embed_dim, depth, num_heads, mlp_ratio): (usize, usize, usize, f64),
    ) -> Self {
        Self {
            tokens_to_token: Some(T2tConfig {
                tokens_type,
                token_dim: 64,
            }),
            mlp_ratio,
            qkv_bias: false,
            layer_norm_eps: 1e-5,
            pos_embed: PosEmbed::Sinusoid,
            preprocessing: Some(Preprocessing {
                crop_pct: 0.9,
                ..Preprocessing::default()
            }),
            ..Self::plain(name, (224, 16, 3, 1000), embed_dim, num_heads, depth)
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
