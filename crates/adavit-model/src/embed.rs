//! Patch embedding: patches to tokens, class token in front, positions added.

use adavit_kernels::patchify;
use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use crate::{ModelConfig, PosEmbed};

#[derive(Debug, Clone)]
#[expect(clippy::struct_field_names, reason = "the names of a checkpoint")]
pub(crate) struct Embed {
    patch_size: usize,
    weight: Tensor,
    bias: Tensor,
    cls_token: Tensor,
    pos_embed: Tensor,
}

impl Embed {
    pub(crate) fn new(config: &ModelConfig, vb: &VarBuilder) -> Result<Self> {
        let (c, p) = (config.embed_dim, config.patch_size);
        let proj = vb.pp("patch_embed").pp("proj");
        let pos_embed = vb.get((1, config.num_tokens(), c), "pos_embed")?;
        Ok(Self {
            patch_size: p,
            weight: proj.get((c, config.in_chans, p, p), "weight")?,
            bias: proj.get(c, "bias")?,
            cls_token: vb.get((1, 1, c), "cls_token")?,
            pos_embed: match config.pos_embed {
                PosEmbed::Learned => pos_embed,
                PosEmbed::Sinusoid => pos_embed.detach(),
            },
        })
    }

    /// `(B, in_chans, height, width)` to `(B, N, C)`.
    pub(crate) fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let patches = patchify(xs, self.patch_size)?;
        let weight = self.weight.flatten_from(1)?;
        let patches = adavit_kernels::linear(&patches, &weight, Some(&self.bias))?;
        let (b, _, c) = patches.dims3()?;
        let class = self.cls_token.broadcast_as((b, 1, c))?;
        Tensor::cat(&[&class, &patches], 1)?.broadcast_add(&self.pos_embed)
    }
}
