//! Replays of recordings: the same weights, images and noise have to give the recorded numbers.
//!
//! Evaluation recordings are replayed by the masked or the sparse path, training recordings by the
//! path that trains: recorded noise in place of drawn one, then losses and their gradients.

pub(crate) mod compare;
mod published;
pub(crate) mod recording;
pub(crate) mod replay;

use std::path::Path;

use candle_core::Device;
use serde::Serialize;

use self::compare::{Comparer, TensorComparison};
use self::recording::Recording;
use self::replay::Replay;
use crate::checkpoint::import::read::import_as;
use crate::error::Result;

/// What a replay found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Verification {
    /// Each quantity that the recording has, in the order of the forward.
    pub comparisons: Vec<TensorComparison>,
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
    let mut comparer = Comparer::new(recording.path());
    match (recording.is_training(), replay) {
        (true, Replay::Masked) => replay::training(recording, weights, device, &mut comparer)?,
        (true, _) => {
            return Err(recording.unfit(
                "recorded in training, with noise: the sparse path replays evaluations only",
            ));
        }
        (false, Replay::Masked) => replay::masked(recording, weights, device, &mut comparer)?,
        (false, _) => replay::sparse(recording, weights, device, replay, &mut comparer)?,
    }
    Ok(Verification {
        comparisons: comparer.finish(),
    })
}
