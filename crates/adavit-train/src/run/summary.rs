//! `summary.json`: the results of a run.

use serde::{Deserialize, Serialize};

use crate::eval::allocation::report::AllocatorReport;
use crate::eval::evaluation::Evaluation;
use crate::run::progress::TestResults;

/// The results of a run on the test images. Ratios are in [0, 1], MACs per image.
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
    /// Mean MACs asked for, over those of the dense model; none for a run with targets per axis.
    pub budget: Option<f64>,
    /// The dense model.
    pub dense: DenseSummary,
    /// The adaptive model.
    pub adaptive: AdaptiveSummary,
    /// Random policies with the adaptive model's usage of tokens, heads and blocks.
    pub random_policy: RandomSummary,
    /// Random policies with its usage of each axis in each block.
    pub random_policy_per_block: RandomSummary,
    /// The allocator of an elastic model, on the held-out images, if it was fitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocator: Option<AllocatorReport>,
}

/// The dense model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DenseSummary {
    /// Accuracy.
    pub top1: f64,
    /// MACs of an image.
    pub macs: u64,
    /// Images per second by the prepared path, in turn with the adaptive model. In summaries
    /// without [`AdaptiveSummary::realised`] it is of a slower path.
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
    /// Images per second by the sparse path, in turn with the dense model; none if they were not
    /// measured in turn.
    pub images_per_s: Option<f64>,
    /// How much of the compute that is saved becomes time: (images/s over the dense model's) over
    /// (the dense model's MACs over these). 1 means that time falls exactly as MACs do; none in
    /// older summaries, whose speeds do not compare.
    #[serde(default)]
    pub realised: Option<f64>,
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
    /// Of blocks: attention and MLP.
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
    /// The dense model's part of a summary, once it was measured.
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
        let compared = self.in_turns.then_some((&self.dense, &self.sparse));
        let compared = compared.and_then(|(dense, sparse)| dense.as_ref().zip(sparse.as_ref()));
        Some(AdaptiveSummary {
            top1: adaptive.top1,
            macs: adaptive.macs,
            macs_std: adaptive.macs_std,
            images_per_s: compared.map(|(_, sparse)| sparse.images_per_s),
            realised: compared.map(|(dense, sparse)| {
                let time_saved = sparse.images_per_s / dense.images_per_s;
                time_saved * sparse.macs / dense.macs
            }),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// An evaluation of so many images per second and MACs.
    fn evaluation(images_per_s: f64, macs: f64) -> serde_json::Value {
        let usage =
            serde_json::json!({"tokens": 1.0, "heads": 1.0, "blocks": 1.0, "per_block": []});
        serde_json::json!({
            "images": 1, "top1": 1.0, "top5": 1.0, "macs": macs, "macs_std": 0.0,
            "macs_share": 1.0, "usage": usage, "images_per_s": images_per_s,
        })
    }

    /// What an older version wrote: the dense model by a slower path, not in turn.
    fn older() -> serde_json::Value {
        serde_json::json!({
            "dense": evaluation(100.0, 8e6),
            "adaptive": evaluation(90.0, 2e6),
            "sparse": evaluation(600.0, 2e6),
            "random": [], "random_per_block": [],
        })
    }

    #[test]
    fn the_realised_ratio_is_time_saved_over_compute_saved() {
        let mut results = older();
        results["in_turns"] = true.into();
        let results: TestResults = serde_json::from_value(results).unwrap();
        let adaptive = results.adaptive_summary().unwrap();
        // Six times as fast for four times fewer MACs.
        assert_eq!(adaptive.realised, Some(1.5));
        assert_eq!(adaptive.images_per_s, Some(600.0));
        assert_eq!(adaptive.masked_images_per_s, 90.0);
    }

    #[test]
    fn speeds_that_were_not_measured_in_turn_are_not_compared() {
        let results: TestResults = serde_json::from_value(older()).unwrap();
        let adaptive = results.adaptive_summary().unwrap();
        assert_eq!((adaptive.images_per_s, adaptive.realised), (None, None));
        assert_eq!(adaptive.top1, 1.0);
    }

    #[test]
    fn a_summary_without_a_realised_ratio_is_read() {
        let older = r#"{"top1": 0.9, "macs": 2e6, "macs_std": 0.0, "images_per_s": 600.0,
            "masked_images_per_s": 90.0, "usage": {"tokens": 1, "heads": 1, "blocks": 1}}"#;
        let adaptive: AdaptiveSummary = serde_json::from_str(older).unwrap();
        assert_eq!(
            (adaptive.images_per_s, adaptive.realised),
            (Some(600.0), None)
        );
    }
}
