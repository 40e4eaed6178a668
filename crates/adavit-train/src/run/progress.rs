//! The state of a run: all that a resume needs besides tensors, and what the run folder reports.

use serde::{Deserialize, Serialize};

use crate::eval::allocation::report::AllocatorReport;
use crate::eval::evaluation::Evaluation;

/// The parts of a run, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Training the dense model.
    Dense,
    /// Training the adaptive model from the dense one.
    Adaptive,
    /// Evaluating both on the test images.
    Test,
    /// Everything is done.
    Done,
}

impl Stage {
    /// The stage's name in files and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Adaptive => "adaptive",
            Self::Test => "test",
            Self::Done => "done",
        }
    }
}

/// The state of a run between two steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) stage: Stage,
    /// Finished epochs of the stage.
    pub(crate) epoch: u64,
    /// Finished steps of the epoch.
    pub(crate) step_in_epoch: u64,
    /// Finished steps of the stage.
    pub(crate) step: u64,
    /// Sums over the steps of the present epoch.
    pub(crate) sums: EpochSums,
    /// Finished epochs, the rows of `metrics.csv`.
    pub(crate) rows: Vec<MetricsRow>,
    /// What the stage's best checkpoint reached on the held-out images.
    pub(crate) best: Option<Score>,
    /// Epochs since then.
    #[serde(default)]
    pub(crate) epochs_since_best: u64,
    /// Epochs whose checkpoints are kept, the best one aside.
    #[serde(default)]
    pub(crate) kept: Vec<KeptEpoch>,
    /// What the test stage has found so far.
    pub(crate) test: TestResults,
    /// Seconds in all, over every start.
    pub(crate) seconds: f64,
    /// Images that went through a training step, and the seconds that took.
    pub(crate) trained_images: u64,
    pub(crate) training_seconds: f64,
}

impl Progress {
    pub(crate) fn new(stage: Stage) -> Self {
        Self {
            stage,
            epoch: 0,
            step_in_epoch: 0,
            step: 0,
            sums: EpochSums::default(),
            rows: Vec::new(),
            best: None,
            epochs_since_best: 0,
            kept: Vec::new(),
            test: TestResults::default(),
            seconds: 0.0,
            trained_images: 0,
            training_seconds: 0.0,
        }
    }

    /// Steps of both stages.
    pub(crate) fn steps_of_all(&self) -> u64 {
        let of = |stage: Stage| {
            let last = self.rows.iter().rev().find(|row| row.stage == stage);
            last.map_or(0, |row| row.steps)
        };
        match self.stage {
            Stage::Dense => self.step,
            Stage::Adaptive => of(Stage::Dense) + self.step,
            Stage::Test | Stage::Done => of(Stage::Dense) + of(Stage::Adaptive),
        }
    }

    /// Moves to the start of `stage`.
    pub(crate) fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        (self.epoch, self.step_in_epoch, self.step) = (0, 0, 0);
        self.sums = EpochSums::default();
        self.best = None;
        self.epochs_since_best = 0;
    }
}

/// A checkpoint that is kept, and what it reached on the held-out images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct KeptEpoch {
    pub(crate) stage: Stage,
    /// Counted from 1.
    pub(crate) epoch: u64,
    pub(crate) score: Score,
}

/// What a checkpoint reached: one within the budget is better than one that is not.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Score {
    pub(crate) within_budget: bool,
    pub(crate) top1: f64,
}

impl Score {
    pub(crate) fn beats(self, other: Self) -> bool {
        if self.within_budget == other.within_budget {
            self.top1 > other.top1
        } else {
            self.within_budget
        }
    }
}

/// Sums over steps, weighted by images.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct EpochSums {
    pub(crate) images: u64,
    pub(crate) task: f64,
    pub(crate) distillation: f64,
    pub(crate) usage: f64,
    pub(crate) right: f64,
    pub(crate) grad_norm: f64,
    /// Learning rate of the last step.
    pub(crate) lr: f64,
    pub(crate) seconds: f64,
    /// Seconds of making batches, which `seconds` includes.
    #[serde(default)]
    pub(crate) data_seconds: f64,
}

/// What the test stage has found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct TestResults {
    /// The dense model by the prepared path.
    pub(crate) dense: Option<Evaluation>,
    /// The adaptive model by the sparse path.
    #[serde(default)]
    pub(crate) sparse: Option<Evaluation>,
    /// Whether these two took turns, so that their speeds compare. Older snapshots have the dense
    /// model by a slower path.
    #[serde(default)]
    pub(crate) in_turns: bool,
    /// The adaptive model by the masked path.
    pub(crate) adaptive: Option<Evaluation>,
    /// Random policies with the adaptive model's three usages in every block.
    pub(crate) random: Vec<Evaluation>,
    /// Random policies with the usage that the adaptive model has in each block.
    pub(crate) random_per_block: Vec<Evaluation>,
    /// The allocator of an elastic model, on the held-out images.
    #[serde(default)]
    pub(crate) allocator: Option<AllocatorReport>,
}

/// One epoch in `metrics.csv`. Losses and `train_top1` are means over the epoch's training images;
/// the rest is measured on the held-out ones at the end of the epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricsRow {
    /// `dense` or `adaptive`.
    pub stage: Stage,
    /// Counted from 1 in its stage.
    pub epoch: u64,
    /// Optimizer steps done in the stage.
    pub steps: u64,
    /// Learning rate of the last step.
    pub lr: f64,
    /// The sum of the losses.
    pub loss: f64,
    /// Cross entropy with the labels, times the weight that soft targets leave it.
    pub task_loss: f64,
    /// Distillation from the dense model, weighted.
    pub distillation_loss: f64,
    /// The budget losses.
    pub usage_loss: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Accuracy on the training batches.
    pub train_top1: f64,
    /// Accuracy.
    pub held_out_top1: f64,
    /// Mean MACs over those of the dense model.
    pub held_out_macs_share: f64,
    /// Kept tokens.
    pub tokens: f64,
    /// Kept heads.
    pub heads: f64,
    /// Kept blocks: attention and MLP.
    pub blocks: f64,
    /// Whether this epoch's model became `best`.
    pub best: bool,
    /// Training images per second.
    pub images_per_s: f64,
    /// Seconds of training steps.
    pub seconds: f64,
}

impl MetricsRow {
    /// Every measured value under its name.
    pub(crate) fn values(&self) -> [(&'static str, f64); 13] {
        [
            ("lr", self.lr),
            ("loss", self.loss),
            ("task_loss", self.task_loss),
            ("distillation_loss", self.distillation_loss),
            ("usage_loss", self.usage_loss),
            ("grad_norm", self.grad_norm),
            ("train_top1", self.train_top1),
            ("held_out_top1", self.held_out_top1),
            ("held_out_macs_share", self.held_out_macs_share),
            ("tokens", self.tokens),
            ("heads", self.heads),
            ("blocks", self.blocks),
            ("images_per_s", self.images_per_s),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_within_the_budget_beats_a_more_accurate_one_that_is_not() {
        let score = |within_budget, top1| Score {
            within_budget,
            top1,
        };
        assert!(score(true, 0.7).beats(score(false, 0.9)));
        assert!(!score(false, 0.9).beats(score(true, 0.7)));
        assert!(score(true, 0.8).beats(score(true, 0.7)));
        assert!(!score(true, 0.7).beats(score(true, 0.7)));
    }
}
