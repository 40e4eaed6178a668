//! What a path names: a checkpoint, the run that it belongs to, test images.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use adavit_data::{Labelled, Normalization};
use adavit_model::{Checkpoint, ImportOptions, ModelConfig, PRESETS, import, initial_tensors};
use adavit_train::{ImageSource, TrainConfig, check_images, open_tested, run_config_of};
use anyhow::Result;
use clap::ArgGroup;
use clap::builder::PossibleValuesParser;

use crate::exit::bad_input;
use crate::output::message;
use crate::values::{img_size, num_classes};

/// What a checkpoint is read with, where it does not say so itself.
#[derive(Debug, clap::Args)]
pub(crate) struct ReadArgs {
    /// Number of heads, if the checkpoint does not say [default: the checkpoint's]
    #[arg(long, value_name = "N")]
    num_heads: Option<usize>,

    /// Image size; resamples the position embedding (bicubic, antialiased) [default: the
    /// checkpoint's]
    #[arg(long, value_name = "H[xW]", value_parser = img_size)]
    img_size: Option<(usize, usize)>,

    /// Drop the distillation token and its head
    #[arg(long)]
    drop_distillation: bool,
}

impl ReadArgs {
    pub(crate) fn options(&self) -> ImportOptions {
        ImportOptions {
            num_heads: self.num_heads,
            img_size: self.img_size,
            drop_distillation: self.drop_distillation,
            ..ImportOptions::default()
        }
    }
}

/// What a checkpoint is changed to.
#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    read: ReadArgs,

    /// Replace the head by an untrained one for K classes [default: keep the head]
    #[arg(long, value_name = "K", value_parser = num_classes)]
    num_classes: Option<usize>,

    /// Seed of the new head
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

impl ImportArgs {
    pub(crate) fn options(&self) -> ImportOptions {
        ImportOptions {
            num_classes: self.num_classes,
            seed: self.seed,
            ..self.read.options()
        }
    }
}

/// The model that is counted or timed: a checkpoint's or a preset's.
#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(group = ArgGroup::new("model").required(true).args(["checkpoint", "preset"]))]
pub(crate) struct ModelArgs {
    /// Checkpoint: a run folder, a checkpoint folder, a safetensors file, or a file of torch.save
    #[arg(value_name = "CKPT")]
    pub(crate) checkpoint: Option<PathBuf>,

    /// Backbone, in place of a checkpoint
    #[arg(long, value_name = "P", value_parser = PossibleValuesParser::new(PRESETS))]
    preset: Option<String>,

    /// Image size [default: the model's]
    #[arg(long, value_name = "H[xW]", value_parser = img_size)]
    img_size: Option<(usize, usize)>,

    /// Number of classes [default: the model's]
    #[arg(long, value_name = "K", value_parser = num_classes)]
    num_classes: Option<usize>,

    /// Number of heads, if the checkpoint does not say [default: the checkpoint's]
    #[arg(long, value_name = "N", conflicts_with = "preset")]
    num_heads: Option<usize>,
}

impl ModelArgs {
    /// Returns what the model is made of.
    pub(crate) fn config(&self) -> Result<ModelConfig> {
        let Some(preset) = &self.preset else {
            return Ok(self.read(0)?.config);
        };
        let mut config = ModelConfig::preset(preset)?;
        config.img_size = self.img_size.unwrap_or(config.img_size);
        config.num_classes = self.num_classes.unwrap_or(config.num_classes);
        config.validate()?;
        Ok(config)
    }

    /// Returns the checkpoint, or a preset's untrained one; `seed` draws what is untrained.
    pub(crate) fn open(&self, seed: u64) -> Result<Checkpoint> {
        if self.preset.is_none() {
            return self.read(seed);
        }
        let config = self.config()?;
        let tensors = initial_tensors(&config, seed, 0.0)?;
        Ok(Checkpoint { config, tensors })
    }

    fn read(&self, seed: u64) -> Result<Checkpoint> {
        let Some(path) = &self.checkpoint else {
            return Err(bad_input("expected a checkpoint or --preset"));
        };
        let options = ImportOptions {
            num_heads: self.num_heads,
            img_size: self.img_size,
            num_classes: self.num_classes,
            seed,
            drop_distillation: false,
        };
        open_checkpoint(path, &options)
    }
}

/// Reads a checkpoint and reports how it was understood.
///
/// # Errors
/// If it cannot be read, or its run's model does not make its own decisions.
pub(crate) fn open_checkpoint(path: &Path, options: &ImportOptions) -> Result<Checkpoint> {
    settings_of_run(path)?;
    let imported = import(path, options)?;
    for note in &imported.notes {
        message(&format!("note: {note}"));
    }
    Ok(imported.checkpoint)
}

/// Returns the settings of the run that a checkpoint belongs to, if it belongs to one.
///
/// # Errors
/// If the run's model does not make its own decisions: its checkpoint alone is another model.
pub(crate) fn settings_of_run(checkpoint: &Path) -> Result<Option<TrainConfig>> {
    let config = run_config_of(checkpoint)?;
    if let Some(config) = &config {
        config.method.expect_learned()?;
    }
    Ok(config)
}

/// Images with labels, and how they are normalised.
#[derive(Debug)]
pub(crate) struct TestImages {
    pub(crate) images: Arc<dyn Labelled>,
    pub(crate) normalization: Normalization,
    /// Pictures that are not among the images.
    pub(crate) left_out: usize,
}

/// Where test images are.
#[derive(Debug, clap::Args)]
pub(crate) struct DataArgs {
    /// Data set: fashion-mnist-subset (ships with the repository), fashion-scenes (built from it),
    /// fashion-mnist, mnist, or a path to folders of pictures, a list (CSV, JSON lines), parquet or tar
    /// shards, CIFAR's or IDX files
    #[arg(long, value_name = "NAME|PATH", default_value = "fashion-mnist-subset")]
    data: String,

    /// File that gives each folder or label its class: lines of FOLDER,CLASS or a JSON object
    /// [default: by names, or by numbers]
    #[arg(long, value_name = "FILE")]
    class_map: Option<PathBuf>,

    /// Folder with the files of a named data set [default: the Hugging Face hub, in a build with the
    /// feature hub]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl DataArgs {
    /// Opens the test images for a checkpoint's model. They are normalised as the checkpoint says, or
    /// by their own statistics if it says nothing.
    pub(crate) fn open(&self, checkpoint: &Path, config: &ModelConfig) -> Result<TestImages> {
        let source = ImageSource {
            data: self.data.clone(),
            data_dir: self.data_dir.clone(),
            class_map: self.class_map.clone(),
        };
        let tested = open_tested(&source, config)?;
        for note in &tested.notes {
            message(&format!("note: {note}"));
        }
        let images = tested.images;
        check_images(config, images.as_ref())
            .map_err(|error| bad_input(format!("{}: {error}", checkpoint.display())))?;
        let normalization = config.normalization_for(images.as_ref())?;
        if config.normalization.is_none() {
            message(&format!(
                "note: {}: its config.json has no normalization, so mean and std of these images are taken",
                checkpoint.display()
            ));
        }
        Ok(TestImages {
            images,
            normalization,
            left_out: tested.left_out,
        })
    }
}
