//! What a run reports, and how it is stopped.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use candle_core::Device;

use crate::eval::evaluation::Evaluation;
use crate::run::progress::{MetricsRow, Stage};
use crate::run::summary::Summary;

/// What a run reports while it works.
#[derive(Debug)]
pub enum Event<'a> {
    /// Something that may need attention; the run continues.
    Warning(&'a str),
    /// Something worth knowing, such as how a checkpoint was understood.
    Note(&'a str),
    /// A new run starts.
    Started {
        /// In this folder.
        folder: &'a Path,
    },
    /// The run resumes from a snapshot.
    Resumed {
        /// The stage that it resumes in.
        stage: Stage,
        /// Finished epochs of the stage.
        epoch: u64,
        /// Finished optimizer steps of the stage.
        step: u64,
    },
    /// A stage of training begins.
    StageStarted {
        /// The stage.
        stage: Stage,
        /// Passes over the training images.
        epochs: u64,
        /// Optimizer steps in all.
        steps: u64,
        /// Trained numbers.
        parameters: usize,
    },
    /// A step is finished.
    Step(&'a StepReport),
    /// An epoch is finished and measured on the held-out images.
    EpochFinished(&'a MetricsRow),
    /// A model was measured on the test images.
    Tested {
        /// Which model, and how it decides.
        what: &'a str,
        /// Its evaluation.
        evaluation: &'a Evaluation,
    },
}

/// The progress of a training stage. Means are over the finished steps of the current epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct StepReport {
    /// The stage.
    pub stage: Stage,
    /// The current epoch, counted from 1.
    pub epoch: u64,
    /// Epochs of the stage.
    pub epochs: u64,
    /// Finished optimizer steps of the stage.
    pub step: u64,
    /// Optimizer steps of the stage.
    pub steps: u64,
    /// Mean cross entropy with the labels, weighted: soft targets take their share of the weight.
    pub task_loss: f64,
    /// Mean loss of distillation from the dense model, weighted.
    pub distillation_loss: f64,
    /// Mean budget loss.
    pub usage_loss: f64,
    /// Learning rate.
    pub lr: f64,
    /// Training images per second.
    pub images_per_s: f64,
    /// Share of the time spent on making batches, in [0, 1].
    pub data_wait: f64,
    /// Seconds to the end of both stages at the current speed, without the measurements between epochs.
    pub seconds_left: f64,
}

impl StepReport {
    /// Returns the sum of the losses.
    pub fn loss(&self) -> f64 {
        self.task_loss + self.distillation_loss + self.usage_loss
    }
}

/// How a program controls a run and hears of it.
pub struct Control<'a> {
    /// Set by the program to stop after the current step; the state is saved.
    pub stop: &'a AtomicBool,
    /// Called with every event.
    pub report: &'a mut dyn FnMut(&Event),
    /// The device to compute on, the one that the setting `device` names.
    pub device: &'a Device,
    /// The commit that the program was built from, for the summary.
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
    /// The last requested stage is done.
    Reached {
        /// Seconds in total, over every start of the run.
        seconds: f64,
    },
    /// The program stopped it; the state is saved.
    Interrupted,
}
