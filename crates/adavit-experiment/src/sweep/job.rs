//! The models of a sweep, and how each is evaluated.

use adavit_decision::BlockUsage;
use adavit_model::{Checkpoint, PreparedTransformer, TokenReduction, VisionTransformer};
use adavit_train::{Evaluation, Evaluator, Images, Method, Mode, Stage, TrainConfig};
use candle_core::Device;

use crate::error::Result;
use crate::sweep::config::{Rival, SweepConfig};
use crate::sweep::names;
use crate::sweep::point::{ModelKind, Right};
use crate::sweep::speed::Execution;

/// A model to train, if it is trained, and to measure.
#[derive(Debug, Clone, Copy)]
pub(super) enum Job {
    Dense {
        seed: u64,
    },
    Adaptive {
        budget: f64,
        seed: u64,
    },
    Calibrated {
        budget: f64,
    },
    Rival {
        rival: Rival,
        tuned: bool,
        budget: f64,
    },
    Smaller(usize),
    Variant(usize),
}

impl Job {
    pub(super) fn name(self, config: &SweepConfig) -> String {
        let first = config.seeds[0];
        match self {
            Self::Dense { seed } => names::dense(seed),
            Self::Adaptive { budget, seed } => names::adaptive(budget, seed),
            Self::Calibrated { budget } => {
                names::calibrated(budget, config.calibrated_from(budget), first)
            }
            Self::Rival {
                rival,
                tuned,
                budget,
            } => names::rival(rival, tuned, budget, first),
            Self::Smaller(index) => names::smaller(&config.smaller_models[index].name),
            Self::Variant(index) => names::variant(&config.variants[index].name),
        }
    }

    pub(super) fn kind(self) -> ModelKind {
        match self {
            Self::Dense { .. } => ModelKind::Dense,
            Self::Adaptive { .. } => ModelKind::Adaptive,
            Self::Calibrated { .. } => ModelKind::Calibrated,
            Self::Rival { rival, tuned, .. } => rival.kind(tuned),
            Self::Smaller(_) => ModelKind::Smaller,
            Self::Variant(_) => ModelKind::Variant,
        }
    }

    /// The last stage of its training; none where it takes another job's model.
    pub(super) fn stage(self) -> Option<Stage> {
        match self {
            Self::Dense { .. } | Self::Smaller(_) => Some(Stage::Dense),
            Self::Adaptive { .. } | Self::Variant(_) | Self::Rival { tuned: true, .. } => {
                Some(Stage::Adaptive)
            }
            Self::Calibrated { .. } | Self::Rival { tuned: false, .. } => None,
        }
    }

    /// Whether the time depends on the weights: decisions do. A dense model computes the same
    /// whatever its weights are, and so does token reduction.
    pub(super) fn time_depends_on_weights(self) -> bool {
        match self {
            Self::Dense { .. } | Self::Smaller(_) => false,
            Self::Rival { rival, .. } => rival.reduction().is_none(),
            Self::Adaptive { .. } | Self::Calibrated { .. } | Self::Variant(_) => true,
        }
    }

    /// How its model is evaluated, given its settings.
    pub(super) fn evaluated(self, settings: &TrainConfig) -> Evaluated<'_> {
        match (self, &settings.method) {
            (Self::Dense { .. } | Self::Smaller(_), _) => Evaluated::Dense,
            (_, Method::Learned) => Evaluated::Sparse,
            (_, Method::Random { usage }) => Evaluated::Random(usage),
            (_, Method::Reduced { reduction }) => Evaluated::Reduced(reduction),
        }
    }
}

/// A checkpoint's model for both ways of computing.
pub(super) struct Models {
    /// By candle's operations.
    composed: VisionTransformer,
    pub(super) prepared: PreparedTransformer,
}

impl Models {
    pub(super) fn of(checkpoint: &Checkpoint, device: &Device) -> Result<Self> {
        Ok(Self {
            composed: checkpoint.model(device)?,
            prepared: checkpoint.prepared(device)?,
        })
    }
}

/// How a job's model is evaluated.
pub(super) enum Evaluated<'a> {
    Dense,
    Sparse,
    Random(&'a [BlockUsage]),
    Reduced(&'a TokenReduction),
}

impl Evaluated<'_> {
    /// Whether there are decisions, with a usage.
    pub(super) fn decides(&self) -> bool {
        matches!(self, Self::Sparse | Self::Random(_))
    }

    /// Evaluates the images; of random decisions, the evaluation is of the first draw.
    pub(super) fn evaluate(
        &self,
        models: &Models,
        images: &Images,
        settings: &TrainConfig,
    ) -> Result<(Evaluation, Right)> {
        let Models { composed, prepared } = models;
        let mut right = Right::default();
        let evaluation = match self {
            Self::Dense | Self::Sparse => right.add(Evaluator::prepared(prepared, images)?)?,
            Self::Reduced(reduction) => {
                right.add(Evaluator::new(composed, images, Mode::Reduced(reduction))?)?
            }
            Self::Random(usage) => {
                let seed = settings.seed;
                let mode = |draw: u64| Mode::Random { usage, seed, draw };
                let first = right.add(Evaluator::new(composed, images, mode(0))?)?;
                for draw in 1..settings.random_policies.max(1) as u64 {
                    right.add(Evaluator::new(composed, images, mode(draw))?)?;
                }
                first
            }
        };
        Ok((evaluation, right))
    }

    /// How the model's speed is measured; none for token reduction, which the prepared path cannot
    /// run: a time by candle's operations would not compare with those of the other models.
    pub(super) fn execution<'a>(
        &'a self,
        prepared: &'a PreparedTransformer,
    ) -> Option<Execution<'a>> {
        match self {
            Self::Dense => Some(Execution::Dense(prepared)),
            Self::Sparse => Some(Execution::Sparse(prepared)),
            Self::Random(usage) => Some(Execution::Random(prepared, usage)),
            Self::Reduced(_) => None,
        }
    }
}
