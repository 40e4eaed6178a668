//! From an image to tokens: patches, a convolutional stem or the windows of T2T-ViT; class token in
//! front, positions added.

use adavit_kernels::patchify;
use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use crate::config::{ModelConfig, PosEmbed};
use crate::dropout::Dropout;
use crate::stem::Stem;
use crate::stem::conv_stem::ConvStem;
use crate::stem::tokens_to_token::TokensToToken;

#[derive(Debug, Clone)]
#[expect(clippy::struct_field_names, reason = "the names of a checkpoint")]
pub(crate) struct Embed {
    stem: StemLayer,
    cls_token: Tensor,
    /// Of distilled DeiT.
    dist_token: Option<Tensor>,
    pos_embed: Tensor,
}

/// A stem with its tensors.
#[derive(Debug, Clone)]
enum StemLayer {
    Patches {
        patch_size: usize,
        weight: Tensor,
        bias: Tensor,
    },
    Convolutions(ConvStem),
    TokensToToken(Box<TokensToToken>),
}

impl StemLayer {
    fn new(config: &ModelConfig, vb: &VarBuilder) -> Result<Self> {
        let (c, chans) = (config.embed_dim, config.in_chans);
        let patch_embed = vb.pp("patch_embed");
        Ok(match &config.stem {
            &Stem::Patches { patch_size } => {
                let shape = (c, chans, patch_size, patch_size);
                let proj = patch_embed.pp("proj");
                Self::Patches {
                    patch_size,
                    weight: proj.get(shape, "weight")?,
                    bias: proj.get(c, "bias")?,
                }
            }
            Stem::Convolutions(stem) => {
                Self::Convolutions(ConvStem::new(stem, chans, c, &patch_embed)?)
            }
            Stem::TokensToToken(t2t) => {
                let module = TokensToToken::new(t2t, chans, c, &vb.pp("tokens_to_token"))?;
                Self::TokensToToken(Box::new(module))
            }
        })
    }

    fn forward(&self, xs: &Tensor, dropout: Option<&Dropout>) -> Result<Tensor> {
        match self {
            Self::Patches {
                patch_size,
                weight,
                bias,
            } => {
                let patches = patchify(xs, *patch_size)?;
                adavit_kernels::linear(&patches, &weight.flatten_from(1)?, Some(bias))
            }
            Self::Convolutions(stem) => stem.forward(xs),
            Self::TokensToToken(module) => module.forward(xs, dropout),
        }
    }
}

impl Embed {
    pub(crate) fn new(config: &ModelConfig, vb: &VarBuilder) -> Result<Self> {
        let c = config.embed_dim;
        let pos_embed = vb.get((1, config.num_tokens(), c), "pos_embed")?;
        Ok(Self {
            stem: StemLayer::new(config, vb)?,
            cls_token: vb.get((1, 1, c), "cls_token")?,
            dist_token: config
                .distilled
                .then(|| vb.get((1, 1, c), "dist_token"))
                .transpose()?,
            pos_embed: match config.pos_embed {
                PosEmbed::Learned => pos_embed,
                PosEmbed::Sinusoid => pos_embed.detach(),
            },
        })
    }

    /// `(B, in_chans, height, width)` to `(B, N, C)`, without what `dropout` leaves out.
    pub(crate) fn forward(&self, xs: &Tensor, dropout: Option<&Dropout>) -> Result<Tensor> {
        let tokens = self.stem.forward(xs, dropout)?;
        let (b, _, c) = tokens.dims3()?;
        let mut parts = vec![self.cls_token.broadcast_as((b, 1, c))?];
        if let Some(token) = &self.dist_token {
            parts.push(token.broadcast_as((b, 1, c))?);
        }
        parts.push(tokens);
        Tensor::cat(&parts, 1)?.broadcast_add(&self.pos_embed)
    }
}
