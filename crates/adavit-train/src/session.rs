//! What a run consists of before its first step: settings, data, device, initial models.

use std::path::Path;

use adavit_model::{Checkpoint, Normalization, initial_tensors, is_decision_tensor};
use candle_core::Device;

use crate::config::TrainConfig;
use crate::data::{self, MeanStd, Split, Splits, held_out};
use crate::evaluate::{Images, check_images};
use crate::progress::Stage;
use crate::{Error, LrSchedule, Result, device};

/// What stays the same throughout a run.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) config: TrainConfig,
    pub(crate) device: Device,
    pub(crate) data: Splits,
    pub(crate) split: Split,
    pub(crate) stats: MeanStd,
    /// The plain checkpoint to start from, if given.
    pub(crate) given_dense: Option<Checkpoint>,
}

impl Session {
    pub(crate) fn prepare(config: &TrainConfig) -> Result<Self> {
        config.validate()?;
        let device = device::select(&config.device)?;
        let data = data::load(&config.data, config.data_dir.as_deref())?;
        let model = config.dense_model()?;
        check_images(&model, &data.train)?;
        config.augment.validate(data.train.dims())?;
        let split = held_out(data.train.len(), config.held_out, config.seed)?;
        let mut stats = data.train.mean_std();
        let given_dense = match &config.dense_checkpoint {
            Some(path) => Some(given_dense(config, path)?),
            None => None,
        };
        let normalization = given_dense
            .as_ref()
            .and_then(|c| c.config.normalization.as_ref());
        if let Some(normalization) = normalization {
            stats = MeanStd::from(normalization);
        }
        Ok(Self {
            config: config.clone(),
            device,
            data,
            split,
            stats,
            given_dense,
        })
    }

    /// Images for an evaluation.
    pub(crate) fn images<'a>(
        &'a self,
        dataset: &'a data::Dataset,
        indices: &'a [u32],
    ) -> Images<'a> {
        Images {
            dataset,
            indices,
            stats: &self.stats,
            batch_size: self.config.eval_batch_size,
            device: &self.device,
        }
    }

    /// The plain model before its first step.
    pub(crate) fn initial_dense(&self) -> Result<Checkpoint> {
        let mut config = self.config.dense_model()?;
        config.normalization = Some(Normalization {
            mean: self.stats.mean.iter().map(|&x| f64::from(x)).collect(),
            std: self.stats.std.iter().map(|&x| f64::from(x)).collect(),
        });
        config.class_names = self.data.train.class_names().to_vec();
        let tensors = initial_tensors(&config, self.config.seed, 0.0)?;
        Ok(Checkpoint { config, tensors })
    }

    /// The adaptive model before its first step: the plain one with fresh decision networks.
    pub(crate) fn initial_adaptive(&self, dense: &Checkpoint) -> Result<Checkpoint> {
        let config = dense
            .config
            .clone()
            .with_decisions(self.config.decisions.clone());
        let mut tensors = initial_tensors(&config, self.config.seed, self.config.gates.keep_logit)?;
        tensors.retain(|name, _| is_decision_tensor(name));
        tensors.extend(dense.tensors.clone());
        Ok(Checkpoint { config, tensors })
    }

    pub(crate) fn schedule(&self, stage: Stage) -> LrSchedule {
        let stage = match stage {
            Stage::Dense => &self.config.dense,
            _ => &self.config.adaptive,
        };
        let per_epoch = self.steps_per_epoch();
        let total = stage.epochs * per_epoch;
        let total_steps = self.config.max_steps.map_or(total, |max| max.min(total));
        let warmup = (stage.warmup_epochs * per_epoch as f64) as u64;
        LrSchedule {
            warmup_steps: warmup.min(total_steps / 2),
            total_steps,
            min_factor: stage.min_lr_factor,
            warmup_factor: 0.01,
        }
    }

    pub(crate) fn steps_per_epoch(&self) -> u64 {
        self.split.train.len().div_ceil(self.config.batch_size) as u64
    }
}

/// Loads the plain checkpoint to start from, which has to be of the configured sizes.
fn given_dense(config: &TrainConfig, path: &Path) -> Result<Checkpoint> {
    let checkpoint = Checkpoint::load(path)?;
    let expected = config.dense_model()?;
    let mut found = checkpoint.config.clone();
    if found.decisions.is_some() {
        return Err(Error::Input(format!(
            "{}: expected a plain checkpoint to start from, found an adaptive one",
            path.display()
        )));
    }
    let preset = found.preset.clone();
    found.normalization = None;
    found.class_names.clear();
    if found != expected {
        return Err(Error::Input(format!(
            "{}: expected a checkpoint of {} with the configured sizes, found one of {preset}; give \
             --preset {preset}, or another checkpoint",
            path.display(),
            config.preset
        )));
    }
    Ok(checkpoint)
}
