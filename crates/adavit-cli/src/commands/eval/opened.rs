//! A checkpoint and the images that it is evaluated on.

use std::path::{Path, PathBuf};

use adavit_data::Labelled;
use adavit_decision::Allowance;
use adavit_model::{Checkpoint, ModelConfig, PreparedTransformer, VisionTransformer};
use adavit_train::{ClassTable, Evaluation, Evaluator, Images, Mode};
use anyhow::Result;
use candle_core::Device;

use crate::commands::eval::args::EvalArgs;
use crate::commands::eval::text::Evaluated;
use crate::output::message;
use crate::source::{TestImages, open_checkpoint};
use crate::values::Exec;

/// A checkpoint and its test images.
pub(super) struct Opened {
    checkpoint: PathBuf,
    pub(super) config: ModelConfig,
    model: Model,
    test: TestImages,
    indices: Vec<u32>,
    allowance: Allowance,
    /// The budget that an elastic model is asked for.
    budget: Option<f64>,
}

/// The model of a checkpoint, for the path that its images take.
enum Model {
    Dense(PreparedTransformer),
    Sparse(PreparedTransformer),
    Masked(Box<VisionTransformer>),
}

impl Model {
    fn of(checkpoint: &Checkpoint, exec: Exec, device: &Device) -> Result<Self> {
        Ok(match (&checkpoint.config.decisions, exec) {
            (None, _) => Self::Dense(checkpoint.prepared(device)?),
            (Some(_), Exec::Sparse) => Self::Sparse(checkpoint.prepared(device)?),
            (Some(_), Exec::Masked) => Self::Masked(Box::new(checkpoint.model(device)?)),
        })
    }

    fn exec(&self) -> &'static str {
        match self {
            Self::Dense(_) => "dense",
            Self::Sparse(_) => "sparse",
            Self::Masked(_) => "masked",
        }
    }
}

impl Opened {
    /// Reads a checkpoint and opens its test images.
    pub(super) fn read(args: &EvalArgs, path: &Path, device: &Device) -> Result<Self> {
        let mut checkpoint = open_checkpoint(path, &args.read.options())?;
        match (args.threshold, &mut checkpoint.config.decisions) {
            (Some(thresholds), Some(decisions)) => {
                decisions.thresholds = thresholds.over(decisions.thresholds);
            }
            (Some(_), None) => message(&format!(
                "warning: {}: --threshold is ignored, since a dense checkpoint has no gates",
                path.display()
            )),
            (None, _) => {}
        }
        let test = args.data.open(path, &checkpoint.config)?;
        let (trained_on, found) = (&checkpoint.config.class_names, test.images.class_names());
        // Data that name no classes number them.
        let is_number = |(class, name): (usize, &String)| *name == class.to_string();
        let numbered = found.len() == trained_on.len() && found.iter().enumerate().all(is_number);
        if !trained_on.is_empty() && trained_on != found && !numbered {
            message(
                "warning: the classes of this data are not those that the checkpoint was trained on",
            );
        }
        Ok(Self {
            checkpoint: path.to_path_buf(),
            model: Model::of(&checkpoint, args.exec, device)?,
            indices: (0..test.images.len() as u32).collect(),
            allowance: args.allowance.allowance(&checkpoint.config)?,
            budget: args.allowance.budget,
            config: checkpoint.config,
            test,
        })
    }

    /// Whether an allocator gives each image a budget of its own.
    fn allocates(&self) -> bool {
        let decisions = self.config.decisions.as_ref();
        let has = decisions.is_some_and(|decisions| decisions.allocator.is_some());
        match &self.allowance.budget {
            Some(budgets) => budgets.price().is_some(),
            None => has,
        }
    }

    /// Returns the test images.
    pub(super) fn images(&self) -> &dyn Labelled {
        self.test.images.as_ref()
    }

    /// Begins the evaluation.
    pub(super) fn evaluator<'a>(
        &'a self,
        args: &EvalArgs,
        device: &'a Device,
    ) -> Result<Evaluator<'a>> {
        let images = Images {
            dataset: self.test.images.as_ref(),
            indices: &self.indices,
            normalization: &self.test.normalization,
            batch_size: args.batch_size,
            device,
        };
        let evaluator = match &self.model {
            Model::Dense(model) | Model::Sparse(model) => Evaluator::prepared(model, &images)?,
            Model::Masked(model) => Evaluator::new(model, &images, Mode::Masked)?,
        };
        let evaluator = evaluator.within(self.allowance.clone())?;
        Ok(if args.skip_broken {
            evaluator.skipping_broken()
        } else {
            evaluator
        })
    }

    pub(super) fn evaluated(self, found: Found) -> Evaluated {
        let allocated = self.allocates();
        Evaluated {
            left_out: self.test.left_out,
            skipped: found.skipped,
            checkpoint: self.checkpoint,
            preset: self.config.preset,
            dataset: self.test.images.name().into(),
            class_names: self.test.images.class_names().to_vec(),
            exec: self.model.exec(),
            max_macs: self.allowance.max_macs,
            budget: self.budget,
            allocated,
            evaluation: found.evaluation,
            classes: found.classes,
        }
    }
}

/// What the evaluation of a checkpoint found.
pub(super) struct Found {
    pub(super) evaluation: Evaluation,
    pub(super) classes: ClassTable,
    /// Pictures that could not be read.
    pub(super) skipped: usize,
}
