//! Usage: the share of each axis that a set of images keeps, at inference.
//!
//! - `blocks`: mean of the two sub-layer gates over blocks that have them;
//! - `heads`: kept heads over the (image, block) pairs that gate heads and have a gate on;
//! - `tokens`: kept patch tokens, class token excluded, over blocks with token gates.
//!
//! (The published loss takes its mean over all N tokens, class token included: another number.)

use serde::{Deserialize, Serialize};

use crate::{BlockUse, DecisionConfig, Geometry};

/// Kept shares in [0, 1], over images; an axis without gates is 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Of patch tokens.
    pub tokens: f64,
    /// Of heads.
    pub heads: f64,
    /// Of sub-layers.
    pub blocks: f64,
    /// The same in each block.
    pub per_block: Vec<BlockUsage>,
}

impl Usage {
    /// The same shares in each of `depth` blocks.
    pub fn in_every_block(&self, depth: usize) -> Vec<BlockUsage> {
        let block = BlockUsage {
            tokens: self.tokens,
            heads: self.heads,
            attention: self.blocks,
            mlp: self.blocks,
        };
        vec![block; depth]
    }
}

/// Kept shares of one block, in [0, 1]; an axis without gates is 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BlockUsage {
    /// Of patch tokens.
    pub tokens: f64,
    /// Of heads, over images with a gate on.
    pub heads: f64,
    /// How often attention runs.
    pub attention: f64,
    /// How often the MLP runs.
    pub mlp: f64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    tokens: u64,
    heads: u64,
    active: u64,
    attention: u64,
    mlp: u64,
}

/// Gathers usage and MACs image by image.
#[derive(Debug, Clone)]
pub struct UsageMeter {
    config: DecisionConfig,
    geometry: Geometry,
    blocks: Vec<Sums>,
    macs: Vec<u64>,
}

impl UsageMeter {
    /// Makes an empty meter.
    pub fn new(config: &DecisionConfig, geometry: &Geometry) -> Self {
        Self {
            config: config.clone(),
            geometry: geometry.clone(),
            blocks: vec![Sums::default(); geometry.depth],
            macs: Vec::new(),
        }
    }

    /// Adds one image, by what it uses of each block, and returns its `exact` MACs.
    pub fn add(&mut self, blocks: &[BlockUse]) -> u64 {
        let macs = self.geometry.image_macs(&self.config, blocks);
        self.add_counted(blocks, macs)
    }

    /// As [`Self::add`] with multiply-adds that were counted elsewhere, which it returns.
    pub fn add_counted(&mut self, blocks: &[BlockUse], macs: u64) -> u64 {
        self.macs.push(macs);
        for (sums, used) in self.blocks.iter_mut().zip(blocks) {
            sums.tokens += used.tokens as u64 - 1;
            if used.attention || used.mlp {
                sums.active += 1;
                sums.heads += used.heads as u64;
            }
            sums.attention += u64::from(used.attention);
            sums.mlp += u64::from(used.mlp);
        }
        macs
    }

    /// `exact` MACs of each image, in the order added.
    pub fn macs(&self) -> &[u64] {
        &self.macs
    }

    /// Mean `exact` MACs of an image.
    pub fn mean_macs(&self) -> f64 {
        ratio(self.macs.iter().sum::<u64>() as f64, self.macs.len() as f64)
    }

    /// Standard deviation of the MACs over images.
    pub fn std_macs(&self) -> f64 {
        let mean = self.mean_macs();
        let squares: f64 = self.macs.iter().map(|&m| (m as f64 - mean).powi(2)).sum();
        ratio(squares, self.macs.len() as f64).sqrt()
    }

    /// The usage of the images added so far.
    pub fn usage(&self) -> Usage {
        let images = self.macs.len() as f64;
        let (patches, num_heads) = (
            (self.geometry.num_tokens - 1) as f64,
            self.geometry.num_heads as f64,
        );
        let total = |has: &dyn Fn(usize) -> bool, part: &dyn Fn(&Sums) -> f64| -> f64 {
            let kept = self.blocks.iter().enumerate().filter(|(i, _)| has(*i));
            kept.map(|(_, sums)| part(sums)).sum()
        };
        let tokens = |i: usize| self.config.gates_tokens(i);
        let heads = |i: usize| self.config.gates_heads(i).is_some();
        let sublayers = |i: usize| self.config.gates_sublayers(i);
        let share = |kept: f64, of: f64| if of == 0.0 { 1.0 } else { kept / of };
        Usage {
            tokens: share(
                total(&tokens, &|s| s.tokens as f64),
                total(&tokens, &|_| images * patches),
            ),
            heads: if (0..self.blocks.len()).any(heads) {
                ratio(
                    total(&heads, &|s| s.heads as f64),
                    total(&heads, &|s| s.active as f64 * num_heads),
                )
            } else {
                1.0
            },
            blocks: share(
                total(&sublayers, &|s| (s.attention + s.mlp) as f64),
                total(&sublayers, &|_| 2.0 * images),
            ),
            per_block: self
                .blocks
                .iter()
                .map(|s| BlockUsage {
                    tokens: share(s.tokens as f64, images * patches),
                    heads: ratio(s.heads as f64, s.active as f64 * num_heads),
                    attention: ratio(s.attention as f64, images),
                    mlp: ratio(s.mlp as f64, images),
                })
                .collect(),
        }
    }
}

/// `a / b`, and 0 where there is nothing to divide by.
fn ratio(a: f64, b: f64) -> f64 {
    if b == 0.0 { 0.0 } else { a / b }
}
