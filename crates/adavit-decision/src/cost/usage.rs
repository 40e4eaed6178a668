//! Usage: the share of each axis that a set of images keeps, at inference.
//!
//! - `blocks`: mean of the attention and MLP gates over blocks that have them;
//! - `heads`: kept heads over the (image, block) pairs that gate heads and have a block gate on;
//! - `tokens`: kept patch tokens, class token excluded, over blocks with token gates.
//!
//! The published loss takes its mean over all N tokens, class token included, which is another
//! number.

use candle_core::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::config::DecisionConfig;
use crate::cost::macs::Geometry;
use crate::policy::kept::BlockKept;

/// Kept shares of a model in [0, 1], over images; an axis without gates is 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Of patch tokens.
    pub tokens: f64,
    /// Of heads.
    pub heads: f64,
    /// Of attention and MLP.
    pub blocks: f64,
    /// The shares of each block.
    pub per_block: Vec<BlockUsage>,
}

impl Usage {
    /// Returns the three shares as those of each of `depth` blocks.
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
    /// Of heads, over images for which attention or MLP runs.
    pub heads: f64,
    /// How often attention runs.
    pub attention: f64,
    /// How often the MLP runs.
    pub mlp: f64,
}

/// What the images added so far keep of one block.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    patches: u64,
    /// Of the images for which attention or MLP runs.
    heads: u64,
    /// How many images these are.
    active: u64,
    attention: u64,
    mlp: u64,
}

/// Adds up usage and MACs image by image.
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

    /// Adds one image by what it keeps of each block, and returns its `exact` MACs.
    ///
    /// # Errors
    /// If `blocks` has not one entry per block, or keeps more than the model has.
    pub fn add(&mut self, blocks: &[BlockKept]) -> Result<u64> {
        let macs = self.geometry.image_macs(&self.config, blocks);
        self.add_counted(blocks, macs)
    }

    /// As [`Self::add`], with MACs that were counted elsewhere and are returned.
    ///
    /// # Errors
    /// As for [`Self::add`].
    pub fn add_counted(&mut self, blocks: &[BlockKept], macs: u64) -> Result<u64> {
        self.check(blocks)?;
        self.macs.push(macs);
        for (sums, kept) in self.blocks.iter_mut().zip(blocks) {
            sums.patches += kept.patches as u64;
            if kept.attention || kept.mlp {
                sums.active += 1;
                sums.heads += kept.heads as u64;
            }
            sums.attention += u64::from(kept.attention);
            sums.mlp += u64::from(kept.mlp);
        }
        Ok(macs)
    }

    fn check(&self, blocks: &[BlockKept]) -> Result<()> {
        if blocks.len() != self.geometry.depth {
            bail!(
                "usage: expected what an image keeps of {} blocks, found {}",
                self.geometry.depth,
                blocks.len()
            );
        }
        let all = self.geometry.all();
        for (block, kept) in blocks.iter().enumerate() {
            if kept.patches > all.patches || kept.heads > all.heads {
                bail!(
                    "usage of block {block}: expected at most {} tokens and {} heads, found {} \
                     and {}",
                    all.tokens(),
                    all.heads,
                    kept.tokens(),
                    kept.heads
                );
            }
        }
        Ok(())
    }

    /// MACs of each image, in the order added.
    pub fn macs(&self) -> &[u64] {
        &self.macs
    }

    /// Mean MACs of an image.
    pub fn mean_macs(&self) -> f64 {
        ratio(self.macs.iter().sum::<u64>() as f64, self.macs.len() as f64)
    }

    /// Standard deviation of the MACs over images.
    pub fn std_macs(&self) -> f64 {
        let mean = self.mean_macs();
        let squares: f64 = self.macs.iter().map(|&m| (m as f64 - mean).powi(2)).sum();
        ratio(squares, self.macs.len() as f64).sqrt()
    }

    /// Returns the usage of the images added so far.
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
                total(&tokens, &|s| s.patches as f64),
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
                    tokens: share(s.patches as f64, images * patches),
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
