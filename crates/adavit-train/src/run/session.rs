//! What a run has before its first step: settings, images, device, initial models.

use std::path::Path;

use adavit_data::{
    Labelled, Loader, LoaderOptions, Normalization, RepeatedSample, Split, Splits, all_indices,
    held_out, repeated_order, stored_order,
};
use adavit_model::{Checkpoint, ModelConfig, TrainedOn, initial_tensors, is_decision_tensor};
use candle_core::Device;

use crate::config::device::check_device;
use crate::config::method::Method;
use crate::config::stage_config::StageConfig;
use crate::config::train_config::TrainConfig;
use crate::error::Result;
use crate::eval::images::{Images, check_images};
use crate::optim::schedule::LrSchedule;
use crate::run::given_dense::given_dense;
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
    /// Which images are trained on, and which choose epochs and thresholds: those of the part `val`, or
    /// held-out ones of `train`.
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
    /// [`Error::Setting`](crate::Error::Setting) if a setting cannot be used, alone or with these images
    /// or this device; [`Error::Mismatch`](crate::Error::Mismatch) if images or checkpoint do not fit the
    /// configured model.
    pub fn prepare(
        config: &TrainConfig,
        data: &'d Splits,
        device: &Device,
        kept_dense: Option<&Path>,
    ) -> Result<Self> {
        config.validate()?;
        check_device(&config.device, device)?;
        let model = config.dense_model()?;
        for part in [Some(&data.train), data.val.as_ref(), Some(&data.test)] {
            part.map_or(Ok(()), |part| check_images(&model, part.as_ref()))?;
        }
        config.augment.validate(data.train.dims())?;
        let split = match &data.val {
            Some(val) => Split {
                train: all_indices(data.train.as_ref()),
                held_out: all_indices(val.as_ref()),
            },
            None => held_out(data.train.len(), config.held_out, config.seed)?,
        };
        let given = config.dense_checkpoint.as_deref();
        let given = given.map(|path| (kept_dense.unwrap_or(path), kept_dense.is_none()));
        let (mut given_dense, mut notes) = match given {
            Some((path, fresh)) => {
                let (checkpoint, notes) = given_dense(config, path, fresh)?;
                (Some(checkpoint), notes)
            }
            None => (None, Vec::new()),
        };
        if let Some(recorded) = given_dense
            .as_ref()
            .and_then(|given| given.config.trained_on.as_ref())
        {
            let now = trained_on(data.train.as_ref(), config.held_out, config.seed)?;
            notes.extend(seen_note(recorded, &now));
        }
        let of_model = given_dense
            .as_ref()
            .and_then(|given| given.config.normalization.clone());
        let normalization = match of_model {
            Some(normalization) => normalization,
            None => data.train.normalization()?,
        };
        if let Some(given) = &mut given_dense {
            describe_data(&mut given.config, data.train.as_ref(), &normalization);
        }
        Ok(Self {
            config: config.clone(),
            device: device.clone(),
            data,
            split,
            normalization,
            given_dense,
            notes,
        })
    }

    /// Returns the images that choose epochs and thresholds.
    pub fn held_out(&self) -> Images<'_> {
        let dataset = self.data.val.as_ref().unwrap_or(&self.data.train);
        self.images(dataset.as_ref(), &self.split.held_out)
    }

    /// Returns the images at `indices` of `dataset`, for an evaluation with this run's settings.
    pub fn images<'a>(&'a self, dataset: &'a dyn Labelled, indices: &'a [u32]) -> Images<'a> {
        Images {
            dataset,
            indices,
            normalization: &self.normalization,
            batch_size: self.config.eval_batch_size,
            device: &self.device,
        }
    }

    /// Returns what binds snapshots to this run: a checksum of the mark of its settings and of its data.
    ///
    /// # Errors
    /// If the images cannot be read.
    pub(crate) fn mark(&self, settings: u32) -> Result<u32> {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&settings.to_le_bytes());
        let parts = [
            Some(&self.data.train),
            self.data.val.as_ref(),
            Some(&self.data.test),
        ];
        for part in parts.into_iter().flatten() {
            part.identify(&mut |bytes| hasher.update(bytes))?;
        }
        Ok(hasher.finalize())
    }

    /// Returns the order of an epoch. With repeated augmentation it is as long as without, and sees one
    /// image of so many: see [`repeated_order`].
    pub(crate) fn order(&self, epoch: u64) -> Vec<RepeatedSample> {
        let (runs, train) = (self.data.train.stored_runs(), &self.split.train);
        let order = stored_order(runs, train, self.config.seed, epoch);
        let mut order = repeated_order(&order, self.config.augment.aug_repeats.max(1));
        order.truncate(train.len());
        order
    }

    /// None for images that lie ready, else as many as there are threads.
    fn default_workers(&self) -> usize {
        if self.data.train.is_ready() {
            return 0;
        }
        let all = || std::thread::available_parallelism().map_or(1, usize::from);
        self.config.threads.unwrap_or_else(all)
    }

    /// Returns what makes the batches of the training.
    ///
    /// # Errors
    /// If the normalization does not fit the images.
    pub(crate) fn loader(&self) -> Result<Loader> {
        let options = LoaderOptions {
            workers: self
                .config
                .workers
                .unwrap_or_else(|| self.default_workers()),
            ..LoaderOptions::default()
        };
        let (set, normalization) = (self.data.train.clone(), self.normalization.clone());
        Ok(Loader::new(
            set,
            normalization,
            self.device.clone(),
            options,
        )?)
    }

    /// Returns the dense model before its first step.
    ///
    /// # Errors
    /// If the settings do not describe a model.
    pub fn initial_dense(&self) -> Result<Checkpoint> {
        let mut config = self.config.dense_model()?;
        describe_data(&mut config, self.data.train.as_ref(), &self.normalization);
        config.trained_on = Some(self.trained_on()?);
        let tensors = initial_tensors(&config, self.config.seed, 0.0)?;
        Ok(Checkpoint { config, tensors })
    }

    /// Returns the dense checkpoint that was given, as this run trains it further.
    pub(crate) fn described(&self, given: &Checkpoint) -> Result<Checkpoint> {
        let mut checkpoint = given.clone();
        checkpoint.config.trained_on = Some(self.trained_on()?);
        Ok(checkpoint)
    }

    /// Returns the adaptive model before its first step: the dense one with new decision networks.
    pub(crate) fn initial_adaptive(&self, dense: &Checkpoint) -> Result<Checkpoint> {
        let mut config = dense.config.clone();
        config.trained_on = Some(self.trained_on()?);
        if matches!(self.config.method, Method::Reduced { .. }) {
            let tensors = dense.tensors.clone();
            return Ok(Checkpoint { config, tensors });
        }
        let config = config.with_decisions(self.config.adaptive_decisions());
        let mut tensors = initial_tensors(&config, self.config.seed, self.config.gates.keep_logit)?;
        tensors.retain(|name, _| is_decision_tensor(name));
        tensors.extend(dense.tensors.clone());
        Ok(Checkpoint { config, tensors })
    }

    pub(crate) fn schedule(&self, stage: Stage) -> LrSchedule {
        let settings = self.stage_settings(stage);
        let per_epoch = self.steps_per_epoch(stage);
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
        let stage = Stage::Adaptive;
        if self.schedule(stage).total_steps < self.steps_per_epoch(stage) {
            return 1;
        }
        self.config.random_policies
    }

    /// What a checkpoint of this run records of its images.
    fn trained_on(&self) -> Result<TrainedOn> {
        trained_on(
            self.data.train.as_ref(),
            self.config.held_out,
            self.config.seed,
        )
    }

    /// The weight of each class in the loss, if they differ.
    pub(crate) fn class_weights(&self) -> Result<Option<Vec<f32>>> {
        let Some(weights) = &self.config.class_weights else {
            return Ok(None);
        };
        let (train, num_classes) = (&self.data.train, self.config.dense_model()?.num_classes);
        let labels = self.split.train.iter();
        let labels = labels.map(|index| train.label(*index as usize));
        Ok(Some(weights.of(labels, num_classes)))
    }

    /// Optimizer steps of an epoch, of which the last may have fewer batches.
    pub(crate) fn steps_per_epoch(&self, stage: Stage) -> u64 {
        let batches = self.split.train.len().div_ceil(self.config.batch_size);
        batches.div_ceil(self.stage_settings(stage).accum_steps) as u64
    }

    pub(crate) fn stage_settings(&self, stage: Stage) -> &StageConfig {
        match stage {
            Stage::Dense => &self.config.dense,
            _ => &self.config.adaptive,
        }
    }
}

/// Records normalization and class names of the data in a model's configuration, unless it has them.
fn describe_data(config: &mut ModelConfig, data: &dyn Labelled, normalization: &Normalization) {
    config
        .normalization
        .get_or_insert_with(|| normalization.clone());
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

#[cfg(test)]
mod tests {
    use adavit_data::{Dataset, Datasets};

    use super::*;
    use crate::error::Error;

    fn data() -> Splits {
        let names = vec!["a".to_owned(), "b".to_owned()];
        let set = |n: usize| {
            let labels = (0..n).map(|i| (i % 2) as u8).collect();
            Dataset::new("made", [1, 28, 28], vec![7; n * 784], labels, names.clone()).unwrap()
        };
        Datasets {
            train: set(4),
            test: set(2),
        }
        .into()
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
