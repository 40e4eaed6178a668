//! What a run has before its first step: settings, images, device, initial models.

use std::collections::BTreeSet;
use std::path::Path;

use adavit_data::{Dataset, Normalization, Split, Splits, held_out};
use adavit_model::{
    Checkpoint, ImportOptions, ModelConfig, Origin, TrainedOn, import, initial_tensors,
    is_decision_tensor,
};
use candle_core::Device;
use serde_json::Value;

use crate::config::device::check_device;
use crate::config::method::Method;
use crate::config::train_config::TrainConfig;
use crate::error::{Error, Result};
use crate::eval::images::{Images, check_images};
use crate::optim::schedule::LrSchedule;
use crate::run::progress::Stage;
use crate::run::trained_on::trained_on;

/// What stays the same throughout a run: its settings, and the images and device that they name.
///
/// Images are borrowed: a process loads a data set once, whatever the number of sessions.
#[derive(Debug)]
pub struct Session<'d> {
    /// The settings.
    pub config: TrainConfig,
    /// Where tensors are.
    pub device: Device,
    /// The images.
    pub data: &'d Splits,
    /// Which training images are held out.
    pub split: Split,
    /// How images become inputs.
    pub normalization: Normalization,
    /// The dense checkpoint to start from, if given.
    pub(crate) given_dense: Option<Checkpoint>,
    /// How that checkpoint was understood, one sentence each.
    pub(crate) notes: Vec<String>,
}

impl<'d> Session<'d> {
    /// Checks the settings against images and device, and reads the dense checkpoint that they name. A
    /// resumed run passes the dense model that it keeps itself as `kept_dense`.
    ///
    /// # Errors
    /// [`Error::Setting`] if a setting cannot be used, alone or with these images or this device;
    /// [`Error::Mismatch`] if images or checkpoint do not fit the configured model.
    pub fn prepare(
        config: &TrainConfig,
        data: &'d Splits,
        device: &Device,
        kept_dense: Option<&Path>,
    ) -> Result<Self> {
        config.validate()?;
        check_device(&config.device, device)?;
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

    /// Returns the images at `indices` of `dataset`, for an evaluation with this run's settings.
    pub fn images<'a>(&'a self, dataset: &'a Dataset, indices: &'a [u32]) -> Images<'a> {
        Images {
            dataset,
            indices,
            normalization: &self.normalization,
            batch_size: self.config.eval_batch_size,
            device: &self.device,
        }
    }

    /// Returns what binds snapshots to this run: a checksum of the mark of its settings and of its data.
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

    /// Returns the dense model before its first step.
    ///
    /// # Errors
    /// If the settings do not describe a model.
    pub fn initial_dense(&self) -> Result<Checkpoint> {
        let mut config = self.config.dense_model()?;
        describe_data(&mut config, &self.data.train);
        config.trained_on = Some(self.trained_on());
        let tensors = initial_tensors(&config, self.config.seed, 0.0)?;
        Ok(Checkpoint { config, tensors })
    }

    /// Returns the adaptive model before its first step: the dense one with new decision networks.
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
        let settings = match stage {
            Stage::Dense => &self.config.dense,
            _ => &self.config.adaptive,
        };
        let per_epoch = self.steps_per_epoch();
        let total = settings.epochs * per_epoch;
        let total_steps = self.config.max_steps.map_or(total, |max| max.min(total));
        let warmup = (settings.warmup_epochs * per_epoch as f64) as u64;
        LrSchedule {
            warmup_steps: warmup.min(total_steps / 2),
            total_steps,
            min_factor: settings.min_lr_factor,
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

/// Records normalization and class names of the data in a model's configuration, unless it has them.
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

/// Loads the dense checkpoint to start from, adavit's or another library's, which must have the
/// configured sizes. Also returns how it was understood. An image size and a number of classes that
/// are set are changes to the checkpoint too: its position embedding is resampled, its head replaced.
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
        return Err(Error::Mismatch(format!(
            "{}: expected a dense checkpoint to start from, found an adaptive one",
            path.display()
        )));
    }
    if imported.origin != Origin::Adavit {
        // Other libraries store neither a preset nor where the position embedding comes from.
        checkpoint.config.preset.clone_from(&expected.preset);
        checkpoint.config.pos_embed = expected.pos_embed;
    }
    // Sizes decide, not the name that they have. The checkpoint keeps its eps, and may have been trained
    // on other data.
    let found = ModelConfig {
        preset: expected.preset.clone(),
        layer_norm_eps: expected.layer_norm_eps,
        normalization: None,
        preprocessing: None,
        class_names: Vec::new(),
        trained_on: None,
        ..checkpoint.config.clone()
    };
    if found != expected {
        return Err(misfit(path, &expected, &found)?);
    }
    describe_data(&mut checkpoint.config, data);
    Ok((checkpoint, imported.notes))
}

/// The error for a checkpoint of other sizes; it lists every field that differs.
fn misfit(path: &Path, expected: &ModelConfig, found: &ModelConfig) -> Result<Error> {
    let (expected_fields, found_fields) = (fields(expected)?, fields(found)?);
    let differing: BTreeSet<&String> = expected_fields
        .keys()
        .chain(found_fields.keys())
        .filter(|&name| expected_fields.get(name) != found_fields.get(name))
        .collect();
    let listed = |fields: &serde_json::Map<String, Value>| {
        let listed = differing.iter().map(|&name| match fields.get(name) {
            Some(Value::String(text)) => format!("{name} {text}"),
            Some(value) => format!("{name} {value}"),
            None => format!("no {name}"),
        });
        listed.collect::<Vec<_>>().join(", ")
    };
    Ok(Error::Mismatch(format!(
        "{}: expected a checkpoint of {} with {}, found {}; set preset or the table model to the \
         checkpoint's sizes, or convert the checkpoint, which can change classes, image size and \
         distillation",
        path.display(),
        expected.preset,
        listed(&expected_fields),
        listed(&found_fields),
    )))
}

/// The fields of a configuration by name; those at their default may be absent.
fn fields(config: &ModelConfig) -> Result<serde_json::Map<String, Value>> {
    match serde_json::to_value(config) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => {
            let message = format!("expected an object, found {other}");
            Err(Error::encode("config.json", &message))
        }
        Err(error) => Err(Error::encode("config.json", &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> Splits {
        let names = vec!["a".to_owned(), "b".to_owned()];
        let set = |n: usize| {
            let labels = (0..n).map(|i| (i % 2) as u8).collect();
            Dataset::new("made", [1, 28, 28], vec![7; n * 784], labels, names.clone()).unwrap()
        };
        Splits {
            train: set(4),
            test: set(2),
        }
    }

    /// The settings of a small model, with more.
    fn config(more: &str) -> TrainConfig {
        let small = "[model]\nembed_dim = 16\ndepth = 2\nnum_heads = 2\n";
        TrainConfig::from_toml(&format!("{small}{more}")).unwrap()
    }

    #[test]
    fn a_dense_checkpoint_that_does_not_fit_is_refused_with_what_differs() {
        let (folder, data) = (tempfile::tempdir().unwrap(), data());
        let mut started = config("");
        started.dense_checkpoint = Some(folder.path().to_path_buf());
        for (change, expected, found) in [
            ("in_chans = 3", "in_chans 1", "in_chans 3"),
            ("num_classes = 3", "num_classes 10", "num_classes 3"),
            ("qkv_bias = false", "qkv_bias true", "qkv_bias false"),
            (
                "pos_embed = \"sinusoid\"",
                "pos_embed learned",
                "pos_embed sinusoid",
            ),
            ("mlp_ratio = 2.0", "mlp_ratio 4.0", "mlp_ratio 2.0"),
            ("patch_size = 14", "patch_size 7", "patch_size 14"),
        ] {
            let model = config(change).dense_model().unwrap();
            let tensors = initial_tensors(&model, 0, 0.0).unwrap();
            let checkpoint = Checkpoint {
                config: model,
                tensors,
            };
            checkpoint.save(folder.path()).unwrap();
            let error = Session::prepare(&started, &data, &Device::Cpu, None).unwrap_err();
            assert!(matches!(error, Error::Mismatch(_)), "{error:?}");
            let text = error.to_string();
            let said = format!("with {expected}, found {found}; set");
            assert!(text.contains(&said), "{text}");
        }
    }

    #[test]
    fn a_dense_checkpoint_of_the_configured_sizes_is_taken() {
        let (folder, data) = (tempfile::tempdir().unwrap(), data());
        let mut config = config("");
        let session = Session::prepare(&config, &data, &Device::Cpu, None).unwrap();
        session
            .initial_dense()
            .unwrap()
            .save(folder.path())
            .unwrap();
        config.dense_checkpoint = Some(folder.path().to_path_buf());
        let session = Session::prepare(&config, &data, &Device::Cpu, None).unwrap();
        assert!(session.given_dense.is_some());
    }
}
