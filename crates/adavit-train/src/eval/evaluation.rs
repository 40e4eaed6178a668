//! What an evaluation reports, of each image and of all of them.

use adavit_decision::{BlockKept, Usage, UsageMeter};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What an evaluation found, over all its images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// How many images.
    pub images: usize,
    /// Share of images whose label has the highest logit.
    pub top1: f64,
    /// Share of images whose label is among the five highest logits.
    pub top5: f64,
    /// Mean `exact` MACs of an image.
    pub macs: f64,
    /// Standard deviation of the MACs over images.
    pub macs_std: f64,
    /// The MACs that 10 % of the images stay below, that half of them do, and that 90 % do.
    #[serde(default)]
    pub macs_percentiles: [u64; 3],
    /// The most MACs of any image.
    #[serde(default)]
    pub macs_max: u64,
    /// Mean MACs over those of the dense model.
    pub macs_share: f64,
    /// Kept shares. With token reduction, `tokens` are those that a block's MLP computes.
    pub usage: Usage,
    /// Images per second in the model's forward alone, median over batches.
    pub images_per_s: f64,
}

/// What an evaluation found of one image.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImageReport {
    /// The image's number in its set.
    pub image: u32,
    /// Its class.
    pub label: u32,
    /// The class with the highest logit.
    pub predicted: u32,
    /// Cross entropy with its class.
    pub loss: f64,
    /// `exact` MACs.
    pub macs: u64,
    /// What was used of each block.
    pub blocks: Vec<BlockKept>,
}

/// Returns the median of one value or more.
///
/// # Panics
/// If there is no value.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    f64::midpoint(values[middle], values[values.len() - 1 - middle])
}

/// What is counted image by image.
#[derive(Debug)]
pub(super) struct Counts {
    meter: UsageMeter,
    dense_macs: u64,
    top1: usize,
    top5: usize,
    /// Of each batch.
    seconds_per_image: Vec<f64>,
}

/// The answer of a model to one image.
pub(super) struct Answer {
    pub(super) image: u32,
    pub(super) label: u32,
    pub(super) logits: Vec<f32>,
    /// What was used of each block.
    pub(super) blocks: Vec<BlockKept>,
    /// MACs, if they are not counted from `blocks`.
    pub(super) macs: Option<u64>,
}

impl Counts {
    pub(super) fn new(meter: UsageMeter, dense_macs: u64) -> Self {
        Self {
            meter,
            dense_macs,
            top1: 0,
            top5: 0,
            seconds_per_image: Vec::new(),
        }
    }

    pub(super) fn add_time(&mut self, seconds: f64, images: usize) {
        self.seconds_per_image.push(seconds / images as f64);
    }

    pub(super) fn add(&mut self, answer: Answer) -> Result<ImageReport> {
        let Answer {
            image,
            label,
            logits,
            blocks,
            macs,
        } = answer;
        let rank = rank_of(&logits, label as usize)?;
        self.top1 += usize::from(rank < 1);
        self.top5 += usize::from(rank < 5);
        let macs = match macs {
            Some(macs) => self.meter.add_counted(&blocks, macs)?,
            None => self.meter.add(&blocks)?,
        };
        Ok(ImageReport {
            image,
            label,
            predicted: highest(&logits),
            loss: cross_entropy(&logits, label as usize),
            macs,
            blocks,
        })
    }

    /// The evaluation of the images so far, at least one.
    /// # Errors
    /// If no image could be read.
    pub(super) fn evaluation(mut self) -> Result<Evaluation> {
        let n = self.meter.macs().len();
        if n == 0 {
            let message = "evaluation: none of the images could be read";
            return Err(Error::Mismatch(message.into()));
        }
        let mut sorted = self.meter.macs().to_vec();
        sorted.sort_unstable();
        let percentile = |percent: usize| sorted[(n - 1) * percent / 100];
        let seconds = median(&mut self.seconds_per_image);
        Ok(Evaluation {
            images: n,
            top1: self.top1 as f64 / n as f64,
            top5: self.top5 as f64 / n as f64,
            macs: self.meter.mean_macs(),
            macs_std: self.meter.std_macs(),
            macs_percentiles: [10, 50, 90].map(percentile),
            macs_max: sorted[n - 1],
            macs_share: self.meter.mean_macs() / self.dense_macs as f64,
            usage: self.meter.usage(),
            images_per_s: seconds.max(1e-12).recip(),
        })
    }
}

/// ln(sum of exp(logits)) - the label's logit.
pub(super) fn cross_entropy(logits: &[f32], label: usize) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits
        .iter()
        .map(|logit| f64::from(logit - most).exp())
        .sum();
    sum.ln() - f64::from(logits[label] - most)
}

/// The class with the highest logit, the first of equal ones.
fn highest(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (class, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = class;
        }
    }
    best as u32
}

/// How many classes have a higher logit than `label`, or the same and a lower number.
pub(super) fn rank_of(logits: &[f32], label: usize) -> Result<usize> {
    if let Some(&value) = logits.iter().find(|logit| !logit.is_finite()) {
        return Err(adavit_model::Error::NonFiniteLogit { value }.into());
    }
    let Some(&own) = logits.get(label) else {
        return Err(Error::Mismatch(format!(
            "evaluation: expected labels below the model's {} classes, found {label}",
            logits.len()
        )));
    };
    let above = logits.iter().enumerate();
    Ok(above
        .filter(|&(class, &logit)| logit > own || (logit == own && class < label))
        .count())
}
