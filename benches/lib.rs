//! What the benches share: models and images made from a seed, and those that ship with the
//! repository.

pub mod curve;
pub mod shipped;

use adavit_decision::DecisionConfig;
use adavit_model::{Checkpoint, ModelConfig, VisionTransformer, initial_tensors};
use anyhow::Result;
use candle_core::{Device, Tensor};

/// The adaptive model of a preset with initial weights.
///
/// # Errors
/// If there is no such preset.
pub fn adaptive_model(preset: &str) -> Result<VisionTransformer> {
    let config = ModelConfig::preset(preset)?.with_decisions(DecisionConfig::default());
    // Logits around 0: about half of the gates are on, and they differ between images.
    let tensors = initial_tensors(&config, 0, 0.0)?;
    Ok(Checkpoint { config, tensors }.model(&Device::Cpu)?)
}

/// A batch of images that all differ, `(B, in_chans, height, width)`.
///
/// # Errors
/// If candle fails.
pub fn images(config: &ModelConfig, batch: usize) -> Result<Tensor> {
    let (height, width) = config.img_size;
    numbers(&[batch, config.in_chans, height, width])
}

/// Numbers around zero that all differ.
///
/// # Errors
/// If candle fails.
pub fn numbers(shape: &[usize]) -> Result<Tensor> {
    let n: usize = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

/// Sets the threads of every pool to all processors, as the program does: the first call of a bench,
/// before any pool exists.
///
/// # Panics
/// If a pool exists already.
pub fn set_threads() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    adavit_kernels::set_threads(threads).expect("the first call of the process");
}

/// Prints a line to standard error.
#[expect(clippy::print_stderr, reason = "a bench talks to people")]
pub fn print_note(text: &str) {
    eprintln!("{text}");
}
