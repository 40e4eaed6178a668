//! Prediction on pictures: logits, probabilities and MACs of each, in order, a batch at a time.

use std::path::PathBuf;

use adavit_data::{DecodedPicture, Normalization};
use adavit_decision::{Allowance, BlockKept};
use candle_core::{Device, Tensor};

use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::prepared::{PreparedTransformer, Workspace};

/// What became of one file.
#[derive(Debug)]
pub struct Prediction {
    /// The file.
    pub path: PathBuf,
    /// What the model predicts, or why the file was skipped.
    pub outcome: Result<PredictionOutcome, String>,
}

/// What the model predicts for one picture, and what that cost.
#[derive(Debug, Clone)]
pub struct PredictionOutcome {
    /// Probability of each class: softmax of the logits.
    pub probabilities: Vec<f32>,
    /// `exact` MACs.
    pub macs: u64,
    /// Share of the dense model's MACs that was not spent; below 0 where everything is kept, by what
    /// the decisions cost.
    pub saved: f64,
    /// What was used of each block.
    pub blocks: Vec<BlockKept>,
    /// Which tokens each block kept, class token first.
    pub kept: Vec<Vec<bool>>,
    /// The model's input before it is normalised, `(channels, height, width)`.
    pub pixels: Vec<u8>,
}

/// A class and its probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassProbability {
    /// The class's number.
    pub class: usize,
    /// Its probability, in [0, 1].
    pub probability: f32,
}

impl PredictionOutcome {
    /// The `k` likeliest classes, the likeliest first; of equal ones the lower class first.
    pub fn top(&self, k: usize) -> Vec<ClassProbability> {
        let probabilities = self.probabilities.iter().copied().enumerate();
        let mut classes: Vec<ClassProbability> = probabilities
            .map(|(class, probability)| ClassProbability { class, probability })
            .collect();
        // Stable, so that equal ones stay in order.
        classes.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        classes.truncate(k);
        classes
    }
}

/// A model that predicts what pictures show.
#[derive(Debug)]
pub struct Predictor {
    model: PreparedTransformer,
    normalization: Normalization,
    device: Device,
    batch_size: usize,
}

impl Predictor {
    /// Predicts with `model`, which is on `device`, for `batch_size` pictures at a time.
    ///
    /// # Errors
    /// If the configuration has no normalization, or `batch_size` is 0.
    pub fn new(model: PreparedTransformer, device: Device, batch_size: usize) -> Result<Self> {
        let Some(normalization) = model.config().normalization.clone() else {
            return Err(Error::Config(
                "the checkpoint's config.json has no normalization: add mean and std of each channel"
                    .into(),
            ));
        };
        if batch_size == 0 {
            return Err(Error::Config(
                "batch size: expected at least 1, found 0".into(),
            ));
        }
        Ok(Self {
            model,
            normalization,
            device,
            batch_size,
        })
    }

    /// What the model is made of.
    pub fn config(&self) -> &ModelConfig {
        self.model.config()
    }

    /// As [`Self::predict_within`] without a limit.
    pub fn predict(
        &self,
        pictures: impl Iterator<Item = DecodedPicture>,
    ) -> impl Iterator<Item = Result<Prediction>> {
        self.predict_within(pictures, Allowance::default())
    }

    /// Predicts for every picture, in order, within `allowance`; one that could not be decoded is an item that says so.
    ///
    /// It takes a batch of pictures at a time, so memory does not grow with their number. The first
    /// error ends it.
    ///
    /// # Errors
    /// An item is an error if a logit is not finite, the model cannot keep to the allowance, or
    /// candle fails.
    pub fn predict_within(
        &self,
        pictures: impl Iterator<Item = DecodedPicture>,
        allowance: Allowance,
    ) -> impl Iterator<Item = Result<Prediction>> {
        let mut pictures = pictures;
        let mut workspace = Workspace::default();
        let batches = std::iter::from_fn(move || {
            let batch: Vec<DecodedPicture> = pictures.by_ref().take(self.batch_size).collect();
            if batch.is_empty() {
                return None;
            }
            Some(self.predict_batch(batch, &allowance, &mut workspace))
        });
        let mut failed = false;
        batches
            .take_while(move |batch| !std::mem::replace(&mut failed, batch.is_err()))
            .flat_map(|batch| match batch {
                Ok(predictions) => predictions.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            })
    }

    /// The predictions of a batch, in its order.
    fn predict_batch(
        &self,
        batch: Vec<DecodedPicture>,
        allowance: &Allowance,
        workspace: &mut Workspace,
    ) -> Result<Vec<Prediction>> {
        let inputs: Vec<f32> = batch
            .iter()
            .filter_map(|picture| picture.pixels.as_ref().ok())
            .flat_map(|pixels| self.normalization.apply(pixels))
            .collect();
        let config = self.config();
        let (height, width) = config.img_size;
        let b = inputs.len() / (config.in_chans * height * width);
        let shape = (b, config.in_chans, height, width);
        let images = Tensor::from_vec(inputs, shape, &self.device)?;
        let logits = self
            .model
            .forward_sparse_within(&images, allowance, workspace)?;
        let mut rows = logits.to_vec2::<f32>()?.into_iter().enumerate();
        let predictions = batch.into_iter().map(|DecodedPicture { path, pixels }| {
            let outcome = match pixels {
                Ok(pixels) => Ok(match rows.next() {
                    Some((image, logits)) => self.outcome(pixels, image, &logits, workspace)?,
                    None => return Err(Error::Config("fewer logits than pictures".into())),
                }),
                Err(message) => Err(message),
            };
            Ok(Prediction { path, outcome })
        });
        predictions.collect()
    }

    /// The outcome of the image that was number `image` in the batch that went through last.
    fn outcome(
        &self,
        pixels: Vec<u8>,
        image: usize,
        logits: &[f32],
        workspace: &Workspace,
    ) -> Result<PredictionOutcome> {
        let config = self.config();
        let policy = workspace.policy();
        let decisions = config.decisions_or_none();
        let geometry = config.geometry();
        let blocks = policy.image_kept(image);
        let macs = geometry.image_macs(&decisions, &blocks);
        let kept = (0..policy.depth()).map(|block| policy.tokens(block, image).to_vec());
        Ok(PredictionOutcome {
            probabilities: softmax(logits)?,
            macs,
            saved: 1.0 - macs as f64 / geometry.dense_macs() as f64,
            kept: kept.collect(),
            blocks,
            pixels,
        })
    }
}

fn softmax(logits: &[f32]) -> Result<Vec<f32>> {
    if let Some(value) = logits.iter().copied().find(|logit| !logit.is_finite()) {
        return Err(Error::NonFiniteLogit { value });
    }
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = logits.iter().map(|logit| (logit - top).exp()).collect();
    let sum: f32 = powers.iter().sum();
    Ok(powers.into_iter().map(|power| power / sum).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_and_the_likeliest_comes_first() {
        let outcome = PredictionOutcome {
            probabilities: softmax(&[1.0, 3.0, 3.0, -90.0]).unwrap(),
            macs: 0,
            saved: 0.0,
            blocks: Vec::new(),
            kept: Vec::new(),
            pixels: Vec::new(),
        };
        let sum: f32 = outcome.probabilities.iter().sum();
        assert!((sum - 1.0).abs() < 1e-6);
        let classes: Vec<usize> = outcome.top(3).iter().map(|top| top.class).collect();
        assert_eq!(classes, [1, 2, 0]);
        assert!(softmax(&[f32::NAN]).is_err());
    }
}
