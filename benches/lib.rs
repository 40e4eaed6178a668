//! What the benches share: models and images made from a seed, no file read.

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

/// A batch of images that are no two alike, `(B, in_chans, height, width)`.
///
/// # Errors
/// If candle fails.
pub fn images(config: &ModelConfig, batch: usize) -> Result<Tensor> {
    let (height, width) = config.img_size;
    let n = batch * config.in_chans * height * width;
    let values: Vec<f32> = (0..n).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
    let shape = (batch, config.in_chans, height, width);
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}
