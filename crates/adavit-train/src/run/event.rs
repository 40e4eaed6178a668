//! What a run tells, and how it is stopped.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use candle_core::Device;

use crate::eval::evaluate::Evaluation;
use crate::run::progress::{MetricsRow, Stage};
use crate::run::summary::Summary;

/// What a run tells while it goes.
#[derive(Debug)]
pub enum Event<'a> {
    /// Something to know that stops nothing.
    Warning(&'a str),
    /// How something was understood, or what was made.
    Note(&'a str),
    /// A new run starts.
    Started {
        /// In this folder.
        folder: &'a Path,
    },
    /// The run resumes from a snapshot.
    Resumed {
        /// In this stage.
        stage: Stage,
        /// After so many epochs of it.
        epoch: u64,
        /// And so many steps.
        step: u64,
    },
    /// A stage of training begins.
    StageStarted {
        /// Which.
        stage: Stage,
        /// Passes over the training images.
        epochs: u64,
        /// Optimizer steps in all.
        steps: u64,
        /// Trained numbers.
        parameters: usize,
    },
    /// A step was done.
    Step(&'a StepReport),
    /// An epoch was done and measured on the held-out images.
    EpochFinished(&'a MetricsRow),
    /// A model was measured on the test images.
    Tested {
        /// Which.
        what: &'a str,
        /// What was found.
        evaluation: &'a Evaluation,
    },
}

/// How far a stage of training is. Means are over the present epoch, in so far as it is done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// The stage.
    pub stage: Stage,
    /// Counted from 1.
    pub epoch: u64,
    /// Of so many.
    pub epochs: u64,
    /// Finished steps of the stage.
    pub step: u64,
    /// Of so many.
    pub steps: u64,
    /// Mean cross entropy with the labels, times the weight that soft targets leave it.
    pub task_loss: f64,
    /// Mean loss of distillation from the plain model, weighted.
    pub distillation_loss: f64,
    /// Mean budget loss.
    pub usage_loss: f64,
    /// Learning rate.
    pub lr: f64,
    /// Training images per second.
    pub images_per_s: f64,
    /// Share of the time that went into making batches, in [0, 1].
    pub data_wait: f64,
    /// Seconds to the end of the training, both stages of it, at the present speed; measurements
    /// between epochs aside.
    pub seconds_left: f64,
}

impl StepReport {
    /// The sum of the losses.
    pub fn loss(&self) -> f64 {
        self.task_loss + self.distillation_loss + self.usage_loss
    }
}

/// How a run talks to the one who started it.
pub struct Control<'a> {
    /// Set from outside to stop after the present step, saved.
    pub stop: &'a AtomicBool,
    /// Called with everything that happens.
    pub report: &'a mut dyn FnMut(&Event),
    /// Where to compute.
    pub device: &'a Device,
    /// The source that the program was built from, for the summary.
    pub commit: &'a str,
}

impl std::fmt::Debug for Control<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// Everything is done.
    Finished(Box<Summary>),
    /// The stage that was asked for is done, and no more was.
    Reached {
        /// Seconds in all, over every start.
        seconds: f64,
    },
    /// Stopped from outside; the state is saved.
    Interrupted,
}
