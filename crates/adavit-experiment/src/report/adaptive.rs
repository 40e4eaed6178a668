//! The adaptive model of a run on the test images: what it found of each, and what it keeps of some.

use std::path::Path;

use adavit_data::{Labelled, Normalization, all_indices, make_batch};
use adavit_model::{Checkpoint, ModelConfig, PreparedTransformer, Workspace};
use adavit_train::{ClassTable, Evaluation, Evaluator, Images, TrainConfig};
use candle_core::Device;
use image::RgbImage;

use crate::error::Result;
use crate::report::overlay::{Overlay, draw_overlay, draw_picture};
use crate::report::statistics::dense_losses;

/// What an evaluation found of one image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    image: u32,
    label: u32,
    predicted: u32,
    loss: f64,
    macs: u64,
}

/// Whether images of a model can be drawn: grey ones, and those in colour.
pub(super) fn drawable(config: &ModelConfig) -> bool {
    matches!(config.in_chans, 1 | 3)
}

/// The adaptive model and what it does with the test images.
pub(super) struct AdaptiveResults<'d> {
    model: PreparedTransformer,
    test: &'d dyn Labelled,
    normalization: Normalization,
    device: Device,
    batch_size: usize,
    pub(super) evaluation: Evaluation,
    records: Vec<Record>,
    pub(super) classes: ClassTable,
}

impl<'d> AdaptiveResults<'d> {
    /// An adaptive model, on the test images of its run.
    pub(super) fn evaluated(
        checkpoint: &Checkpoint,
        config: &TrainConfig,
        test: &'d dyn Labelled,
        device: &Device,
    ) -> Result<Self> {
        let model = checkpoint.prepared(device)?;
        let normalization = checkpoint.config.normalization_for(test)?;
        let indices = all_indices(test);
        let images = Images {
            dataset: test,
            indices: &indices,
            normalization: &normalization,
            batch_size: config.eval_batch_size,
            device,
        };
        let mut records = Vec::new();
        let mut classes = ClassTable::new(checkpoint.config.num_classes);
        let mut evaluator = Evaluator::prepared(&model, &images)?;
        for batch in &mut evaluator {
            for image in batch? {
                classes.add(image.label, image.predicted, image.macs);
                records.push(Record {
                    image: image.image,
                    label: image.label,
                    predicted: image.predicted,
                    loss: image.loss,
                    macs: image.macs,
                });
            }
        }
        let evaluation = evaluator.finish()?;
        Ok(Self {
            model,
            test,
            normalization,
            device: device.clone(),
            batch_size: config.eval_batch_size,
            evaluation,
            records,
            classes,
        })
    }

    pub(super) fn config(&self) -> &ModelConfig {
        self.model.config()
    }

    /// MACs of an image by the dense model.
    pub(super) fn dense_macs(&self) -> f64 {
        self.config().geometry().dense_macs() as f64
    }

    pub(super) fn class_name(&self, class: usize) -> String {
        let name = self.test.class_names().get(class);
        name.map_or_else(|| class.to_string(), String::clone)
    }

    /// How many classes the data have.
    pub(super) fn num_classes_of_data(&self) -> usize {
        self.test.class_names().len()
    }

    /// Multiply-adds, image by image.
    pub(super) fn macs(&self) -> Vec<f64> {
        let records = self.records.iter();
        records.map(|record| record.macs as f64).collect()
    }

    /// The dense model's loss, image by image.
    pub(super) fn dense_losses(&self, run: &Path) -> Result<Vec<f64>> {
        let checkpoint = run.join("dense");
        dense_losses(&checkpoint, self.test, self.batch_size, &self.device)
    }

    /// The images of the least and of the greatest of `values`, which has one value for each image.
    pub(super) fn extremes(&self, count: usize, values: &[f64]) -> Extremes {
        extremes(&self.records, count, values)
    }

    /// How many images are classified wrongly.
    pub(super) fn mistakes(&self) -> usize {
        let records = self.records.iter();
        records.filter(|record| !record.correct()).count()
    }

    /// The wrong predictions with the greatest loss, the greatest first.
    pub(super) fn worst_mistakes(&self, count: usize) -> Vec<Record> {
        worst_mistakes(&self.records, count)
    }

    /// The pixels of a test image.
    fn pixels(&self, image: u32) -> Result<Vec<u8>> {
        let mut pixels = vec![0; self.test.dims().iter().product()];
        self.test.pixels(image as usize, None, &mut pixels)?;
        Ok(pixels)
    }

    /// Puts some images through the model once more, to see what it keeps of them.
    pub(super) fn replay<'a>(&'a self, records: &'a [Record]) -> Result<Replay<'a>> {
        let mut workspace = Workspace::default();
        let mut probabilities = Vec::new();
        if !records.is_empty() {
            let indices: Vec<u32> = records.iter().map(|record| record.image).collect();
            let batch = make_batch(self.test, &indices, None, &self.normalization, &self.device)?;
            let logits = self.model.forward_sparse(&batch.images, &mut workspace)?;
            let logits = logits.to_vec2::<f32>()?;
            probabilities = logits.iter().map(|logits| softmax(logits)).collect();
        }
        let pixels = records.iter().map(|record| self.pixels(record.image));
        Ok(Replay {
            results: self,
            records,
            pixels: pixels.collect::<Result<_>>()?,
            probabilities,
            workspace,
        })
    }
}

impl Record {
    fn correct(&self) -> bool {
        self.label == self.predicted
    }
}

/// Images at both ends of an order.
#[derive(Debug, Clone)]
pub(super) struct Extremes {
    /// Those of the least values, the least first.
    pub(super) least: Vec<Record>,
    /// Those of the greatest values, the greatest first.
    pub(super) most: Vec<Record>,
}

fn extremes(records: &[Record], count: usize, values: &[f64]) -> Extremes {
    let mut sorted: Vec<(f64, Record)> = values
        .iter()
        .copied()
        .zip(records.iter().copied())
        .collect();
    sorted.sort_by(|(x, a), (y, b)| x.total_cmp(y).then(a.image.cmp(&b.image)));
    let records = sorted.iter().map(|(_, record)| *record);
    Extremes {
        least: records.clone().take(count).collect(),
        most: records.rev().take(count).collect(),
    }
}

fn worst_mistakes(records: &[Record], count: usize) -> Vec<Record> {
    let records = records.iter().filter(|record| !record.correct());
    let mut wrong: Vec<Record> = records.copied().collect();
    wrong.sort_by(|a, b| b.loss.total_cmp(&a.loss).then(a.image.cmp(&b.image)));
    wrong.truncate(count);
    wrong
}

fn softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers = logits.iter().map(|logit| f64::from(logit - most).exp());
    let sum: f64 = powers.clone().sum();
    powers.map(|power| power / sum).collect()
}

/// Some images that went through the model together.
pub(super) struct Replay<'a> {
    results: &'a AdaptiveResults<'a>,
    records: &'a [Record],
    /// Of each image, `(channels, height, width)`.
    pixels: Vec<Vec<u8>>,
    /// Of every class, image by image.
    probabilities: Vec<Vec<f64>>,
    workspace: Workspace,
}

/// What the model says of an image, and what that costs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub(super) label: String,
    pub(super) predicted: String,
    /// Of the predicted class.
    pub(super) probability: f64,
    pub(super) label_probability: f64,
    pub(super) correct: bool,
    /// MACs over the dense model's.
    pub(super) macs_share: f64,
}

impl Replay<'_> {
    /// What the model says of each image.
    pub(super) fn answers(&self) -> impl Iterator<Item = Answer> {
        let records = self.records.iter().zip(&self.probabilities);
        records.map(|(record, probabilities)| {
            let of = |class: u32| probabilities.get(class as usize).copied();
            Answer {
                label: self.results.class_name(record.label as usize),
                predicted: self.results.class_name(record.predicted as usize),
                probability: of(record.predicted).unwrap_or(0.0),
                label_probability: of(record.label).unwrap_or(0.0),
                correct: record.correct(),
                macs_share: record.macs as f64 / self.results.dense_macs(),
            }
        })
    }

    /// The picture of the image at a place, with what each block keeps of it.
    pub(super) fn overlay(&self, place: usize, caption: &[String]) -> RgbImage {
        let policy = self.workspace.policy();
        let kept: Vec<Vec<bool>> = (0..policy.depth())
            .map(|block| policy.tokens(block, place).to_vec())
            .collect();
        let blocks = policy.image_kept(place);
        draw_overlay(&Overlay {
            blocks: &blocks,
            kept: &kept,
            caption,
            ..self.bare(place)
        })
    }

    /// The picture of the image at a place.
    pub(super) fn picture(&self, place: usize) -> RgbImage {
        draw_picture(&self.bare(place))
    }

    fn bare(&self, place: usize) -> Overlay<'_> {
        let config = self.results.config();
        Overlay {
            pixels: &self.pixels[place],
            size: config.img_size,
            grid: config.grid(),
            num_prefix_tokens: config.num_prefix_tokens(),
            blocks: &[],
            kept: &[],
            caption: &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(image: u32, label: u32, loss: f64) -> Record {
        Record {
            image,
            label,
            predicted: 0,
            loss,
            macs: 1,
        }
    }

    fn images(records: &[Record]) -> Vec<u32> {
        records.iter().map(|record| record.image).collect()
    }

    #[test]
    fn the_least_come_first_of_the_least_and_the_greatest_of_the_greatest() {
        let records = [3, 1, 2, 0].map(|image| record(image, 0, 0.0));
        let Extremes { least, most } = extremes(&records, 2, &[0.5, 0.1, 0.9, 0.1]);
        assert_eq!((images(&least), images(&most)), (vec![0, 1], vec![2, 3]));
    }

    #[test]
    fn the_worst_mistakes_are_wrong_and_have_the_greatest_loss() {
        let records = [
            record(0, 0, 9.0),
            record(1, 1, 2.0),
            record(2, 2, 5.0),
            record(3, 1, 3.0),
        ];
        assert_eq!(images(&worst_mistakes(&records, 2)), [2, 3]);
        assert_eq!(images(&worst_mistakes(&records, 9)), [2, 3, 1]);
    }

    #[test]
    fn probabilities_of_all_classes_sum_to_one() {
        let found = softmax(&[1000.0, 1000.0, -1000.0]);
        assert_eq!(found, [0.5, 0.5, 0.0]);
    }
}
