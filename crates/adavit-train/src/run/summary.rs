//! `summary.json`: what a run came to.

use serde::{Deserialize, Serialize};

use crate::eval::evaluate::Evaluation;
use crate::run::progress::TestResults;

/// What a run came to, on the test images. Ratios are in [0, 1], MACs per image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The data set's name.
    pub dataset: String,
    /// Of everything random.
    pub seed: u64,
    /// Threads of every pool.
    pub threads: usize,
    /// The source that the program was built from.
    pub commit: String,
    /// Wall-clock time of the whole run.
    pub seconds: f64,
    /// Training images per second, both stages.
    pub train_images_per_s: f64,
    /// Images per forward in the evaluations.
    pub batch: usize,
    /// Mean MACs asked for, over those of the plain model; none where targets per axis were.
    pub budget: Option<f64>,
    /// The plain model.
    pub dense: DenseSummary,
    /// The adaptive model.
    pub adaptive: AdaptiveSummary,
    /// Random policies with the adaptive model's usage of tokens, heads and sub-layers.
    pub random_policy: RandomSummary,
    /// Random policies that imitate its usage of each axis in each block too.
    pub random_policy_per_block: RandomSummary,
}

/// The plain model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DenseSummary {
    /// Accuracy.
    pub top1: f64,
    /// MACs of an image.
    pub macs: u64,
    /// Images per second.
    pub images_per_s: f64,
}

/// The adaptive model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdaptiveSummary {
    /// Accuracy.
    pub top1: f64,
    /// Mean MACs of an image.
    pub macs: f64,
    /// Standard deviation of the MACs over images.
    pub macs_std: f64,
    /// Images per second by the sparse path; none in runs older than it.
    pub images_per_s: Option<f64>,
    /// Images per second by the masked path, which computes everything.
    pub masked_images_per_s: f64,
    /// Kept shares.
    pub usage: UsageSummary,
}

/// Kept shares of each axis.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct UsageSummary {
    /// Of patch tokens.
    pub tokens: f64,
    /// Of heads.
    pub heads: f64,
    /// Of sub-layers.
    pub blocks: f64,
}

/// Random policies, mean over draws.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RandomSummary {
    /// Accuracy.
    pub top1: f64,
    /// Mean MACs of an image.
    pub macs: f64,
}

impl TestResults {
    /// The plain model's part of a summary, once it was measured.
    pub(crate) fn dense_summary(&self) -> Option<DenseSummary> {
        let dense = self.dense.as_ref()?;
        Some(DenseSummary {
            top1: dense.top1,
            macs: dense.macs as u64,
            images_per_s: dense.images_per_s,
        })
    }

    /// The adaptive model's part of a summary, once it was measured.
    pub(crate) fn adaptive_summary(&self) -> Option<AdaptiveSummary> {
        let adaptive = self.adaptive.as_ref()?;
        Some(AdaptiveSummary {
            top1: adaptive.top1,
            macs: adaptive.macs,
            macs_std: adaptive.macs_std,
            images_per_s: self.sparse.as_ref().map(|sparse| sparse.images_per_s),
            masked_images_per_s: adaptive.images_per_s,
            usage: UsageSummary {
                tokens: adaptive.usage.tokens,
                heads: adaptive.usage.heads,
                blocks: adaptive.usage.blocks,
            },
        })
    }
}

impl RandomSummary {
    /// The mean over draws.
    pub(crate) fn mean(draws: &[Evaluation]) -> Self {
        let n = draws.len() as f64;
        Self {
            top1: draws.iter().map(|draw| draw.top1).sum::<f64>() / n,
            macs: draws.iter().map(|draw| draw.macs).sum::<f64>() / n,
        }
    }
}
