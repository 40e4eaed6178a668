//! Evaluation: accuracy, MACs, usage and speed of a model on a set of images.
//!
//! An [`Evaluator`] goes through the images batch by batch, so that a large set needs no more memory
//! than a small one. Several of them take turns, so that their speeds compare.

use std::time::Instant;

use adavit_data::{Batch, Broken, Skipped, batches, make_batch, make_readable_batch};
use adavit_decision::{Allowance, BlockKept, DecisionConfig, Geometry, UsageMeter};
use adavit_model::{PreparedTransformer, VisionTransformer, Workspace};
use candle_core::{D, Tensor};

use crate::error::{Error, Result};
use crate::eval::evaluation::{Answer, Counts, Evaluation, ImageReport};
use crate::eval::images::Images;
use crate::eval::mode::Mode;

/// An evaluation in progress: an iterator over batches, of what was found of each image, in order.
///
/// ```text
/// let mut evaluator = Evaluator::prepared(&model, &images)?;
/// for batch in &mut evaluator {
///     for image in batch? { ... }
/// }
/// let evaluation = evaluator.finish()?;
/// ```
#[derive(Debug)]
pub struct Evaluator<'a> {
    forward: Forward<'a>,
    images: Images<'a>,
    geometry: Geometry,
    batches: std::slice::Chunks<'a, u32>,
    /// Whether the first batch runs once more before it is timed.
    warm_up: bool,
    broken: Broken,
    skipped: Vec<Skipped>,
    counts: Counts,
    /// What each forward allows its images.
    allowance: Allowance,
}

/// The path of the images.
#[derive(Debug)]
enum Forward<'a> {
    Composed(&'a VisionTransformer, Mode<'a>),
    Dense(&'a PreparedTransformer, Workspace),
    Sparse(&'a PreparedTransformer, Workspace),
}

/// What a forward gives for a batch.
struct Found {
    logits: Vec<Vec<f32>>,
    used: Vec<Vec<BlockKept>>,
    seconds: f64,
}

impl<'a> Evaluator<'a> {
    /// Begins an evaluation by candle's operations.
    ///
    /// # Errors
    /// [`Error::Setting`] if there are no images, or the batch size is 0.
    pub fn new(model: &'a VisionTransformer, images: &Images<'a>, mode: Mode<'a>) -> Result<Self> {
        let config = model.config();
        let (geometry, decisions) = (config.geometry(), mode.decisions(config));
        Self::of(Forward::Composed(model, mode), images, geometry, &decisions)
    }

    /// Begins an evaluation by the fastest path: an adaptive model computes what it keeps, a dense
    /// model computes everything.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn prepared(model: &'a PreparedTransformer, images: &Images<'a>) -> Result<Self> {
        let config = model.config();
        let geometry = config.geometry();
        let workspace = Workspace::default();
        if let Some(decisions) = &config.decisions {
            let forward = Forward::Sparse(model, workspace);
            Self::of(forward, images, geometry, decisions)
        } else {
            let forward = Forward::Dense(model, workspace);
            Self::of(forward, images, geometry, &DecisionConfig::none())
        }
    }

    fn of(
        forward: Forward<'a>,
        images: &Images<'a>,
        geometry: Geometry,
        decisions: &DecisionConfig,
    ) -> Result<Self> {
        if images.indices.is_empty() || images.batch_size == 0 {
            return Err(Error::Setting(
                "evaluation: expected at least one image and a batch size of at least 1".into(),
            ));
        }
        let meter = UsageMeter::new(decisions, &geometry);
        Ok(Self {
            forward,
            images: *images,
            batches: batches(images.indices, images.batch_size),
            warm_up: false,
            broken: Broken::Stop,
            skipped: Vec::new(),
            counts: Counts::new(meter, geometry.dense_macs()),
            geometry,
            allowance: Allowance::default(),
        })
    }

    /// Allows each image what `allowance` says.
    ///
    /// # Errors
    /// If the model cannot keep to it, or does not decide by its own networks.
    pub fn within(self, allowance: Allowance) -> Result<Self> {
        let config = match self.forward {
            Forward::Dense(model, _) | Forward::Sparse(model, _) => model.config(),
            Forward::Composed(model, Mode::Masked) => model.config(),
            Forward::Composed(_, mode) if allowance != Allowance::default() => {
                return Err(Error::Setting(format!(
                    "allowance: expected a model that decides by its own networks, found the mode \
                     {mode:?}"
                )));
            }
            Forward::Composed(model, _) => model.config(),
        };
        config.check_allowance(&allowance)?;
        Ok(Self { allowance, ..self })
    }

    /// Leaves out images that cannot be read, rather than ending with an error.
    #[must_use]
    pub fn skipping_broken(self) -> Self {
        Self {
            broken: Broken::Skip,
            ..self
        }
    }

    /// Returns the images that were left out so far.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Evaluates the images that are left, and returns what was found of all.
    ///
    /// # Errors
    /// If an image cannot be read, or a logit is not finite.
    pub fn finish(mut self) -> Result<Evaluation> {
        for batch in &mut self {
            batch?;
        }
        self.counts.evaluation()
    }

    fn evaluate_batch(&mut self, indices: &[u32]) -> Result<Vec<ImageReport>> {
        let Images {
            dataset,
            normalization,
            device,
            ..
        } = self.images;
        let mut batch = match self.broken {
            Broken::Stop => make_batch(dataset, indices, None, normalization, device)?,
            Broken::Skip => make_readable_batch(dataset, indices, normalization, device)?,
        };
        self.skipped.append(&mut batch.skipped);
        if batch.samples.is_empty() {
            return Ok(Vec::new());
        }
        if std::mem::take(&mut self.warm_up) {
            self.forward.run(&batch, &self.geometry, &self.allowance)?;
        }
        let found = self.forward.run(&batch, &self.geometry, &self.allowance)?;
        self.counts.add_time(found.seconds, batch.samples.len());
        let macs = self.forward.same_macs();
        let labels = batch.labels.to_vec1::<u32>()?;
        let answers = found.logits.into_iter().zip(found.used);
        let images = batch.samples.iter().zip(labels).zip(answers);
        images
            .map(|((image, label), (logits, blocks))| {
                self.counts.add(Answer {
                    image: *image as u32,
                    label,
                    logits,
                    blocks,
                    macs,
                })
            })
            .collect()
    }
}

impl Iterator for Evaluator<'_> {
    type Item = Result<Vec<ImageReport>>;

    fn next(&mut self) -> Option<Self::Item> {
        let indices = self.batches.next()?;
        Some(self.evaluate_batch(indices))
    }
}

impl Forward<'_> {
    /// The answers to a batch. Reading what was used is not timed.
    fn run(&mut self, batch: &Batch, geometry: &Geometry, allowance: &Allowance) -> Result<Found> {
        let n = batch.samples.len();
        let start = Instant::now();
        let logits = |logits: Tensor| logits.to_vec2::<f32>();
        let (logits, seconds, used) = match self {
            Self::Composed(model, mode) => {
                let output = mode.forward(model, batch, allowance)?;
                let logits = logits(output.logits.clone())?;
                let seconds = start.elapsed().as_secs_f64();
                (logits, seconds, mode.used(&output, n, geometry)?)
            }
            Self::Dense(model, workspace) => {
                let logits = logits(model.forward_dense(&batch.images, workspace)?)?;
                (logits, start.elapsed().as_secs_f64(), used(workspace, n))
            }
            Self::Sparse(model, workspace) => {
                let found = model.forward_sparse_within(&batch.images, allowance, workspace)?;
                let logits = logits(found)?;
                (logits, start.elapsed().as_secs_f64(), used(workspace, n))
            }
        };
        Ok(Found {
            logits,
            used,
            seconds,
        })
    }

    /// The MACs of an image, where they are the same for every image and no decision counts them.
    fn same_macs(&self) -> Option<u64> {
        match self {
            Self::Composed(model, Mode::Reduced(reduction)) => Some(reduction.macs(model.config())),
            _ => None,
        }
    }
}

/// What each of the `n` images of the last forward used of each block.
fn used(workspace: &Workspace, n: usize) -> Vec<Vec<BlockKept>> {
    let policy = workspace.policy();
    (0..n).map(|image| policy.image_kept(image)).collect()
}

/// Evaluates `model` on `images` by candle's operations.
///
/// # Errors
/// If there are no images, one cannot be read, or a logit is not finite.
pub fn evaluate(model: &VisionTransformer, images: &Images, mode: Mode) -> Result<Evaluation> {
    Evaluator::new(model, images, mode)?.finish()
}

/// Evaluates `model` on `images` by the fastest path: see [`Evaluator::prepared`].
///
/// # Errors
/// As for [`evaluate`].
pub fn evaluate_prepared(model: &PreparedTransformer, images: &Images) -> Result<Evaluation> {
    Evaluator::prepared(model, images)?.finish()
}

/// An iterator that takes a batch of each evaluator in turn: see [`in_turns`].
#[derive(Debug)]
pub struct Turns<'e, 'a> {
    evaluators: &'e mut [Evaluator<'a>],
    next: usize,
}

/// Takes a batch of each evaluator in turn, so that a change in the machine's load meets all of them
/// and their speeds compare. Each first runs a batch that is not timed.
///
/// An item is the number of the evaluator, and what it found of each image of the batch.
pub fn in_turns<'e, 'a>(evaluators: &'e mut [Evaluator<'a>]) -> Turns<'e, 'a> {
    for evaluator in &mut *evaluators {
        evaluator.warm_up = true;
    }
    Turns {
        evaluators,
        next: 0,
    }
}

impl Iterator for Turns<'_, '_> {
    type Item = Result<(usize, Vec<ImageReport>)>;

    fn next(&mut self) -> Option<Self::Item> {
        for _ in 0..self.evaluators.len() {
            let index = self.next;
            self.next = (index + 1) % self.evaluators.len();
            if let Some(batch) = self.evaluators[index].next() {
                return Some(batch.map(|reports| (index, reports)));
            }
        }
        None
    }
}

/// Evaluates several models, each in turn with the others: see [`in_turns`].
///
/// # Errors
/// As for [`evaluate`].
#[expect(
    clippy::missing_panics_doc,
    reason = "there is an evaluation of each evaluator"
)]
pub fn evaluate_in_turns<const N: usize>(
    mut evaluators: [Evaluator; N],
) -> Result<[Evaluation; N]> {
    for turn in in_turns(&mut evaluators) {
        turn?;
    }
    let evaluations = evaluators.map(|evaluator| evaluator.counts.evaluation());
    let evaluations: Vec<Evaluation> = evaluations.into_iter().collect::<Result<_>>()?;
    Ok(evaluations
        .try_into()
        .expect("an evaluation of each evaluator"))
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
