//! The prepared model of the CPU: weights packed once, products in parts.

use adavit_decision::{HardPolicy, Thresholds};
use adavit_kernels::{Parts, PreparedLayerNorm, PreparedLinear, Rows, in_pool, patchify};
use candle_core::{D, Tensor};
use candle_nn::VarBuilder;

use super::block::{Buffers, PreparedBlock};
use super::{Decide, Strategy};
use crate::{ModelConfig, Result};

/// Tokens that are worked on at a time, whole images: their hidden activations stay in cache.
const TOKENS: usize = 1600;

#[derive(Debug)]
pub(super) struct PackedTransformer {
    config: ModelConfig,
    patch_embed: PreparedLinear,
    /// `(N, C)`: position embedding, with the class token added to the first row.
    positions: Vec<f32>,
    blocks: Vec<PreparedBlock>,
    norm: PreparedLayerNorm,
    head: PreparedLinear,
}

/// Buffers of a forward, kept from one to the next.
#[derive(Debug, Default)]
pub(super) struct Room {
    pub(super) buffers: Buffers,
    patches: Vec<f32>,
    class: Vec<f32>,
    parts: Parts,
}

impl PackedTransformer {
    pub(super) fn new(config: &ModelConfig, vb: &VarBuilder) -> Result<Self> {
        let (c, p, n) = (config.embed_dim, config.patch_size, config.num_tokens());
        let patch = vb.pp("patch_embed").pp("proj");
        let weight = patch.get((c, config.in_chans, p, p), "weight")?;
        let bias = patch.get(c, "bias")?;
        let positions = vb.get((1, n, c), "pos_embed")?.flatten_all()?;
        let mut positions = positions.to_vec1::<f32>()?;
        let class = vb.get((1, 1, c), "cls_token")?.flatten_all()?;
        for (x, class) in positions.iter_mut().zip(class.to_vec1::<f32>()?) {
            *x += class;
        }
        let blocks = (0..config.depth)
            .map(|block| PreparedBlock::new(config, block, &vb.pp("blocks").pp(block)))
            .collect::<candle_core::Result<_>>()?;
        Ok(Self {
            patch_embed: PreparedLinear::new(&weight.flatten_from(1)?, Some(&bias), c)?,
            positions,
            blocks,
            norm: norm(config, &vb.pp("norm"))?,
            head: linear(c, config.num_classes, true, &vb.pp("head"))?,
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
    pub(super) fn run(
        &self,
        xs: &Tensor,
        decide: Decide,
        policy: &mut HardPolicy,
        room: &mut Room,
    ) -> Result<Tensor> {
        let (b, k) = (xs.dim(0)?, self.config.num_classes);
        let group = (TOKENS / self.config.num_tokens()).max(1);
        let mut logits = vec![0.0; b * k];
        in_pool(|| -> Result<()> {
            for (index, logits) in logits.chunks_mut(group * k).enumerate() {
                let first = index * group;
                let images = xs.narrow(0, first, logits.len() / k)?;
                self.run_group((&images, first), decide, logits, (policy, room))?;
            }
            Ok(())
        })?;
        Ok(Tensor::from_vec(logits, (b, k), xs.device())?)
    }

    /// Runs some images, of which the first is image `first` of the batch.
    fn run_group(
        &self,
        (xs, first): (&Tensor, usize),
        decide: Decide,
        logits: &mut [f32],
        (policy, room): (&mut HardPolicy, &mut Room),
    ) -> Result<()> {
        let (b, n, c) = (xs.dim(0)?, self.config.num_tokens(), self.config.embed_dim);
        room.buffers.reserve(&self.config, b);
        self.embed(xs, room)?;
        let Room {
            buffers,
            class,
            parts,
            ..
        } = room;
        for (index, block) in self.blocks.iter().enumerate() {
            let at = (index, first);
            let decided = !matches!(decide, Decide::Nothing);
            if decided {
                block.decide(policy, at, buffers);
            }
            if let Decide::Given(given) = decide {
                policy.copy_block(given, at, b);
            }
            block.forward(policy, at, decided, buffers);
        }
        class.clear();
        for xs in buffers.xs.chunks_exact(n * c) {
            class.extend_from_slice(&xs[..c]);
        }
        self.norm.write(class, &mut buffers.normed, Rows::All(b));
        parts.clear();
        parts.push(0..b, &[0..c], &[0..self.config.num_classes]);
        let normed = &buffers.normed[..b * c];
        self.head.write(normed, logits, parts, &mut buffers.work);
        // A gate that nobody knows makes everything unknown.
        let rows = logits.chunks_exact_mut(self.config.num_classes);
        for (logits, _) in rows.zip(&buffers.unknown).filter(|(_, unknown)| **unknown) {
            logits.fill(f32::NAN);
        }
        Ok(())
    }

    /// Fills the tokens: positions, then patches through their map on top.
    fn embed(&self, xs: &Tensor, room: &mut Room) -> Result<()> {
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
        rows.resize(xs.dim(0)? * n * depth, 0.0);
        let images = patches.chunks_exact((n - 1) * depth);
        // A row for the class token in front, so that patches and tokens have the same rows.
        for (room, image) in rows.chunks_exact_mut(n * depth).zip(images) {
            room[depth..].copy_from_slice(image);
        }
        for xs in buffers.xs.chunks_exact_mut(n * c) {
            xs.copy_from_slice(&self.positions);
        }
        parts.clear();
        parts.push(buffers.patch_rows.iter().copied(), &[0..depth], &[0..c]);
        self.patch_embed
            .add(rows, &mut buffers.xs, parts, &mut buffers.work);
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
