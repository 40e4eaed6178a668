//! What a run tells, and how it is stopped.

use std::sync::atomic::AtomicBool;

use crate::evaluate::Evaluation;
use crate::progress::{MetricsRow, Stage};
use crate::summary::Summary;

/// What a run tells while it goes.
#[derive(Debug)]
pub enum Event<'a> {
    /// Something to know that stops nothing.
    Warning(&'a str),
    /// How something was understood, or what was made.
    Note(&'a str),
    /// The run goes on from a snapshot.
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
    Step {
        /// In this stage.
        stage: Stage,
        /// Counted from 1.
        epoch: u64,
        /// Of so many.
        epochs: u64,
        /// Finished steps of the stage.
        step: u64,
        /// Of so many.
        steps: u64,
        /// Mean loss of the epoch so far.
        loss: f64,
        /// Learning rate.
        lr: f64,
        /// Training images per second in this epoch.
        images_per_s: f64,
    },
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

/// How a run talks to the one who started it.
pub struct Control<'a> {
    /// Set from outside to stop after the present step, saved.
    pub stop: &'a AtomicBool,
    /// Called with everything that happens.
    pub report: &'a mut dyn FnMut(&Event),
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
    /// Stopped from outside; the state is saved.
    Interrupted,
}
