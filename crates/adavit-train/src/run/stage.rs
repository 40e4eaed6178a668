//! One stage of training: model, optimizer, averaged weights, and the step that moves them.

use std::collections::{BTreeMap, HashMap};

use adavit_data::Batch;
use adavit_decision::{Gating, random_policy};
use adavit_gumbel::{ScaledNoise, SeededNoise};
use adavit_kernels::in_pool;
use adavit_model::{Capture, Checkpoint, ModelConfig, Output, Tensors, VisionTransformer};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarBuilder;

use crate::config::method::Method;
use crate::config::stage_config::StageConfig;
use crate::config::train_config::TrainConfig;
use crate::error::Result;
use crate::eval::evaluate::batch_top1;
use crate::optim::adamw::AdamW;
use crate::optim::ema::Ema;
use crate::optim::parameters::Parameters;
use crate::optim::schedule::LrSchedule;
use crate::run::losses::{LossValues, Losses, smoothed_targets};
use crate::run::targets::BudgetLosses;
use crate::run::teacher::Teacher;

const EMA_PREFIX: &str = "ema.";

/// Where in its stage a step is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// The epoch, counted over both stages: it keys the noise.
    pub(crate) epoch: u64,
    /// Finished optimizer steps of the stage.
    pub(crate) step: u64,
}

/// What a step measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepOutput {
    pub(crate) losses: LossValues,
    pub(crate) top1: f64,
    pub(crate) grad_norm: f64,
    pub(crate) lr: f64,
}

/// What only the adaptive stage has.
#[derive(Debug)]
pub(crate) struct AdaptivePart {
    pub(crate) teacher: Teacher,
    pub(crate) budget: BudgetLosses,
}

/// The state of a stage between two steps, and what it needs for the next.
#[derive(Debug)]
pub(crate) struct StageTrainer {
    config: TrainConfig,
    settings: StageConfig,
    model_config: ModelConfig,
    model: VisionTransformer,
    parameters: Parameters,
    optimizer: AdamW,
    ema: Option<Ema>,
    schedule: LrSchedule,
    adaptive: Option<AdaptivePart>,
}

impl StageTrainer {
    /// Starts from `start`; with an adaptive part it trains the masked path, otherwise the dense one.
    pub(crate) fn new(
        config: &TrainConfig,
        start: &Checkpoint,
        schedule: LrSchedule,
        adaptive: Option<AdaptivePart>,
        device: &Device,
    ) -> Result<Self> {
        let settings = match adaptive {
            Some(_) => &config.adaptive,
            None => &config.dense,
        };
        let (model, parameters) = trainable(start, device)?;
        let ema = (settings.ema_decay > 0.0)
            .then(|| Ema::new(settings.ema_decay, &parameters))
            .transpose()?;
        Ok(Self {
            config: config.clone(),
            settings: settings.clone(),
            model_config: start.config.clone(),
            model,
            optimizer: AdamW::new(settings.optimizer, &parameters)?,
            parameters,
            ema,
            schedule,
            adaptive,
        })
    }

    /// The number of trained numbers.
    pub(crate) fn num_parameters(&self) -> usize {
        self.parameters.num_elements()
    }

    /// Resumes from what [`Self::state`] gave after `step` steps.
    pub(crate) fn load_state(&mut self, state: &Tensors, step: u64) -> Result<()> {
        let (averages, moments): (Tensors, Tensors) = state
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.clone()))
            .partition(|(name, _)| name.starts_with(EMA_PREFIX));
        self.optimizer.load_state(&moments, step)?;
        if let Some(ema) = &mut self.ema {
            let averages: Tensors = averages
                .into_iter()
                .map(|(name, tensor)| (name[EMA_PREFIX.len()..].to_string(), tensor))
                .collect();
            ema.load(&averages)?;
        }
        Ok(())
    }

    /// Everything that a resume needs except the weights, on the CPU.
    pub(crate) fn state(&self) -> Result<Tensors> {
        let mut state = self.optimizer.state()?;
        if let Some(ema) = &self.ema {
            for (name, tensor) in ema.tensors() {
                state.insert(format!("{EMA_PREFIX}{name}"), tensor.clone());
            }
        }
        to_cpu(&state)
    }

    /// The weights as the optimizer left them.
    pub(crate) fn checkpoint(&self) -> Result<Checkpoint> {
        Ok(Checkpoint {
            config: self.model_config.clone(),
            tensors: to_cpu(&self.parameters.to_tensors()?)?,
        })
    }

    /// The weights to evaluate and to keep: averaged, if an average is kept.
    pub(crate) fn averaged(&self) -> Result<Checkpoint> {
        match &self.ema {
            Some(ema) => Ok(Checkpoint {
                config: self.model_config.clone(),
                tensors: to_cpu(ema.tensors())?,
            }),
            None => self.checkpoint(),
        }
    }

    /// Trains on one batch.
    pub(crate) fn step(&mut self, batch: &Batch, place: Place) -> Result<StepOutput> {
        in_pool(|| self.step_in_pool(batch, place))
    }

    fn step_in_pool(&mut self, batch: &Batch, place: Place) -> Result<StepOutput> {
        let targets = smoothed_targets(
            &batch.labels,
            self.model_config.num_classes,
            self.settings.label_smoothing,
        )?;
        // The graph lives only in this block: its memory is free before the optimizer works.
        let (gradients, losses, top1) = {
            let (output, losses) = self.forward(batch, &targets, place)?;
            let values = losses.values(place.step)?;
            let top1 = batch_top1(&output.logits, &batch.labels)?;
            (losses.total()?.backward()?, values, top1)
        };
        let factor = self.schedule.factor(place.step);
        let stats = self.optimizer.step(&gradients, factor)?;
        drop(gradients);
        if let Some(ema) = &mut self.ema {
            ema.update(&self.parameters, place.step + 1)?;
        }
        Ok(StepOutput {
            losses,
            top1,
            grad_norm: stats.grad_norm,
            lr: self.settings.optimizer.lr * factor,
        })
    }

    fn forward(
        &mut self,
        batch: &Batch,
        targets: &Tensor,
        place: Place,
    ) -> Result<(Output, Losses)> {
        let Some(adaptive) = &mut self.adaptive else {
            let output = self.model.forward(&batch.images, Capture::default())?;
            let losses = Losses::dense(&output, targets)?;
            return Ok((output, losses));
        };
        let teacher = adaptive.teacher.forward(&batch.images)?;
        let capture = adaptive.teacher.capture();
        let output = self.forward_saving(batch, capture, place)?;
        let by = &self.config.distillation;
        let mut losses = Losses::distilled(&output, targets, teacher.as_ref(), by)?;
        if let (Method::Learned, Some(adaptive)) = (&self.config.method, &self.adaptive) {
            losses.add_budget(&output, &adaptive.budget, self.progress(place))?;
        }
        Ok((output, losses))
    }

    /// The finished share of the stage, in [0, 1].
    fn progress(&self, place: Place) -> f64 {
        place.step as f64 / self.schedule.total_steps.max(1) as f64
    }

    /// The forward of the adaptive stage, by the method that saves compute.
    fn forward_saving(&self, batch: &Batch, capture: Capture, place: Place) -> Result<Output> {
        let (model, images) = (&self.model, &batch.images);
        let progress = self.progress(place);
        let mut noise = SeededNoise::new(self.config.seed, place.epoch, &batch.samples);
        Ok(match &self.config.method {
            Method::Learned => {
                let gates = &self.config.gates;
                let factor = 1.0 - gates.noise_end.factor(progress);
                let mut gating = Gating::Training {
                    noise: &mut ScaledNoise::new(&mut noise, factor),
                    tau: gates.temperature.at(progress),
                };
                model.forward_masked(images, &mut gating, capture)?
            }
            Method::Random { usage } => {
                let (decisions, geometry) = (&self.config.decisions, self.model_config.geometry());
                let n = batch.samples.len();
                let policy = random_policy(decisions, &geometry, usage, &mut noise, n)?;
                model.forward_policy(images, &policy.to_device(images.device())?, capture)?
            }
            Method::Reduced { reduction } => {
                Output::of_logits(model.forward_reduced(images, reduction)?)
            }
        })
    }
}

/// Returns the model of `start` with variables as weights, and these variables.
pub fn trainable(start: &Checkpoint, device: &Device) -> Result<(VisionTransformer, Parameters)> {
    let mut vars = BTreeMap::new();
    for (name, tensor) in &start.tensors {
        vars.insert(name.clone(), Var::from_tensor(&tensor.to_device(device)?)?);
    }
    let tensors: HashMap<_, _> = vars
        .iter()
        .map(|(name, var)| (name.clone(), var.as_tensor().clone()))
        .collect();
    let vb = VarBuilder::from_tensors(tensors, DType::F32, device);
    let model = VisionTransformer::new(&start.config, &vb)?;
    Ok((model, Parameters::from_vars(vars)))
}

fn to_cpu(tensors: &Tensors) -> Result<Tensors> {
    let moved = tensors
        .iter()
        .map(|(name, tensor)| Ok((name.clone(), tensor.to_device(&Device::Cpu)?)));
    moved.collect()
}
