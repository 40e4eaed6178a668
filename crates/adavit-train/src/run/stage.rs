//! One stage of training: model, optimizer, averaged weights, and the step that moves them.

use adavit_data::{Batch, TargetOptions};
use adavit_decision::{Allowance, Budgets, Gating, random_policy};
use adavit_gumbel::{ScaledNoise, SeededNoise};
use adavit_kernels::in_pool;
use adavit_model::{
    Capture, Checkpoint, Dropout, DropoutRates, ModelConfig, Output, Tensors, VisionTransformer,
    WithDropout,
};
use candle_core::{Device, Tensor};

use crate::config::method::Method;
use crate::config::stage_config::StageConfig;
use crate::config::train_config::TrainConfig;
use crate::error::Result;
use crate::eval::evaluate::batch_top1;
use crate::optim::adamw::AdamW;
use crate::optim::ema::Ema;
use crate::optim::gradients::Gradients;
use crate::optim::parameters::{Parameters, learns_on_frozen};
use crate::optim::schedule::LrSchedule;
use crate::run::elastic::drawn;
use crate::run::losses::{LossValues, Losses, smoothed_targets, weighted_targets};
use crate::run::targets::BudgetLosses;
use crate::run::teacher::Teacher;
use crate::run::trainable::Trainable;

const EMA_PREFIX: &str = "ema.";

/// Where in its stage a step is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// The epoch, counted over both stages: it keys the noise.
    pub(crate) epoch: u64,
    /// Finished optimizer steps of the stage.
    pub(crate) step: u64,
}

/// What the batches of one step have given so far. Measures are means over their images.
#[derive(Debug, Default)]
pub(crate) struct StepGroup {
    gradients: Gradients,
    losses: LossValues,
    top1: f64,
}

impl StepGroup {
    /// The number of images so far.
    pub(crate) fn images(&self) -> u64 {
        self.gradients.images()
    }
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

/// What a stage trains by, besides its settings.
#[derive(Debug)]
pub(crate) struct StageParts {
    pub(crate) schedule: LrSchedule,
    pub(crate) adaptive: Option<AdaptivePart>,
    /// The weight of each class in the loss, if they differ.
    pub(crate) class_weights: Option<Vec<f32>>,
}

/// The state of a stage between two steps, and what it needs for the next.
#[derive(Debug)]
pub(crate) struct StageTrainer {
    config: TrainConfig,
    settings: StageConfig,
    model_config: ModelConfig,
    model: VisionTransformer,
    parameters: Parameters,
    /// The tensors that do not learn.
    frozen: Tensors,
    optimizer: AdamW,
    ema: Option<Ema>,
    schedule: LrSchedule,
    adaptive: Option<AdaptivePart>,
    /// `(K,)`.
    class_weights: Option<Tensor>,
}

impl StageTrainer {
    /// Starts from `start`; with an adaptive part it trains the masked path, otherwise the dense one.
    pub(crate) fn new(
        config: &TrainConfig,
        start: &Checkpoint,
        parts: StageParts,
        device: &Device,
    ) -> Result<Self> {
        let StageParts {
            schedule,
            adaptive,
            class_weights,
        } = parts;
        let class_weights = class_weights.map(|weights| Tensor::new(weights, device));
        let settings = match adaptive {
            Some(_) => &config.adaptive,
            None => &config.dense,
        };
        let learns: fn(&str) -> bool = if settings.freeze {
            learns_on_frozen
        } else {
            |_| true
        };
        let Trainable {
            model,
            parameters,
            frozen,
        } = Trainable::new(start, device, learns)?;
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
            frozen,
            ema,
            schedule,
            adaptive,
            class_weights: class_weights.transpose()?,
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
        self.whole(&self.parameters.to_tensors()?)
    }

    /// The model of trained tensors and those that do not learn.
    fn whole(&self, trained: &Tensors) -> Result<Checkpoint> {
        let mut tensors = to_cpu(trained)?;
        tensors.extend(to_cpu(&self.frozen)?);
        Ok(Checkpoint {
            config: self.model_config.clone(),
            tensors,
        })
    }

    /// The weights to evaluate and to keep: averaged, if an average is kept.
    pub(crate) fn averaged(&self) -> Result<Checkpoint> {
        match &self.ema {
            Some(ema) => self.whole(ema.tensors()),
            None => self.checkpoint(),
        }
    }

    /// What targets are made for.
    pub(crate) fn target_options(&self) -> TargetOptions {
        TargetOptions {
            num_classes: self.model_config.num_classes,
            smoothing: self.settings.label_smoothing,
        }
    }

    /// Adds the gradients of one batch to those of a step.
    pub(crate) fn accumulate(
        &mut self,
        group: &mut StepGroup,
        batch: &Batch,
        place: Place,
    ) -> Result<()> {
        in_pool(|| self.accumulate_in_pool(group, batch, place))
    }

    fn accumulate_in_pool(
        &mut self,
        group: &mut StepGroup,
        batch: &Batch,
        place: Place,
    ) -> Result<()> {
        let options = self.target_options();
        let targets = if let Some(mixed) = &batch.targets {
            mixed.clone()
        } else {
            smoothed_targets(&batch.labels, options.num_classes, options.smoothing)?
        };
        let targets = match &self.class_weights {
            Some(weights) => weighted_targets(&targets, &batch.labels, weights)?,
            None => targets,
        };
        let (output, losses) = self.forward(batch, &targets, place)?;
        let values = losses.values(place.step)?;
        let top1 = batch_top1(&output.logits, &batch.labels)?;
        let gradients = losses.total()?.backward()?;
        // The graph's memory is free before the gradients are added.
        drop((output, losses));
        let images = batch.samples.len() as u64;
        group.gradients.add(&self.parameters, &gradients, images)?;
        let share = images as f64 / group.images().max(1) as f64;
        group.losses.mix(values, share);
        group.top1 = group.top1 * (1.0 - share) + top1 * share;
        Ok(())
    }

    /// Moves the weights by the gradients of the batches of `group`.
    pub(crate) fn step(&mut self, group: StepGroup, place: Place) -> Result<StepOutput> {
        in_pool(|| self.step_in_pool(group, place))
    }

    fn step_in_pool(&mut self, group: StepGroup, place: Place) -> Result<StepOutput> {
        let StepGroup {
            gradients,
            losses,
            top1,
        } = group;
        let factor = self.schedule.factor(place.step);
        let stats = self.optimizer.step_by(gradients.means(), factor)?;
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
        let dropout = self.dropout(batch, place)?;
        let Some(adaptive) = &mut self.adaptive else {
            let model = self.model.with_dropout(dropout.as_ref());
            let output = model.forward(&batch.images, Capture::default())?;
            let losses = Losses::dense(&output, targets)?;
            return Ok((output, losses));
        };
        let teacher = adaptive.teacher.forward(&batch.images)?;
        let capture = adaptive.teacher.capture();
        let model = self.model.with_dropout(dropout.as_ref());
        let asked = drawn(&self.config, &self.model_config, place.epoch, batch);
        let allowance = Allowance {
            budget: asked.clone().map(Budgets::Each),
            ..Allowance::default()
        };
        let output = self.forward_saving(model, batch, capture, place, &allowance)?;
        let by = &self.config.distillation;
        let mut losses = Losses::distilled(&output, targets, teacher.as_ref(), by)?;
        if let (Method::Learned, Some(adaptive)) = (&self.config.method, &self.adaptive) {
            let progress = self.progress(place);
            losses.add_budget(&output, &adaptive.budget, progress, asked.as_deref())?;
        }
        Ok((output, losses))
    }

    /// What this batch leaves out at random, if anything.
    fn dropout(&self, batch: &Batch, place: Place) -> Result<Option<Dropout>> {
        let rates = DropoutRates {
            drop_path: self.settings.drop_path,
            token_dropout: self.settings.token_dropout,
        };
        if rates.is_off() {
            return Ok(None);
        }
        Ok(Some(Dropout::new(rates, self.noise(batch, place))?))
    }

    fn noise(&self, batch: &Batch, place: Place) -> SeededNoise {
        SeededNoise::new(self.config.seed, place.epoch, &batch.samples)
    }

    /// The finished share of the stage, in [0, 1].
    fn progress(&self, place: Place) -> f64 {
        place.step as f64 / self.schedule.total_steps.max(1) as f64
    }

    /// The forward of the adaptive stage, by the method that saves compute.
    fn forward_saving(
        &self,
        model: WithDropout,
        batch: &Batch,
        capture: Capture,
        place: Place,
        allowance: &Allowance,
    ) -> Result<Output> {
        let images = &batch.images;
        let progress = self.progress(place);
        let mut noise = self.noise(batch, place);
        Ok(match &self.config.method {
            Method::Learned => {
                let gates = &self.config.gates;
                let factor = 1.0 - gates.noise_end.factor(progress);
                let mut gating = Gating::Training {
                    noise: &mut ScaledNoise::new(&mut noise, factor),
                    tau: gates.temperature.at(progress),
                };
                model.forward_masked_within(images, &mut gating, allowance, capture)?
            }
            Method::Random { usage } => {
                let decisions = self.config.adaptive_decisions();
                let (geometry, n) = (self.model_config.geometry(), batch.samples.len());
                let policy = random_policy(&decisions, &geometry, usage, &mut noise, n)?;
                model.forward_policy(images, &policy.to_device(images.device())?, capture)?
            }
            Method::Reduced { reduction } => {
                Output::of_logits(model.forward_reduced(images, reduction)?)
            }
        })
    }
}

fn to_cpu(tensors: &Tensors) -> Result<Tensors> {
    let moved = tensors
        .iter()
        .map(|(name, tensor)| Ok((name.clone(), tensor.to_device(&Device::Cpu)?)));
    moved.collect()
}

#[cfg(test)]
mod tests;
