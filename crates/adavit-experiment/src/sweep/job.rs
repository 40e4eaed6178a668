//! The models of a sweep, and how each is evaluated.

use adavit_decision::BlockUsage;
use adavit_model::{PreparedTransformer, TokenReduction, VisionTransformer};
use adavit_train::{
    Evaluation, ImageReport, Images, Method, Mode, Stage, TrainConfig, evaluate_each,
    evaluate_sparse,
};

use crate::error::Result;
use crate::sweep::config::{Rival, SweepConfig};
use crate::sweep::names;
use crate::sweep::point::{Kind, Right};
use crate::sweep::speed::Path;

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

    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Dense { .. } => Kind::Dense,
            Self::Adaptive { .. } => Kind::Adaptive,
            Self::Calibrated { .. } => Kind::Calibrated,
            Self::Rival { rival, tuned, .. } => rival.kind(tuned),
            Self::Smaller(_) => Kind::Smaller,
            Self::Variant(_) => Kind::Variant,
        }
    }

    /// The last stage of its training; none where it is another's model.
    pub(super) fn stage(self) -> Option<Stage> {
        match self {
            Self::Dense { .. } | Self::Smaller(_) => Some(Stage::Dense),
            Self::Adaptive { .. } | Self::Variant(_) | Self::Rival { tuned: true, .. } => {
                Some(Stage::Adaptive)
            }
            Self::Calibrated { .. } | Self::Rival { tuned: false, .. } => None,
        }
    }

    /// Whether what is computed follows from the weights: decisions do, plain models and token
    /// reduction compute the same whatever their weights are.
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

/// How a job's model is to be evaluated.
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

    /// What is found of the images, and which of them are right.
    pub(super) fn evaluate(
        &self,
        (model, prepared): (&VisionTransformer, &PreparedTransformer),
        images: &Images,
        settings: &TrainConfig,
    ) -> Result<(Evaluation, Right)> {
        let mut bits = Vec::with_capacity(images.indices.len());
        let mut see = |image: &ImageReport| {
            bits.push(image.label == image.predicted);
            Ok(())
        };
        let evaluation = match self {
            Self::Dense => evaluate_each(model, images, Mode::Dense, &mut see)?,
            Self::Sparse => evaluate_sparse(prepared, images, &mut see)?,
            Self::Reduced(reduction) => {
                evaluate_each(model, images, Mode::Reduced(reduction), &mut see)?
            }
            Self::Random(usage) => {
                let seed = settings.seed;
                let mode = |draw: u64| Mode::Random { usage, seed, draw };
                for draw in 1..settings.random_policies.max(1) as u64 {
                    evaluate_each(model, images, mode(draw), &mut see)?;
                }
                evaluate_each(model, images, mode(0), &mut see)?
            }
        };
        let mut right = Right::default();
        for draw in bits.chunks(images.indices.len()) {
            right.add(draw);
        }
        Ok((evaluation, right))
    }

    pub(super) fn path<'a>(
        &'a self,
        model: &'a VisionTransformer,
        prepared: &'a PreparedTransformer,
    ) -> Path<'a> {
        match self {
            Self::Dense => Path::Dense(prepared),
            Self::Sparse => Path::Sparse(prepared),
            Self::Random(usage) => Path::Random(prepared, usage),
            Self::Reduced(reduction) => Path::Reduced(model, reduction),
        }
    }
}
