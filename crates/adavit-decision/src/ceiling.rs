//! A ceiling on the MACs of each image, which holds by construction.
//!
//! Before block l, an image has spent S on the embedding and the blocks before, and what follows
//! needs at least F: the later blocks with every gate off, their decisions, and the head. So block
//! l, its decisions included, may cost at most
//!
//! ```text
//! room = ceiling - S - F
//! ```
//!
//! While it costs more, the gate that is on and has the least
//!
//! ```text
//! margin / min(saved, excess)      margin = logit - ln(t / (1 - t)),  at least 0
//! ```
//!
//! is turned off, where t is the gate's threshold, `saved` what the block then costs less, and
//! `excess` what it still costs too much.
//!
//! The margin is the log odds of a gate at its threshold, so it means the same on every axis: what
//! is dropped lowers the log likelihood of the policy by the sum of its margins, if gates are
//! independent. The most likely policy within the room is a knapsack. This is the usual greedy
//! answer, the least margin lost per MAC saved. MACs that are not needed count for nothing, so a
//! whole sub-layer stays where a few tokens or heads lose less.
//!
//! Every patch of a block saves the same, and so does every head: the least margin goes first, the
//! lower index first of equal ones. Of equal gates of different kinds the patch goes first, then
//! the head, the MLP, and attention. At the end dropped gates come back, the last dropped first,
//! where they fit.
//!
//! An image whose own decisions cost at most the ceiling is never touched: each block leaves room
//! for what those decisions cost later, since that is at least F.

use candle_core::{DType, Result, Tensor, bail};

use crate::config::{DecisionConfig, Thresholds};
use crate::cost::macs::Geometry;
use crate::network::BlockLogits;
use crate::policy::hard::HardPolicy;
use crate::policy::kept::BlockKept;

/// The ceiling of a batch, and what its images have spent, while they go through the blocks.
#[derive(Debug, Clone)]
pub struct Ceiling {
    geometry: Geometry,
    config: DecisionConfig,
    max_macs: u64,
    /// What follows each block costs at least.
    rest: Vec<u64>,
    /// What each image has spent.
    spent: Vec<u64>,
    ranks: Ranks,
}

/// The logits of the gates of one image in one block; empty where the block has no such gates.
#[derive(Debug, Clone, Copy, Default)]
pub struct GateLogits<'a> {
    /// One per patch token.
    pub patches: &'a [f32],
    /// One per head.
    pub heads: &'a [f32],
    /// Attention's, then the MLP's.
    pub sublayers: &'a [f32],
}

/// An image of a policy, in one of its blocks.
#[derive(Debug, Clone, Copy)]
pub struct PolicyAt {
    /// The block.
    pub block: usize,
    /// The image.
    pub image: usize,
}

/// A gate of one image in one block.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Gate {
    Patch(usize),
    Head(usize),
    Mlp,
    Attention,
}

/// A gate that is on, and its margin.
#[derive(Debug, Clone, Copy)]
struct Ranked {
    gate: Gate,
    margin: f64,
}

/// The gates of one image that are on, the first to be dropped last in each list.
#[derive(Debug, Clone, Default)]
struct Ranks {
    patches: Vec<Ranked>,
    heads: Vec<Ranked>,
    mlp: Vec<Ranked>,
    attention: Vec<Ranked>,
    dropped: Vec<Gate>,
}

impl Ceiling {
    /// Begins a batch of `batch` images, none of which may cost more than `max_macs`.
    ///
    /// # Errors
    /// If `max_macs` is below [`Geometry::floor_macs`].
    pub fn new(
        max_macs: u64,
        config: &DecisionConfig,
        geometry: &Geometry,
        batch: usize,
    ) -> Result<Self> {
        let floor = geometry.floor_macs(config);
        if max_macs < floor {
            bail!(
                "max_macs: expected at least {floor}, the cost with every gate off, found {max_macs}"
            );
        }
        let mut rest = vec![geometry.head_macs; geometry.depth];
        for block in (1..geometry.depth).rev() {
            let least = geometry.least(config, block);
            let macs = geometry.block_parts(config, block, least).total();
            rest[block - 1] = rest[block] + macs;
        }
        Ok(Self {
            geometry: geometry.clone(),
            config: config.clone(),
            max_macs,
            rest,
            spent: vec![geometry.embed_macs; batch],
            ranks: Ranks::default(),
        })
    }

    /// Turns off gates of `policy` until the image fits, by the margins of `logits`, and counts what
    /// is left as spent. Every image passes every block once, in order. Returns whether a gate was
    /// turned off.
    pub fn fit(&mut self, policy: &mut HardPolicy, at: PolicyAt, logits: &GateLogits) -> bool {
        let PolicyAt { block, image } = at;
        let cost = |kept: BlockKept| {
            let parts = self.geometry.block_parts(&self.config, block, kept);
            parts.total()
        };
        let mut kept = policy.block_kept(block, image);
        let room = self
            .max_macs
            .saturating_sub(self.spent[image] + self.rest[block]);
        if cost(kept) <= room {
            self.spent[image] += cost(kept);
            return false;
        }
        let ranks = &mut self.ranks;
        ranks.fill(policy, at, logits, self.config.thresholds);
        while cost(kept) > room {
            let Some(gate) = ranks.take_least(kept, room, &cost) else {
                break;
            };
            gate.switch(&mut kept, false);
            ranks.dropped.push(gate);
        }
        while let Some(gate) = ranks.dropped.pop() {
            let mut more = kept;
            gate.switch(&mut more, true);
            if cost(more) <= room {
                kept = more;
            } else {
                gate.turn_off(policy, at);
            }
        }
        self.spent[image] += cost(kept);
        true
    }

    /// As [`Self::fit`] for all images of a block, whose logits are tensors.
    ///
    /// # Errors
    /// If the logits are of other sizes.
    pub fn fit_block(
        &mut self,
        policy: &mut HardPolicy,
        block: usize,
        logits: &BlockLogits,
    ) -> Result<bool> {
        let rows = |logits: &Option<Tensor>| -> Result<Vec<Vec<f32>>> {
            match logits {
                Some(logits) => logits.detach().to_dtype(DType::F32)?.to_vec2(),
                None => Ok(Vec::new()),
            }
        };
        let patches = rows(&logits.patches)?;
        let heads = rows(&logits.heads)?;
        let sublayers = rows(&logits.sublayers)?;
        let mut any = false;
        for image in 0..policy.batch() {
            let logits = GateLogits {
                patches: row(&patches, image),
                heads: row(&heads, image),
                sublayers: row(&sublayers, image),
            };
            any |= self.fit(policy, PolicyAt { block, image }, &logits);
        }
        Ok(any)
    }

    /// Returns what each image has spent so far, without the head.
    pub fn spent(&self) -> &[u64] {
        &self.spent
    }
}

impl Ranks {
    /// Ranks the gates that are on.
    fn fill(
        &mut self,
        policy: &HardPolicy,
        at: PolicyAt,
        logits: &GateLogits,
        thresholds: Thresholds,
    ) {
        let PolicyAt { block, image } = at;
        let rank = |list: &mut Vec<Ranked>,
                    bits: &[bool],
                    logits: &[f32],
                    threshold: f64,
                    gate: fn(usize) -> Gate| {
            let boundary = (threshold / (1.0 - threshold)).ln();
            let on = bits
                .iter()
                .zip(logits)
                .enumerate()
                .filter(|(_, (on, _))| **on);
            list.clear();
            list.extend(on.map(|(index, (_, logit))| Ranked {
                gate: gate(index),
                margin: (f64::from(*logit) - boundary).max(0.0),
            }));
            // Stable after the reversal: of equal margins the lower index comes last.
            list.reverse();
            list.sort_by(|a, b| b.margin.total_cmp(&a.margin));
        };
        let tokens = policy.tokens(block, image);
        rank(
            &mut self.patches,
            &tokens[1..],
            logits.patches,
            thresholds.tokens,
            Gate::Patch,
        );
        rank(
            &mut self.heads,
            policy.heads(block, image),
            logits.heads,
            thresholds.heads,
            Gate::Head,
        );
        let sublayers = policy.sublayers(block, image);
        let of = |index: usize| logits.sublayers.get(index..=index).unwrap_or_default();
        rank(
            &mut self.attention,
            &sublayers[..1],
            of(0),
            thresholds.blocks,
            |_| Gate::Attention,
        );
        rank(
            &mut self.mlp,
            &sublayers[1..],
            of(1),
            thresholds.blocks,
            |_| Gate::Mlp,
        );
        self.dropped.clear();
    }

    /// Takes out the gate to drop next, if one saves anything.
    fn take_least(
        &mut self,
        kept: BlockKept,
        room: u64,
        cost: &dyn Fn(BlockKept) -> u64,
    ) -> Option<Gate> {
        let now = cost(kept);
        let excess = now - room;
        let mut least: Option<(f64, &mut Vec<Ranked>)> = None;
        for list in [
            &mut self.patches,
            &mut self.heads,
            &mut self.mlp,
            &mut self.attention,
        ] {
            let Some(Ranked { gate, margin }) = list.last().copied() else {
                continue;
            };
            let mut without = kept;
            gate.switch(&mut without, false);
            let saved = now - cost(without);
            if saved == 0 {
                continue;
            }
            let loss = margin / saved.min(excess) as f64;
            if least.as_ref().is_none_or(|(other, _)| loss < *other) {
                least = Some((loss, list));
            }
        }
        let (_, list) = least?;
        list.pop().map(|ranked| ranked.gate)
    }
}

impl Gate {
    /// Counts the gate as on or off.
    fn switch(self, kept: &mut BlockKept, on: bool) {
        let step = |count: &mut usize| if on { *count += 1 } else { *count -= 1 };
        match self {
            Self::Patch(_) => step(&mut kept.patches),
            Self::Head(_) => step(&mut kept.heads),
            Self::Mlp => kept.mlp = on,
            Self::Attention => kept.attention = on,
        }
    }

    fn turn_off(self, policy: &mut HardPolicy, PolicyAt { block, image }: PolicyAt) {
        match self {
            Self::Patch(index) => policy.patches_mut(block, image)[index] = false,
            Self::Head(index) => policy.heads_mut(block, image)[index] = false,
            Self::Mlp => policy.sublayers_mut(block, image)[1] = false,
            Self::Attention => policy.sublayers_mut(block, image)[0] = false,
        }
    }
}

/// The logits of an image, if there are any.
fn row(rows: &[Vec<f32>], image: usize) -> &[f32] {
    rows.get(image).map_or(&[], Vec::as_slice)
}
