//! The prepared model of the CPU: weights packed once, products in parts.

use std::ops::Range;

use adavit_decision::{HardPolicy, Thresholds};
use adavit_kernels::{
    PreparedLayerNorm, PreparedLinear, ProductParts, Rows, patchify, side_by_side, threads,
};
use candle_core::{D, Tensor};
use candle_nn::VarBuilder;
use rayon::prelude::*;

use super::block::{Buffers, PreparedBlock};
use super::conv_stem::{PreparedConvStem, StemRoom};
use super::{Decide, Strategy};
use crate::tokens_to_token::TokensToToken;
use crate::{ModelConfig, Result};

/// Tokens that a thread works on at a time, whole images: their hidden activations stay in cache.
const TOKENS: usize = 800;

#[derive(Debug)]
pub(super) struct PackedTransformer {
    config: ModelConfig,
    stem: Stem,
    /// `(N, C)`: position embedding, with class and distillation token added to their rows.
    positions: Vec<f32>,
    blocks: Vec<PreparedBlock>,
    norm: PreparedLayerNorm,
    head: PreparedLinear,
    head_dist: Option<PreparedLinear>,
}

/// What makes tokens of pixels.
#[derive(Debug)]
enum Stem {
    Patches(PreparedLinear),
    Convolutions(PreparedConvStem),
    TokensToToken {
        module: Box<TokensToToken>,
        /// Multiply-adds of an image.
        macs: u64,
    },
}

impl Stem {
    fn new(config: &ModelConfig, vb: &VarBuilder) -> candle_core::Result<Self> {
        let (c, p, chans) = (config.embed_dim, config.patch_size, config.in_chans);
        if let Some(t2t) = &config.tokens_to_token {
            let module = TokensToToken::new(t2t, chans, c, &vb.pp("tokens_to_token"))?;
            return Ok(Self::TokensToToken {
                module: Box::new(module),
                macs: config.geometry().embed_macs,
            });
        }
        if let Some(stem) = &config.conv_stem {
            let stem = PreparedConvStem::new(config, stem, vb)?;
            return Ok(Self::Convolutions(stem));
        }
        let patch = vb.pp("patch_embed").pp("proj");
        let weight = patch.get((c, chans, p, p), "weight")?.flatten_from(1)?;
        let bias = patch.get(c, "bias")?;
        Ok(Self::Patches(PreparedLinear::new(&weight, Some(&bias), c)?))
    }
}

/// Buffers of a forward, kept from one to the next.
#[derive(Debug, Default)]
pub(super) struct Rooms(Vec<Share>);

/// The images of a batch that one thread runs, and its room for them.
#[derive(Debug, Default)]
struct Share {
    policy: HardPolicy,
    logits: Vec<f32>,
    room: Room,
}

impl Rooms {
    /// Returns the multiply-adds done since the last call.
    pub(super) fn take_macs(&mut self) -> u64 {
        let shares = self.0.iter_mut();
        shares
            .map(|share| share.room.buffers.work.take_macs())
            .sum()
    }
}

/// Buffers of some images.
#[derive(Debug, Default)]
struct Room {
    buffers: Buffers,
    patches: Vec<f32>,
    stem: StemRoom,
    /// The tokens with a head.
    class: Vec<f32>,
    /// The logits of the distillation token.
    dist_logits: Vec<f32>,
    parts: ProductParts,
}

impl PackedTransformer {
    pub(super) fn new(config: &ModelConfig, vb: &VarBuilder) -> Result<Self> {
        let (c, n) = (config.embed_dim, config.num_tokens());
        let positions = vb.get((1, n, c), "pos_embed")?.flatten_all()?;
        let mut positions = positions.to_vec1::<f32>()?;
        let prefix = ["cls_token", "dist_token"].into_iter();
        for (row, name) in prefix.take(config.num_prefix_tokens()).enumerate() {
            let token = vb.get((1, 1, c), name)?.flatten_all()?;
            let token = token.to_vec1::<f32>()?;
            for (x, token) in positions[row * c..].iter_mut().zip(token) {
                *x += token;
            }
        }
        let blocks = (0..config.depth)
            .map(|block| PreparedBlock::new(config, block, &vb.pp("blocks").pp(block)))
            .collect::<candle_core::Result<_>>()?;
        let head = |name: &str| linear(c, config.num_classes, true, &vb.pp(name));
        Ok(Self {
            stem: Stem::new(config, vb)?,
            positions,
            blocks,
            norm: norm(config, &vb.pp("norm"))?,
            head: head("head")?,
            head_dist: config.distilled.then(|| head("head_dist")).transpose()?,
            config: config.clone(),
        })
    }

    pub(super) fn set_thresholds(&mut self, thresholds: Thresholds) {
        for block in &mut self.blocks {
            block.set_thresholds(thresholds);
        }
    }

    pub(super) fn set_strategy(&mut self, strategy: Strategy) {
        for block in &mut self.blocks {
            block.set_strategy(strategy);
        }
    }

    /// Returns the logits `(B, K)`; `policy` keeps everything, and becomes what was computed.
    ///
    /// Every thread takes its share of the images from pixels to logits: a batch of a small model is
    /// some hundred operations, and threads would wait for each other after each.
    pub(super) fn run(
        &self,
        xs: &Tensor,
        decide: Decide,
        policy: &mut HardPolicy,
        rooms: &mut Rooms,
    ) -> Result<Tensor> {
        let (b, k) = (xs.dim(0)?, self.config.num_classes);
        let shares = b.min(threads());
        let first = |share: usize| share * b / shares;
        if rooms.0.len() < shares {
            rooms.0.resize_with(shares, Share::default);
        }
        let rooms = &mut rooms.0[..shares];
        let geometry = self.config.geometry();
        side_by_side(rooms, |index, share| -> Result<()> {
            let images = first(index)..first(index + 1);
            share.policy.keep_all(&geometry, images.len());
            self.run_share(xs, images, decide, share)
        })?;
        let mut logits = Vec::with_capacity(b * k);
        for (index, share) in rooms.iter().enumerate() {
            logits.extend_from_slice(&share.logits);
            policy.copy_images(&share.policy, first(index))?;
        }
        Ok(Tensor::from_vec(logits, (b, k), xs.device())?)
    }

    /// Runs some images of the batch.
    fn run_share(
        &self,
        xs: &Tensor,
        images: Range<usize>,
        decide: Decide,
        share: &mut Share,
    ) -> Result<()> {
        let k = self.config.num_classes;
        let given;
        let decide = match decide {
            Decide::Given(policy) => {
                given = policy.images(images.clone());
                Decide::Given(&given)
            }
            other => other,
        };
        let Share {
            policy,
            logits,
            room,
        } = share;
        logits.resize(images.len() * k, 0.0);
        let group = (TOKENS / self.config.num_tokens()).max(1);
        for (index, logits) in logits.chunks_mut(group * k).enumerate() {
            let first = index * group;
            let group = xs.narrow(0, images.start + first, logits.len() / k)?;
            self.run_group((&group, first), decide, logits, (policy, room))?;
        }
        Ok(())
    }

    /// Runs some images, of which the first is image `first` of the share.
    fn run_group(
        &self,
        (xs, first): (&Tensor, usize),
        decide: Decide,
        logits: &mut [f32],
        (policy, room): (&mut HardPolicy, &mut Room),
    ) -> Result<()> {
        let b = xs.dim(0)?;
        room.buffers.reserve(&self.config, b);
        self.embed(xs, room)?;
        for (index, block) in self.blocks.iter().enumerate() {
            let at = (index, first);
            let decided = !matches!(decide, Decide::Nothing);
            if decided {
                block.decide(policy, at, &mut room.buffers);
            }
            if let Decide::Given(given) = decide {
                policy.copy_block(given, index, first..first + b)?;
            }
            block.forward(policy, at, decided, &mut room.buffers);
        }
        self.classify(room, 0, &self.head, logits);
        if let Some(head_dist) = &self.head_dist {
            let mut dist_logits = std::mem::take(&mut room.dist_logits);
            dist_logits.resize(logits.len(), 0.0);
            self.classify(room, 1, head_dist, &mut dist_logits);
            for (y, dist) in logits.iter_mut().zip(&dist_logits) {
                *y = (*y + dist) / 2.0;
            }
            room.dist_logits = dist_logits;
        }
        // A gate that nobody knows makes everything unknown.
        let rows = logits.chunks_exact_mut(self.config.num_classes);
        let unknown = rows
            .zip(&room.buffers.unknown)
            .filter(|(_, unknown)| **unknown);
        for (logits, _) in unknown {
            logits.fill(f32::NAN);
        }
        Ok(())
    }

    /// Writes the logits that `head` gives for token `token` of each image.
    fn classify(&self, room: &mut Room, token: usize, head: &PreparedLinear, logits: &mut [f32]) {
        let (n, c, k) = (
            self.config.num_tokens(),
            self.config.embed_dim,
            self.config.num_classes,
        );
        let Room {
            buffers,
            class,
            parts,
            ..
        } = room;
        class.clear();
        for xs in buffers.xs.chunks_exact(n * c) {
            class.extend_from_slice(&xs[token * c..(token + 1) * c]);
        }
        let b = logits.len() / k;
        self.norm.write(class, &mut buffers.normed, Rows::All(b));
        parts.clear();
        parts.push(0..b, &[0..c], &[0..k]);
        let normed = &buffers.normed[..b * c];
        head.write(normed, logits, parts, &mut buffers.work);
    }

    /// Fills the tokens: positions, then what comes of the pixels on top.
    fn embed(&self, xs: &Tensor, room: &mut Room) -> Result<()> {
        let (n, c) = (self.config.num_tokens(), self.config.embed_dim);
        for xs in room.buffers.xs.chunks_exact_mut(n * c) {
            xs.copy_from_slice(&self.positions);
        }
        match &self.stem {
            Stem::Patches(map) => self.embed_patches(xs, map, room),
            Stem::Convolutions(module) => {
                let Room { buffers, stem, .. } = room;
                let Buffers {
                    xs: ys,
                    patch_rows,
                    work,
                    ..
                } = buffers;
                Ok(module.add(xs, (ys, patch_rows), stem, work)?)
            }
            Stem::TokensToToken { module, macs } => {
                let prefix = self.config.num_prefix_tokens();
                let images = room.buffers.xs.par_chunks_exact_mut(n * c).enumerate();
                // Image by image, so that none depends on its batch.
                images.try_for_each(|(image, ys)| -> Result<()> {
                    let tokens = module.forward(&xs.narrow(0, image, 1)?)?;
                    let tokens = tokens.flatten_all()?.to_vec1::<f32>()?;
                    for (y, x) in ys[prefix * c..].iter_mut().zip(tokens) {
                        *y += x;
                    }
                    Ok(())
                })?;
                room.buffers.work.count(macs * xs.dim(0)? as u64);
                Ok(())
            }
        }
    }

    fn embed_patches(&self, xs: &Tensor, map: &PreparedLinear, room: &mut Room) -> Result<()> {
        let Room {
            buffers,
            patches: rows,
            parts,
            ..
        } = room;
        let patches = patchify(xs, self.config.patch_size)?;
        let depth = patches.dim(D::Minus1)?;
        let patches = patches.flatten_all()?.to_vec1::<f32>()?;
        let (n, c) = (self.config.num_tokens(), self.config.embed_dim);
        let prefix = self.config.num_prefix_tokens();
        rows.resize(xs.dim(0)? * n * depth, 0.0);
        let images = patches.chunks_exact((n - prefix) * depth);
        // Rows for the class token's like in front, so that patches and tokens have the same rows.
        for (room, image) in rows.chunks_exact_mut(n * depth).zip(images) {
            room[prefix * depth..].copy_from_slice(image);
        }
        parts.clear();
        parts.push(buffers.patch_rows.iter().copied(), &[0..depth], &[0..c]);
        map.add(rows, &mut buffers.xs, parts, &mut buffers.work);
        Ok(())
    }
}

pub(super) fn linear(
    n_in: usize,
    n_out: usize,
    bias: bool,
    vb: &VarBuilder,
) -> candle_core::Result<PreparedLinear> {
    let weight = vb.get((n_out, n_in), "weight")?;
    let bias = bias.then(|| vb.get(n_out, "bias")).transpose()?;
    PreparedLinear::new(&weight, bias.as_ref(), n_out)
}

pub(super) fn norm(
    config: &ModelConfig,
    vb: &VarBuilder,
) -> candle_core::Result<PreparedLayerNorm> {
    let c = config.embed_dim;
    PreparedLayerNorm::new(
        &vb.get(c, "weight")?,
        &vb.get(c, "bias")?,
        config.layer_norm_eps,
    )
}
