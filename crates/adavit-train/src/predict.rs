//! Prediction on files of pictures: decoding goes on beside inference, results come in order, and
//! memory is that of a few batches whatever the number of files.

use std::path::PathBuf;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use adavit_decision::BlockKept;
use adavit_model::{ModelConfig, Normalization, Picture, PreparedTransformer, Workspace};
use candle_core::{Device, Tensor};
use rayon::prelude::*;

use crate::{Error, Result};

/// Batches that are decoded ahead of inference.
const AHEAD: usize = 2;

/// A file, or why there is none at a path.
pub type Found = Result<PathBuf, (PathBuf, String)>;

/// What became of one file.
#[derive(Debug)]
pub struct Prediction {
    /// The file.
    pub path: PathBuf,
    /// What the model says, or why it was not asked.
    pub outcome: Result<Predicted, String>,
}

/// What the model says of one picture, and what that cost.
#[derive(Debug, Clone)]
pub struct Predicted {
    /// Probability of each class: softmax of the logits.
    pub probabilities: Vec<f32>,
    /// `exact` MACs.
    pub macs: u64,
    /// Share of the plain model's MACs that was not spent; below 0 where everything is kept, by what
    /// the decisions cost.
    pub saved: f64,
    /// What was used of each block.
    pub blocks: Vec<BlockKept>,
    /// Which tokens each block kept, class token first.
    pub kept: Vec<Vec<bool>>,
    /// The model's input before it is normalised, `(channels, height, width)`.
    pub pixels: Vec<u8>,
}

impl Predicted {
    /// The `k` likeliest classes and their probabilities, the likeliest first.
    pub fn top(&self, k: usize) -> Vec<(usize, f32)> {
        let mut classes: Vec<(usize, f32)> =
            self.probabilities.iter().copied().enumerate().collect();
        // Stable: of equal ones the lower class first.
        classes.sort_by(|a, b| b.1.total_cmp(&a.1));
        classes.truncate(k);
        classes
    }
}

/// What a prediction came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Predictions {
    /// Pictures that the model was asked about.
    pub predicted: usize,
    /// Files that were skipped.
    pub skipped: usize,
    /// Sum of the MACs.
    pub macs: u64,
    /// From the first file to the last.
    pub seconds: f64,
}

/// A model that is asked about pictures.
#[derive(Debug)]
pub struct Predictor {
    model: PreparedTransformer,
    normalization: Normalization,
    device: Device,
    batch_size: usize,
}

impl Predictor {
    /// Asks `model`, which is on `device`, about `batch_size` pictures at a time.
    ///
    /// # Errors
    /// If the configuration tells no normalization, or `batch_size` is 0.
    pub fn new(model: PreparedTransformer, device: Device, batch_size: usize) -> Result<Self> {
        let Some(normalization) = model.config().normalization.clone() else {
            return Err(Error::Input(
                "the checkpoint's config.json has no normalization: add mean and std of each channel"
                    .into(),
            ));
        };
        if batch_size == 0 {
            return Err(Error::Input(
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

    /// Asks about every file in turn, and calls `on` with what comes of it. A file that is no
    /// picture is told and skipped.
    ///
    /// # Errors
    /// If `on` fails, or the model gives what is no number.
    pub fn predict(
        &self,
        files: impl Iterator<Item = Found> + Send + 'static,
        on: &mut dyn FnMut(&Prediction) -> Result<()>,
    ) -> Result<Predictions> {
        let start = Instant::now();
        let mut totals = Predictions {
            predicted: 0,
            skipped: 0,
            macs: 0,
            seconds: 0.0,
        };
        let mut workspace = Workspace::default();
        let (sender, receiver) = sync_channel(AHEAD);
        let (config, batch_size) = (self.config().clone(), self.batch_size);
        // On its own: where this side fails, it may still be waiting for the next file's name.
        std::thread::spawn(move || {
            let mut files = files.peekable();
            while files.peek().is_some() {
                let batch: Vec<Found> = files.by_ref().take(batch_size).collect();
                let decoded = batch.into_par_iter().map(|file| decode(&config, file));
                if sender.send(decoded.collect::<Vec<Decoded>>()).is_err() {
                    break;
                }
            }
        });
        for batch in receiver {
            for prediction in self.ask(batch, &mut workspace)? {
                match &prediction.outcome {
                    Ok(predicted) => {
                        totals.predicted += 1;
                        totals.macs += predicted.macs;
                    }
                    Err(_) => totals.skipped += 1,
                }
                on(&prediction)?;
            }
        }
        totals.seconds = start.elapsed().as_secs_f64();
        Ok(totals)
    }

    /// The predictions for a decoded batch, in its order.
    fn ask(&self, batch: Vec<Decoded>, workspace: &mut Workspace) -> Result<Vec<Prediction>> {
        let inputs: Vec<f32> = batch
            .iter()
            .filter_map(|(_, pixels)| pixels.as_ref().ok())
            .flat_map(|pixels| self.normalization.apply(pixels))
            .collect();
        let config = self.config();
        let (height, width) = config.img_size;
        let b = inputs.len() / (config.in_chans * height * width);
        let shape = (b, config.in_chans, height, width);
        let images = Tensor::from_vec(inputs, shape, &self.device)?;
        let logits = self.model.forward_sparse(&images, workspace)?;
        let mut rows = logits.to_vec2::<f32>()?.into_iter().enumerate();
        let policy = workspace.policy();
        let plain = adavit_decision::DecisionConfig::none();
        let decisions = config.decisions.as_ref().unwrap_or(&plain);
        let geometry = config.geometry();
        let mut next = |pixels: Vec<u8>| -> Result<Predicted> {
            let Some((image, logits)) = rows.next() else {
                return Err(Error::Input("fewer logits than pictures".into()));
            };
            let blocks = policy.image_kept(image);
            let macs = geometry.image_macs(decisions, &blocks);
            let kept = (0..policy.depth()).map(|block| policy.tokens(block, image).to_vec());
            Ok(Predicted {
                probabilities: softmax(&logits)?,
                macs,
                saved: 1.0 - macs as f64 / geometry.dense_macs() as f64,
                kept: kept.collect(),
                blocks,
                pixels,
            })
        };
        batch
            .into_iter()
            .map(|(path, pixels)| {
                let outcome = match pixels {
                    Ok(pixels) => Ok(next(pixels)?),
                    Err(message) => Err(message),
                };
                Ok(Prediction { path, outcome })
            })
            .collect()
    }
}

fn decode(config: &ModelConfig, file: Found) -> Decoded {
    let path = match file {
        Ok(path) => path,
        Err((path, message)) => return (path, Err(message)),
    };
    if path.is_dir() {
        return (path, Err("a folder, not a picture".into()));
    }
    let pixels = std::fs::read(&path)
        .map_err(|error| error.to_string())
        // One file that a decoder fails on must not end the others.
        .and_then(|bytes| {
            std::panic::catch_unwind(|| Picture::decode(&bytes, config.in_chans))
                .unwrap_or_else(|_| Err("the decoder failed on it".into()))
        })
        .and_then(|picture| config.pixels(picture).map_err(|error| error.to_string()));
    (path, pixels)
}

/// A file's path and its pixels.
type Decoded = (PathBuf, Result<Vec<u8>, String>);

fn softmax(logits: &[f32]) -> Result<Vec<f32>> {
    if let Some(value) = logits.iter().copied().find(|logit| !logit.is_finite()) {
        return Err(Error::Unusable { value });
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
        let predicted = Predicted {
            probabilities: softmax(&[1.0, 3.0, 3.0, -90.0]).unwrap(),
            macs: 0,
            saved: 0.0,
            blocks: Vec::new(),
            kept: Vec::new(),
            pixels: Vec::new(),
        };
        let sum: f32 = predicted.probabilities.iter().sum();
        assert!((sum - 1.0).abs() < 1e-6);
        let classes: Vec<usize> = predicted.top(3).iter().map(|(class, _)| *class).collect();
        assert_eq!(classes, [1, 2, 0]);
        assert!(softmax(&[f32::NAN]).is_err());
    }
}
