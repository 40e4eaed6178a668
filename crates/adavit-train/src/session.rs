//! What a run consists of before its first step: settings, data, device, initial models.

use std::path::Path;

use adavit_model::{
    Checkpoint, ImportOptions, ModelConfig, Normalization, Source, import, initial_tensors,
    is_decision_tensor,
};
use candle_core::Device;

use crate::config::{Method, TrainConfig};
use crate::data::{self, Dataset, MeanStd, Split, Splits, held_out};
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
    /// How that checkpoint was understood, a sentence each.
    pub(crate) notes: Vec<String>,
}

impl Session {
    /// Loads and checks everything that the settings name; `kept_dense` is the plain model that the
    /// run itself keeps, if it goes on.
    pub(crate) fn prepare(config: &TrainConfig, kept_dense: Option<&Path>) -> Result<Self> {
        config.validate()?;
        let device = device::select(&config.device)?;
        let data = data::load(&config.data, config.data_dir.as_deref())?;
        let model = config.dense_model()?;
        check_images(&model, &data.train)?;
        config.augment.validate(data.train.dims())?;
        let split = held_out(data.train.len(), config.held_out, config.seed)?;
        let given = config.dense_checkpoint.as_deref();
        let given = given.map(|path| kept_dense.unwrap_or(path));
        let (given_dense, notes) = match given {
            Some(path) => {
                let (checkpoint, notes) = given_dense(config, path, &data.train)?;
                (Some(checkpoint), notes)
            }
            None => (None, Vec::new()),
        };
        let stats = given_dense.as_ref().map_or_else(
            || data.train.mean_std(),
            |given| data.train.mean_std_for(&given.config),
        );
        Ok(Self {
            config: config.clone(),
            device,
            data,
            split,
            stats,
            given_dense,
            notes,
        })
    }

    /// Images for an evaluation.
    pub(crate) fn images<'a>(&'a self, dataset: &'a Dataset, indices: &'a [u32]) -> Images<'a> {
        Images {
            dataset,
            indices,
            stats: &self.stats,
            batch_size: self.config.eval_batch_size,
            device: &self.device,
        }
    }

    /// What binds snapshots to this run: the mark of its settings, and its data.
    pub(crate) fn mark(&self, settings: u32) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&settings.to_le_bytes());
        for dataset in [&self.data.train, &self.data.test] {
            hasher.update(dataset.labels());
            for i in 0..dataset.len() {
                hasher.update(dataset.image(i));
            }
        }
        hasher.finalize()
    }

    /// The plain model before its first step.
    pub(crate) fn initial_dense(&self) -> Result<Checkpoint> {
        let mut config = self.config.dense_model()?;
        describe_data(&mut config, &self.data.train);
        let tensors = initial_tensors(&config, self.config.seed, 0.0)?;
        Ok(Checkpoint { config, tensors })
    }

    /// The adaptive model before its first step: the plain one with fresh decision networks.
    pub(crate) fn initial_adaptive(&self, dense: &Checkpoint) -> Result<Checkpoint> {
        if matches!(self.config.method, Method::Reduced { .. }) {
            return Ok(dense.clone());
        }
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

/// Writes into a model's configuration what it is to know of its data, if it does not yet.
fn describe_data(config: &mut ModelConfig, data: &Dataset) {
    let to_f64 = |xs: &[f32]| xs.iter().map(|&x| f64::from(x)).collect();
    config.normalization.get_or_insert_with(|| {
        let stats = data.mean_std();
        Normalization {
            mean: to_f64(&stats.mean),
            std: to_f64(&stats.std),
        }
    });
    if config.class_names.is_empty() {
        config.class_names = data.class_names().to_vec();
    }
}

/// Loads the plain checkpoint to start from, of adavit or of others, which has to be of the
/// configured sizes; also tells how it was understood. An image size and a number of classes that are
/// set are changes to the checkpoint too: its position embedding is resampled, its head replaced.
fn given_dense(
    config: &TrainConfig,
    path: &Path,
    data: &Dataset,
) -> Result<(Checkpoint, Vec<String>)> {
    let expected = config.dense_model()?;
    let mut options = ImportOptions {
        num_heads: Some(expected.num_heads),
        img_size: config.model.img_size,
        ..ImportOptions::default()
    };
    let mut imported = import(path, &options)?;
    let found = imported.checkpoint.config.num_classes;
    if config.model.num_classes.is_some_and(|asked| asked != found) {
        options.num_classes = config.model.num_classes;
        options.seed = config.seed;
        imported = import(path, &options)?;
    }
    let mut checkpoint = imported.checkpoint;
    if checkpoint.config.decisions.is_some() {
        return Err(Error::Input(format!(
            "{}: expected a plain checkpoint to start from, found an adaptive one",
            path.display()
        )));
    }
    if imported.source != Source::Adavit {
        // Others tell no preset, and not how the position embedding came about.
        checkpoint.config.preset.clone_from(&expected.preset);
        checkpoint.config.pos_embed = expected.pos_embed;
    }
    // Whatever eps it has, it keeps; what it was trained on may be something else.
    let found = ModelConfig {
        layer_norm_eps: expected.layer_norm_eps,
        normalization: None,
        preprocessing: None,
        class_names: Vec::new(),
        ..checkpoint.config.clone()
    };
    if found != expected {
        return Err(Error::Input(format!(
            "{}: expected a checkpoint of {}, found one of {}; give another --preset, another \
             [model] table, or another checkpoint (adavit convert changes classes, image size and \
             distillation)",
            path.display(),
            sizes(&expected),
            sizes(&found),
        )));
    }
    describe_data(&mut checkpoint.config, data);
    Ok((checkpoint, imported.notes))
}

/// A model's preset and sizes, for an error.
fn sizes(config: &ModelConfig) -> String {
    format!(
        "{} ({}x{} pixels, patch_size {}, embed_dim {}, depth {}, num_heads {}, mlp_ratio {}, {} \
         classes{})",
        config.preset,
        config.img_size.0,
        config.img_size.1,
        config.patch_size,
        config.embed_dim,
        config.depth,
        config.num_heads,
        config.mlp_ratio,
        config.num_classes,
        if config.distilled { ", distilled" } else { "" },
    )
}
