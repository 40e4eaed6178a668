//! The stem of a prepared model: what makes tokens of pixels.

use adavit_kernels::{PreparedLinear, ProductParts, Workspace, patchify};
use candle_core::{D, Tensor};
use candle_nn::VarBuilder;
use rayon::prelude::*;

use super::buffers::TokenRows;
use super::conv_stem::{ConvStemRoom, PreparedConvStem};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::stem::Stem;
use crate::stem::tokens_to_token::TokensToToken;

#[derive(Debug)]
pub(super) struct PreparedStem {
    num_tokens: usize,
    num_prefix_tokens: usize,
    embed_dim: usize,
    map: StemMap,
}

#[derive(Debug)]
enum StemMap {
    Patches {
        patch_size: usize,
        proj: PreparedLinear,
    },
    Convolutions(PreparedConvStem),
    TokensToToken {
        module: Box<TokensToToken>,
        /// Multiply-adds of an image.
        macs: u64,
    },
}

/// Buffers of the stem, kept from one forward to the next.
#[derive(Debug, Default)]
pub(super) struct StemRoom {
    patches: Vec<f32>,
    parts: ProductParts,
    convolutions: ConvStemRoom,
}

impl PreparedStem {
    pub(super) fn new(config: &ModelConfig, vb: &VarBuilder) -> candle_core::Result<Self> {
        Ok(Self {
            num_tokens: config.num_tokens(),
            num_prefix_tokens: config.num_prefix_tokens(),
            embed_dim: config.embed_dim,
            map: StemMap::new(config, vb)?,
        })
    }

    /// Adds what comes of the images' pixels to their tokens.
    pub(super) fn add(
        &self,
        images: &Tensor,
        tokens: &mut TokenRows,
        room: &mut StemRoom,
        work: &mut Workspace,
    ) -> Result<()> {
        match &self.map {
            StemMap::Patches { patch_size, proj } => {
                let patches = patchify(images, *patch_size)?;
                self.add_patches(&patches, proj, tokens, room, work)
            }
            StemMap::Convolutions(module) => {
                Ok(module.add(images, tokens, &mut room.convolutions, work)?)
            }
            StemMap::TokensToToken { module, macs } => {
                let (prefix, c) = (self.num_prefix_tokens, self.embed_dim);
                let rows = tokens.xs.par_chunks_exact_mut(self.num_tokens * c);
                // Image by image, so that none depends on its batch.
                rows.enumerate().try_for_each(|(image, xs)| -> Result<()> {
                    let tokens = module.forward(&images.narrow(0, image, 1)?, None)?;
                    let tokens = tokens.flatten_all()?.to_vec1::<f32>()?;
                    for (x, token) in xs[prefix * c..].iter_mut().zip(tokens) {
                        *x += token;
                    }
                    Ok(())
                })?;
                work.count(macs * images.dim(0)? as u64);
                Ok(())
            }
        }
    }

    /// `patches` is `(B, N - 1, in_chans P P)`.
    fn add_patches(
        &self,
        patches: &Tensor,
        proj: &PreparedLinear,
        tokens: &mut TokenRows,
        room: &mut StemRoom,
        work: &mut Workspace,
    ) -> Result<()> {
        let StemRoom {
            patches: rows,
            parts,
            ..
        } = room;
        let (n, prefix) = (self.num_tokens, self.num_prefix_tokens);
        let (b, depth) = (patches.dim(0)?, patches.dim(D::Minus1)?);
        let patches = patches.flatten_all()?.to_vec1::<f32>()?;
        rows.resize(b * n * depth, 0.0);
        let images = patches.chunks_exact((n - prefix) * depth);
        // Rows for the class token's like in front, so that patches and tokens have the same rows.
        for (room, image) in rows.chunks_exact_mut(n * depth).zip(images) {
            room[prefix * depth..].copy_from_slice(image);
        }
        parts.clear();
        let patch_rows = tokens.patch_rows.iter().copied();
        parts.push(patch_rows, &[0..depth], &[0..self.embed_dim]);
        proj.add(rows, tokens.xs, parts, work);
        Ok(())
    }
}

impl StemMap {
    fn new(config: &ModelConfig, vb: &VarBuilder) -> candle_core::Result<Self> {
        let (c, chans) = (config.embed_dim, config.in_chans);
        Ok(match &config.stem {
            &Stem::Patches { patch_size } => {
                let vb = vb.pp("patch_embed").pp("proj");
                let weight = vb.get((c, chans, patch_size, patch_size), "weight")?;
                let (weight, bias) = (weight.flatten_from(1)?, vb.get(c, "bias")?);
                Self::Patches {
                    patch_size,
                    proj: PreparedLinear::new(&weight, Some(&bias), c)?,
                }
            }
            Stem::Convolutions(stem) => {
                Self::Convolutions(PreparedConvStem::new(config, stem, vb)?)
            }
            Stem::TokensToToken(t2t) => {
                let module = TokensToToken::new(t2t, chans, c, &vb.pp("tokens_to_token"))?;
                Self::TokensToToken {
                    module: Box::new(module),
                    macs: config.geometry().embed_macs,
                }
            }
        })
    }
}
