//! What a run consists of before its first step: settings, images, device, initial models.

use std::path::Path;

use adavit_data::{Dataset, Normalization, Split, Splits, held_out};
use adavit_model::{
    Checkpoint, ImportOptions, ModelConfig, Source, TrainedOn, import, initial_tensors,
    is_decision_tensor,
};
use candle_core::Device;

use crate::config::method::Method;
use crate::config::train_config::TrainConfig;
use crate::error::{Error, Result};
use crate::eval::evaluate::{Images, check_images};
use crate::optim::schedule::LrSchedule;
use crate::run::progress::Stage;
use crate::run::trained_on::trained_on;

/// What stays the same throughout a run: its settings, and what they name.
#[derive(Debug)]
pub struct Session<'d> {
    /// The settings.
    pub config: TrainConfig,
    /// Where tensors are.
    pub device: Device,
    /// The images, loaded once for every session that uses them.
    pub data: &'d Splits,
    /// Which training images are held out.
    pub split: Split,
    /// How images become inputs.
    pub normalization: Normalization,
    /// The dense checkpoint to start from, if given.
    pub(crate) given_dense: Option<Checkpoint>,
    /// How that checkpoint was understood, a sentence each.
    pub(crate) notes: Vec<String>,
}

impl<'d> Session<'d> {
    /// Checks the settings against the data and reads the checkpoint that they name; `kept_dense` is
    /// the dense model that the run itself keeps, if it is resumed.
    ///
    /// # Errors
    /// If a setting cannot be used, alone or with these images, or the checkpoint does not fit.
    pub fn prepare(
        config: &TrainConfig,
        data: &'d Splits,
        device: &Device,
        kept_dense: Option<&Path>,
    ) -> Result<Self> {
        config.validate()?;
        let model = config.dense_model()?;
        check_images(&model, &data.train)?;
        config.augment.validate(data.train.dims())?;
        let split = held_out(data.train.len(), config.held_out, config.seed)?;
        let given = config.dense_checkpoint.as_deref();
        let given = given.map(|path| kept_dense.unwrap_or(path));
        let (given_dense, mut notes) = match given {
            Some(path) => {
                let (checkpoint, notes) = given_dense(config, path, &data.train)?;
                (Some(checkpoint), notes)
            }
            None => (None, Vec::new()),
        };
        if let Some(recorded) = given_dense
            .as_ref()
            .and_then(|given| given.config.trained_on.as_ref())
        {
            let now = trained_on(&data.train, config.held_out, config.seed);
            notes.extend(seen_note(recorded, &now));
        }
        let of_model = given_dense
            .as_ref()
            .and_then(|given| given.config.normalization.clone());
        Ok(Self {
            config: config.clone(),
            device: device.clone(),
            data,
            split,
            normalization: of_model.unwrap_or_else(|| data.train.normalization()),
            given_dense,
            notes,
        })
    }

    /// Images for an evaluation.
    pub fn images<'a>(&'a self, dataset: &'a Dataset, indices: &'a [u32]) -> Images<'a> {
        Images {
            dataset,
            indices,
            normalization: &self.normalization,
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

    /// The dense model before its first step.
    ///
    /// # Errors
    /// If the settings describe no model.
    pub fn initial_dense(&self) -> Result<Checkpoint> {
        let mut config = self.config.dense_model()?;
        describe_data(&mut config, &self.data.train);
        config.trained_on = Some(self.trained_on());
        let tensors = initial_tensors(&config, self.config.seed, 0.0)?;
        Ok(Checkpoint { config, tensors })
    }

    /// The adaptive model before its first step: the plain one with fresh decision networks.
    pub(crate) fn initial_adaptive(&self, dense: &Checkpoint) -> Result<Checkpoint> {
        let mut config = dense.config.clone();
        config.trained_on = Some(self.trained_on());
        if matches!(self.config.method, Method::Reduced { .. }) {
            let tensors = dense.tensors.clone();
            return Ok(Checkpoint { config, tensors });
        }
        let config = config.with_decisions(self.config.decisions.clone());
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

    /// How many random policies of each kind are measured: one in a trial run, which `max_steps` ends
    /// before it has seen every training image once.
    pub(crate) fn random_draws(&self) -> usize {
        if self.schedule(Stage::Adaptive).total_steps < self.steps_per_epoch() {
            return 1;
        }
        self.config.random_policies
    }

    /// What a checkpoint of this run records of its images.
    fn trained_on(&self) -> TrainedOn {
        trained_on(&self.data.train, self.config.held_out, self.config.seed)
    }

    pub(crate) fn steps_per_epoch(&self) -> u64 {
        self.split.train.len().div_ceil(self.config.batch_size) as u64
    }
}

/// Writes into a model's configuration what it is to know of its data, if it does not yet.
fn describe_data(config: &mut ModelConfig, data: &Dataset) {
    config
        .normalization
        .get_or_insert_with(|| data.normalization());
    if config.class_names.is_empty() {
        config.class_names = data.class_names().to_vec();
    }
}

/// The note of a dense checkpoint that may have seen images that this run holds out.
fn seen_note(recorded: &TrainedOn, now: &TrainedOn) -> Option<String> {
    let differences = recorded.differences(now);
    (!differences.is_empty()).then(|| {
        format!(
            "the dense checkpoint was trained with other held-out images ({}), so it may have seen \
             images that this run holds out",
            differences.join("; ")
        )
    })
}

/// Loads the plain checkpoint to start from, of adavit or of others, which has to be of the
/// configured sizes; also tells how it was understood.
fn given_dense(
    config: &TrainConfig,
    path: &Path,
    data: &Dataset,
) -> Result<(Checkpoint, Vec<String>)> {
    let expected = config.dense_model()?;
    let options = ImportOptions {
        num_heads: Some(expected.num_heads),
        ..ImportOptions::default()
    };
    let imported = import(path, &options)?;
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
        trained_on: None,
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
        "{} ({}x{} pixels of {} channels, patch_size {}, embed_dim {}, depth {}, num_heads {}, mlp_ratio {}, {} \
         classes{})",
        config.preset,
        config.img_size.0,
        config.img_size.1,
        config.in_chans,
        config.patch_size,
        config.embed_dim,
        config.depth,
        config.num_heads,
        config.mlp_ratio,
        config.num_classes,
        if config.distilled { ", distilled" } else { "" },
    )
}
