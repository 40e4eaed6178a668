//! The stem: what makes tokens of pixels. An enum says which, a module each computes it.
//!
//! ```text
//! (B, in_chans, height, width) --stem--> (B, N - 1, C)
//! ```

pub(crate) mod conv_stem;
pub(crate) mod embed;
pub(crate) mod tokens_to_token;

use self::conv_stem::ConvStemConfig;
use self::tokens_to_token::T2tConfig;
use crate::error::{Error, Result};

/// What makes tokens of pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stem {
    /// The patch embedding: one linear map of each patch.
    Patches {
        /// Side of a patch, in pixels.
        patch_size: usize,
    },
    /// Convolutions in place of the patch embedding; their strides give the patch size.
    Convolutions(ConvStemConfig),
    /// The module of T2T-ViT.
    TokensToToken(T2tConfig),
}

impl Stem {
    /// Pixels from one token to the next.
    pub fn patch_size(&self) -> usize {
        match self {
            Self::Patches { patch_size } => *patch_size,
            Self::Convolutions(config) => config.patch_size(),
            Self::TokensToToken(_) => tokens_to_token::PATCH_SIZE,
        }
    }

    /// The same stem with patches of another size.
    ///
    /// # Errors
    /// If the strides of convolutions, or the windows of T2T-ViT, make another size.
    pub fn with_patch_size(self, patch_size: usize) -> Result<Self> {
        match self {
            Self::Patches { .. } => Ok(Self::Patches { patch_size }),
            Self::Convolutions(config) if config.patch_size() != patch_size => {
                Err(Error::Config(format!(
                    "conv_stem.strides: expected patch_size {patch_size} as their product, found \
                     {:?}; change one of the two",
                    config.strides
                )))
            }
            Self::TokensToToken(_) if patch_size != tokens_to_token::PATCH_SIZE => {
                Err(Error::Config(format!(
                    "patch_size: expected the {} pixels of tokens_to_token, found {patch_size}; \
                     leave it out",
                    tokens_to_token::PATCH_SIZE
                )))
            }
            same => Ok(same),
        }
    }

    /// Convolutions in place of this stem's patch embedding.
    ///
    /// # Errors
    /// If the stem has no patch embedding.
    pub fn with_convolutions(self, config: ConvStemConfig) -> Result<Self> {
        match self {
            Self::Patches { .. } | Self::Convolutions(_) => Ok(Self::Convolutions(config)),
            Self::TokensToToken(_) => Err(Error::Config(
                "conv_stem: a model with tokens_to_token has no patch embedding to replace; choose \
                 another preset"
                    .into(),
            )),
        }
    }

    /// Whether the tokens are those of T2T-ViT.
    pub(crate) fn is_tokens_to_token(&self) -> bool {
        matches!(self, Self::TokensToToken(_))
    }

    /// Checks that images of `img_size` (height, width) make tokens.
    pub(crate) fn validate(&self, (height, width): (usize, usize)) -> Result<()> {
        match self {
            Self::Patches { .. } => {}
            Self::Convolutions(config) => config.validate()?,
            Self::TokensToToken(config) => return config.validate((height, width)),
        }
        let patch_size = self.patch_size();
        if !(1..=1 << 16).contains(&patch_size) {
            return Err(Error::Config(format!(
                "patch_size: expected between 1 and 65536, found {patch_size}"
            )));
        }
        if !height.is_multiple_of(patch_size) || !width.is_multiple_of(patch_size) {
            return Err(Error::Config(format!(
                "img_size {height}x{width} is not divisible by patch_size {patch_size}: choose a \
                 patch size that divides both sides"
            )));
        }
        Ok(())
    }

    /// Patches of an image in each direction, rows then columns.
    pub(crate) fn grid(&self, (height, width): (usize, usize)) -> (usize, usize) {
        if let Self::TokensToToken(_) = self {
            return tokens_to_token::grid((height, width));
        }
        let patch_size = self.patch_size();
        (height / patch_size, width / patch_size)
    }

    /// Multiply-adds of an image.
    pub(crate) fn macs(&self, img_size: (usize, usize), in_chans: usize, embed_dim: usize) -> u64 {
        match self {
            Self::Patches { patch_size } => {
                let (rows, columns) = self.grid(img_size);
                (rows * columns * in_chans * patch_size.pow(2) * embed_dim) as u64
            }
            Self::Convolutions(config) => config.macs(img_size, in_chans, embed_dim),
            Self::TokensToToken(config) => config.macs(img_size, in_chans, embed_dim),
        }
    }
}
