//! The prepared model of the CPU: weights packed once, products in parts.

use std::ops::Range;

use adavit_decision::{
    Allowance, Budgets, FIRST_ALLOCATED, HardPolicy, Thresholds, budget_features,
};
use adavit_kernels::{
    PreparedLayerNorm, PreparedLinear, ProductParts, Rows, side_by_side, threads,
};
use candle_core::Tensor;
use candle_nn::VarBuilder;

use super::allocate::{AllocationRoom, PreparedAllocator};
use super::block::{PreparedBlock, Strategy};
use super::buffers::{Buffers, TokenRows};
use super::decide::{At, PolicySource};
use super::layers::{linear, norm};
use super::stem::{PreparedStem, StemRoom};
use crate::config::ModelConfig;
use crate::error::Result;

/// Tokens that a thread works on at a time, whole images: their hidden activations stay in cache.
const TOKENS: usize = 800;

#[derive(Debug)]
pub(super) struct PackedTransformer {
    config: ModelConfig,
    stem: PreparedStem,
    /// `(N, C)`: position embedding, with class and distillation token added to their rows.
    positions: Vec<f32>,
    blocks: Vec<PreparedBlock>,
    /// Of an elastic model.
    allocator: Option<PreparedAllocator>,
    norm: PreparedLayerNorm,
    head: PreparedLinear,
    head_dist: Option<PreparedLinear>,
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
    /// Adds the class tokens of the last forward, behind the first block.
    pub(super) fn add_class_tokens(&self, tokens: &mut Vec<f32>) {
        for share in &self.0 {
            tokens.extend_from_slice(&share.room.allocation.class_tokens);
        }
    }

    /// Forgets the class tokens of the forward before.
    pub(super) fn clear_class_tokens(&mut self) {
        for share in &mut self.0 {
            share.room.allocation.class_tokens.clear();
        }
    }

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
    stem: StemRoom,
    allocation: AllocationRoom,
    /// The tokens with a head.
    class: Vec<f32>,
    /// The logits of the distillation token.
    dist_logits: Vec<f32>,
    parts: ProductParts,
}

/// Images that run together, the first of which is image `first` of its share.
struct Group<'a> {
    xs: &'a Tensor,
    first: usize,
    /// Where their logits go.
    logits: &'a mut [f32],
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
        let head = |name: &str| linear(c, config.num_classes, &vb.pp(name));
        Ok(Self {
            stem: PreparedStem::new(config, vb)?,
            positions,
            blocks,
            allocator: PreparedAllocator::new(config, &vb.pp("allocator"))?,
            norm: norm(config, &vb.pp("norm"))?,
            head: head("head")?,
            head_dist: config
                .has_head_dist()
                .then(|| head("head_dist"))
                .transpose()?,
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
        source: PolicySource,
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
            self.run_share(xs, images, source, share)
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
        source: PolicySource,
        share: &mut Share,
    ) -> Result<()> {
        let k = self.config.num_classes;
        let given;
        let source = match source {
            PolicySource::Given(policy) => {
                given = policy.images(images.clone());
                PolicySource::Given(&given)
            }
            other => other,
        };
        let no_limit = Allowance::default();
        let allowance = match source {
            PolicySource::Networks(allowance) => allowance,
            PolicySource::KeepAll | PolicySource::Given(_) => &no_limit,
        };
        share.room.buffers.ceiling = self.config.ceiling(allowance, images.len())?;
        let budgets = self.config.budgets(allowance, xs.dim(0)?)?;
        share.room.allocation.price = budgets.as_ref().and_then(Budgets::price);
        share.logits.resize(images.len() * k, 0.0);
        let group = (TOKENS / self.config.num_tokens()).max(1);
        for (index, logits) in share.logits.chunks_mut(group * k).enumerate() {
            let first = index * group;
            let count = logits.len() / k;
            let budget = &mut share.room.buffers.budget;
            budget.clear();
            for image in (images.start + first..).take(count) {
                let features = budgets.as_ref().map(|own| budget_features(own.of(image)));
                budget.extend(features.into_iter().flatten().map(|x| x as f32));
            }
            let group = Group {
                xs: &xs.narrow(0, images.start + first, count)?,
                first,
                logits,
            };
            self.run_group(group, source, &mut share.policy, &mut share.room)?;
        }
        Ok(())
    }

    /// Runs some images from pixels to logits.
    fn run_group(
        &self,
        group: Group,
        source: PolicySource,
        policy: &mut HardPolicy,
        room: &mut Room,
    ) -> Result<()> {
        let Group { xs, first, logits } = group;
        let b = xs.dim(0)?;
        room.buffers.reserve(&self.config, b);
        self.embed(xs, room)?;
        for (block, prepared) in self.blocks.iter().enumerate() {
            let at = At {
                block,
                first_image: first,
            };
            if let PolicySource::KeepAll = source {
                prepared.forward(policy, at, &mut room.buffers);
                continue;
            }
            if let (FIRST_ALLOCATED, Some(allocator)) = (block, &self.allocator) {
                allocator.allocate(&mut room.buffers, &mut room.allocation);
            }
            prepared.decide(policy, at, &mut room.buffers);
            if let PolicySource::Given(given) = source {
                policy.copy_block(given, block, first..first + b)?;
            }
            prepared.forward_decided(policy, at, &mut room.buffers);
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
        let Room { buffers, stem, .. } = room;
        for tokens in buffers.xs.chunks_exact_mut(self.positions.len()) {
            tokens.copy_from_slice(&self.positions);
        }
        let mut tokens = TokenRows {
            xs: &mut buffers.xs,
            patch_rows: &buffers.patch_rows,
        };
        self.stem.add(xs, &mut tokens, stem, &mut buffers.work)
    }
}
