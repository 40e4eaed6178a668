//! Replays of recordings: the same weights, images and noise have to give the recorded numbers.
//!
//! Evaluation recordings are replayed by the masked or the sparse path, training recordings by the
//! path that trains: recorded noise in place of drawn one, then losses and their gradients.

mod compare;
mod recording;
mod replay;

use std::path::Path;

use candle_core::Device;
use serde::Serialize;

use self::compare::Comparer;
pub use self::recording::Recording;
use crate::checkpoint::import::import_as;
use crate::error::Result;

/// Which path replays an evaluation recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Replay {
    /// Everything is computed, gates are factors.
    #[default]
    Masked,
    /// What is off is skipped.
    Sparse,
    /// As [`Self::Sparse`] by candle's operations, as on GPUs, also on the CPU.
    Gathered,
}

/// How one kind of tensor compares.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// What was compared: gates, gate logits, hidden, logits, losses or gradients.
    pub kind: &'static str,
    /// Tensors of this kind.
    pub tensors: usize,
    /// Their elements.
    pub elements: usize,
    /// The largest absolute difference.
    pub max_abs: f64,
    /// The largest difference over the recorded element's absolute value; 1e-6 where that is less.
    pub max_rel: f64,
    /// The largest difference over what is allowed there: above 1 it fails.
    pub of_tolerance: f64,
    /// The tensor with that difference.
    pub worst: String,
    /// Whether every element is within its tolerance.
    pub passed: bool,
}

/// What a replay found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verification {
    /// Each kind that the recording has, in the order of the forward.
    pub comparisons: Vec<Comparison>,
}

impl Verification {
    /// Whether everything is as recorded.
    pub fn passed(&self) -> bool {
        self.comparisons.iter().all(|comparison| comparison.passed)
    }
}

/// Replays a recording on `device` and compares everything that it holds.
///
/// Tolerances: gates equal; logits and hidden states 2e-5 + 1e-5 of the recorded value; logits of
/// gates, which are drawn wide, 2e-5 + 1e-5 of the largest; losses 1e-5; gradients 1e-6 + 1e-4 of
/// the tensor's largest.
///
/// # Errors
/// If the recording has no weights and `checkpoint` is none, weights do not fit its configuration,
/// or a training recording is to be replayed by another path than the masked one.
pub fn verify(
    recording: &Recording,
    checkpoint: Option<&Path>,
    replay: Replay,
    device: &Device,
) -> Result<Verification> {
    let weights = match checkpoint {
        Some(path) => import_as(path, &recording.config)?.checkpoint.tensors,
        None => recording.weights()?.clone(),
    };
    let mut comparer = Comparer::default();
    match (recording.is_training(), replay) {
        (true, Replay::Masked) => replay::training(recording, weights, device, &mut comparer)?,
        (true, _) => {
            return Err(recording.unfit(
                "recorded in training, with noise: the sparse path replays evaluations only",
            ));
        }
        (false, Replay::Masked) => replay::masked(recording, weights, device, &mut comparer)?,
        (false, _) => replay::sparse(recording, weights, (device, replay), &mut comparer)?,
    }
    Ok(Verification {
        comparisons: comparer.finish(),
    })
}
