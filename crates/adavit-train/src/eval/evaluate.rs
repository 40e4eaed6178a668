//! Evaluation: accuracy, MACs and usage of a model on a set of images.

use std::time::Instant;

use adavit_data::{Batch, Dataset, Labelled, Normalization, batches};
use adavit_decision::{
    BlockKept, BlockUsage, DecisionConfig, Gating, Geometry, Policy, Usage, UsageMeter,
    random_policy,
};
use adavit_gumbel::SeededNoise;
use adavit_model::{
    Capture, ModelConfig, Output, PreparedTransformer, TokenReduction, VisionTransformer, Workspace,
};
use candle_core::{D, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How an image goes through a [`VisionTransformer`].
#[derive(Debug, Clone, Copy)]
pub enum Mode<'a> {
    /// The plain path: everything is computed, no decisions.
    Dense,
    /// The model's own decisions at inference, as factors.
    Masked,
    /// Decisions drawn at random with the given usage of each block.
    Random {
        /// What is kept on average, one entry per block.
        usage: &'a [BlockUsage],
        /// Of the draw.
        seed: u64,
        /// Which draw.
        draw: u64,
    },
    /// The dense path with fewer tokens from block to block. Usage counts the tokens that each
    /// block's MLP computes.
    Reduced(&'a TokenReduction),
}

/// The images to evaluate on, and how they become an input.
#[derive(Debug, Clone, Copy)]
pub struct Images<'a> {
    /// Where they are.
    pub dataset: &'a dyn Labelled,
    /// Which of them.
    pub indices: &'a [u32],
    /// How they are normalised.
    pub normalization: &'a Normalization,
    /// Images per forward.
    pub batch_size: usize,
    /// Where to compute.
    pub device: &'a Device,
}

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
    /// Mean MACs over those of the plain model.
    pub macs_share: f64,
    /// Kept shares.
    pub usage: Usage,
    /// Images per second in the model's forward alone.
    pub images_per_s: f64,
}

/// Checks that the images are of the model's size and have no more classes than it.
pub fn check_images(config: &ModelConfig, dataset: &Dataset) -> Result<()> {
    let [channels, height, width] = dataset.dims();
    let (expected_height, expected_width) = config.img_size;
    let expected = [config.in_chans, expected_height, expected_width];
    if dataset.dims() == expected && dataset.num_classes() <= config.num_classes {
        return Ok(());
    }
    Err(Error::Input(format!(
        "{}: expected {} channels, {expected_height}x{expected_width} pixels and at most {} \
         classes for a model of {}, found {channels}, {height}x{width} and {}; choose other data, \
         or sizes in the [model] table of a configuration",
        dataset.name(),
        config.in_chans,
        config.num_classes,
        config.preset,
        dataset.num_classes(),
    )))
}

/// What an evaluation found of one image.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImageReport<'a> {
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
    pub blocks: &'a [BlockKept],
}

/// Called with what an evaluation found of each image, in order.
pub type OnImage<'a> = &'a mut dyn FnMut(&ImageReport) -> Result<()>;

/// Evaluates `model` on `images`.
///
/// # Errors
/// If there are no images, or a logit is not finite.
pub fn evaluate(model: &VisionTransformer, images: &Images, mode: Mode) -> Result<Evaluation> {
    evaluate_each(model, images, mode, &mut |_| Ok(()))
}

/// As [`evaluate`], telling what was found of each image.
///
/// # Errors
/// As [`evaluate`], or if `on_image` fails.
pub fn evaluate_each(
    model: &VisionTransformer,
    images: &Images,
    mode: Mode,
    on_image: OnImage,
) -> Result<Evaluation> {
    let plain = DecisionConfig::none();
    let reduced = every_block_drops_tokens();
    let decisions = match mode {
        Mode::Dense => &plain,
        Mode::Reduced(_) => &reduced,
        _ => model.config().decisions.as_ref().unwrap_or(&plain),
    };
    let geometry = model.config().geometry();
    let same_macs = match mode {
        Mode::Reduced(reduction) => Some(reduction.macs(model.config())),
        _ => None,
    };
    let run = |batch: &Batch| {
        let output = forward(model, batch, mode)?;
        let logits = output.logits.to_vec2::<f32>()?;
        Ok((logits, output))
    };
    let read = |output: Output, n: usize| match mode {
        Mode::Reduced(reduction) => Ok(vec![reduced_blocks(reduction, &geometry); n]),
        _ => Ok(output.policy().kept(&geometry, n)?),
    };
    let counted = (model.config(), decisions, same_macs);
    evaluate_with(counted, images, run, read, on_image)
}

/// The decisions that a token reduction stands for. The reduction itself counts what it costs.
fn every_block_drops_tokens() -> DecisionConfig {
    DecisionConfig {
        ada_token: true,
        ..DecisionConfig::none()
    }
}

/// What every image keeps of each block under `reduction`, which never drops the class token.
fn reduced_blocks(reduction: &TokenReduction, geometry: &Geometry) -> Vec<BlockKept> {
    let kept = |tokens: &usize| BlockKept {
        patches: tokens - 1,
        ..geometry.all()
    };
    reduction.tokens.iter().map(kept).collect()
}

/// Evaluates a model by the sparse path, telling what was found of each image.
///
/// # Errors
/// As [`evaluate_each`].
pub fn evaluate_sparse(
    model: &PreparedTransformer,
    images: &Images,
    on_image: OnImage,
) -> Result<Evaluation> {
    let plain = DecisionConfig::none();
    let decisions = model.config().decisions.as_ref().unwrap_or(&plain);
    let workspace = std::cell::RefCell::new(Workspace::default());
    let run = |batch: &Batch| {
        let logits = model.forward_sparse(&batch.images, &mut workspace.borrow_mut())?;
        Ok((logits.to_vec2::<f32>()?, ()))
    };
    let read = |(), n: usize| {
        let workspace = workspace.borrow();
        let policy = workspace.policy();
        Ok((0..n).map(|image| policy.image_kept(image)).collect())
    };
    evaluate_with(
        (model.config(), decisions, None),
        images,
        run,
        read,
        on_image,
    )
}

/// Evaluates what `run` gives for a batch: logits, and what `read` turns into the use of each image,
/// which is not timed. Multiply-adds are counted from that, unless they are the same for every image.
fn evaluate_with<O>(
    (config, decisions, same_macs): (&ModelConfig, &DecisionConfig, Option<u64>),
    images: &Images,
    run: impl Fn(&Batch) -> Result<(Vec<Vec<f32>>, O)>,
    read: impl Fn(O, usize) -> Result<Vec<Vec<BlockKept>>>,
    on_image: OnImage,
) -> Result<Evaluation> {
    if images.indices.is_empty() || images.batch_size == 0 {
        return Err(Error::Input(
            "evaluation: expected at least one image and a batch size of at least 1".into(),
        ));
    }
    let geometry = config.geometry();
    let mut meter = UsageMeter::new(decisions, &geometry);
    let (mut top1, mut top5, mut seconds) = (0, 0, 0.0);
    for indices in batches(images.indices, images.batch_size) {
        let batch = images
            .dataset
            .batch(indices, images.normalization, images.device)?;
        let start = Instant::now();
        let (logits, output) = run(&batch)?;
        seconds += start.elapsed().as_secs_f64();
        let used = read(output, indices.len())?;
        let found = logits.iter().zip(batch.labels.to_vec1::<u32>()?).zip(&used);
        for (((logits, label), blocks), image) in found.zip(indices) {
            let rank = rank_of(logits, label as usize)?;
            top1 += usize::from(rank < 1);
            top5 += usize::from(rank < 5);
            let macs = match same_macs {
                Some(macs) => meter.add_counted(blocks, macs)?,
                None => meter.add(blocks)?,
            };
            on_image(&ImageReport {
                image: *image,
                label,
                predicted: highest(logits),
                loss: cross_entropy(logits, label as usize),
                macs,
                blocks,
            })?;
        }
    }
    let n = images.indices.len();
    let mut sorted = meter.macs().to_vec();
    sorted.sort_unstable();
    let percentile = |percent: usize| sorted[(n - 1) * percent / 100];
    Ok(Evaluation {
        images: n,
        top1: top1 as f64 / n as f64,
        top5: top5 as f64 / n as f64,
        macs: meter.mean_macs(),
        macs_std: meter.std_macs(),
        macs_percentiles: [10, 50, 90].map(percentile),
        macs_share: meter.mean_macs() / geometry.dense_macs() as f64,
        usage: meter.usage(),
        images_per_s: n as f64 / seconds.max(1e-9),
    })
}

/// ln(sum of exp(logits)) - the label's logit.
fn cross_entropy(logits: &[f32], label: usize) -> f64 {
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

fn forward(model: &VisionTransformer, batch: &Batch, mode: Mode) -> Result<Output> {
    let capture = Capture::default();
    let output = match mode {
        Mode::Dense => model.forward(&batch.images, capture)?,
        Mode::Reduced(reduction) => {
            Output::of_logits(model.forward_reduced(&batch.images, reduction)?)
        }
        Mode::Masked => model.forward_masked(&batch.images, &mut Gating::Inference, capture)?,
        Mode::Random { usage, seed, draw } => {
            let policy = drawn_policy(model.config(), usage, (seed, draw), &batch.samples)?;
            let policy = policy.to_device(batch.images.device())?;
            model.forward_policy(&batch.images, &policy, capture)?
        }
    };
    Ok(output)
}

/// Random decisions on the images `samples`: one draw, with a seed.
pub fn drawn_policy(
    config: &ModelConfig,
    usage: &[BlockUsage],
    (seed, draw): (u64, u64),
    samples: &[u64],
) -> Result<Policy> {
    let Some(decisions) = &config.decisions else {
        return Err(Error::Input(
            "random policy: expected an adaptive model, found a plain one".into(),
        ));
    };
    // Counted down from the top, where no epoch of training comes.
    let mut noise = SeededNoise::new(seed, u64::MAX - draw, samples);
    Ok(random_policy(
        decisions,
        &config.geometry(),
        usage,
        &mut noise,
        samples.len(),
    )?)
}

/// How many classes have a higher logit than `label`, or the same and a lower number.
fn rank_of(logits: &[f32], label: usize) -> Result<usize> {
    if let Some(&value) = logits.iter().find(|logit| !logit.is_finite()) {
        return Err(adavit_model::Error::NonFiniteLogit { value }.into());
    }
    let Some(&own) = logits.get(label) else {
        return Err(Error::Input(format!(
            "evaluation: expected labels below the model's {} classes, found {label}",
            logits.len()
        )));
    };
    let above = logits.iter().enumerate();
    Ok(above
        .filter(|&(class, &logit)| logit > own || (logit == own && class < label))
        .count())
}

/// Share of rows whose highest logit is at the label; a cheap reading for training batches.
pub(crate) fn batch_top1(logits: &Tensor, labels: &Tensor) -> Result<f64> {
    let predicted = logits.detach().argmax(D::Minus1)?.to_vec1::<u32>()?;
    let labels = labels.to_vec1::<u32>()?;
    let right = predicted
        .iter()
        .zip(&labels)
        .filter(|(a, b)| a == b)
        .count();
    Ok(right as f64 / labels.len().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_of_a_token_reduction_counts_the_tokens_that_ran() {
        let config = ModelConfig::preset("nano_patch7_28").unwrap();
        let geometry = config.geometry();
        let mut tokens = vec![geometry.num_tokens; config.depth];
        *tokens.last_mut().unwrap() = 1 + (geometry.num_tokens - 1) / 4;
        let reduction = TokenReduction {
            method: adavit_model::ReductionMethod::Evit,
            tokens,
        };
        let blocks = reduced_blocks(&reduction, &geometry);
        let mut meter = UsageMeter::new(&every_block_drops_tokens(), &geometry);
        meter.add_counted(&blocks, reduction.macs(&config)).unwrap();
        let usage = meter.usage();
        let last = usage.per_block.last().unwrap();
        assert_eq!((last.tokens, last.attention, last.mlp), (0.25, 1.0, 1.0));
        assert_eq!(usage.per_block[0].tokens, 1.0);
        let mean = (config.depth as f64 - 0.75) / config.depth as f64;
        assert!((usage.tokens - mean).abs() < 1e-12);
    }
}
