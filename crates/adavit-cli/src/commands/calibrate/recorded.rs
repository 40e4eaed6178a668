//! What a checkpoint was trained on: which images it must not be calibrated on.

use std::path::{Path, PathBuf};

use adavit_data::{KNOWN_NAMES, Labelled, Splits};
use adavit_model::{ModelConfig, TrainedOn};
use adavit_train::{TrainConfig, load_data, open_parts, trained_on};
use anyhow::Result;

use crate::exit::bad_input;
use crate::output::message;
use crate::source::settings_of_run;

/// What is known of a checkpoint's training.
#[derive(Debug)]
pub(super) struct Recorded {
    checkpoint: PathBuf,
    /// The settings of the run that it belongs to.
    run: Option<TrainConfig>,
    /// The record in its `config.json`.
    record: Option<TrainedOn>,
}

/// The images that options choose, in place of those that are recorded.
#[derive(Debug, Clone, Copy)]
pub(super) struct GivenImages<'a> {
    pub(super) data: Option<&'a str>,
    pub(super) data_dir: Option<&'a Path>,
    pub(super) class_map: Option<&'a Path>,
    pub(super) held_out: Option<f64>,
    pub(super) seed: Option<u64>,
}

impl Recorded {
    pub(super) fn of(checkpoint: &Path, config: &ModelConfig) -> Result<Self> {
        Ok(Self {
            checkpoint: checkpoint.to_path_buf(),
            run: settings_of_run(checkpoint)?,
            record: config.trained_on.clone(),
        })
    }

    /// Returns settings with the images of the training: those of the run, else of the record, which
    /// options override.
    ///
    /// # Errors
    /// If the record names a folder that only who trained the model knows.
    pub(super) fn settings(&self, given: &GivenImages) -> Result<TrainConfig> {
        let mut settings = self.run.clone().unwrap_or_default();
        if let Some(record) = &self.record {
            (settings.held_out, settings.seed) = (record.held_out, record.seed);
            let known = KNOWN_NAMES.contains(&record.data.as_str());
            if self.run.is_none() && given.data.is_none() {
                if !known {
                    return Err(bad_input(format!(
                        "data: the checkpoint was trained on {} images of a folder called {}; give that \
                         folder by --data",
                        record.images, record.data
                    )));
                }
                settings.data.clone_from(&record.data);
            }
        }
        if let Some(data) = given.data {
            settings.data = data.into();
            settings.data_dir = None;
        }
        if let Some(folder) = given.data_dir {
            settings.data_dir = Some(folder.into());
        }
        if let Some(file) = given.class_map {
            settings.class_map = Some(file.into());
        }
        settings.held_out = given.held_out.unwrap_or(settings.held_out);
        settings.seed = given.seed.unwrap_or(settings.seed);
        Ok(settings)
    }

    /// Loads the images of the settings, and returns how many pictures were left out.
    pub(super) fn load(
        &self,
        given: &GivenImages,
        settings: &TrainConfig,
        model: &ModelConfig,
    ) -> Result<(Splits, usize)> {
        if self.run.is_some() && given.data.is_none() && given.class_map.is_none() {
            return Ok((load_data(&self.checkpoint, settings)?, 0));
        }
        let images = open_parts(settings, model)?;
        for note in &images.notes {
            message(&format!("note: {note}"));
        }
        Ok((images.splits, images.left_out))
    }

    /// Returns what is wrong with choosing thresholds on the held-out images of `train`, if anything.
    pub(super) fn warning(
        &self,
        given: &GivenImages,
        settings: &TrainConfig,
        train: &dyn Labelled,
    ) -> Result<Option<String>> {
        let now = trained_on(train, settings.held_out, settings.seed)?;
        // A run of an older version records its settings only: that its images are the same.
        let of_run = self.run.as_ref().filter(|_| given.data.is_none());
        let of_run = of_run.map(|run| trained_on(train, run.held_out, run.seed));
        let Some(record) = self.record.clone().or(of_run.transpose()?) else {
            return Ok(Some(
                "the checkpoint does not record what it was trained on, so it may have learnt these \
                 images"
                    .into(),
            ));
        };
        let differences = record.differences(&now);
        Ok((!differences.is_empty()).then(|| {
            format!(
                "the checkpoint was trained with other held-out images, so it may have learnt these: {}",
                differences.join("; ")
            )
        }))
    }
}
