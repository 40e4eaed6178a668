//! Checkpoints of others: of timm, Hugging Face, and the published AdaViT, DeiT and T2T-ViT code.
//!
//! Tensors get the names of the published AdaViT code, and the configuration is found from their
//! shapes, as far as shapes tell; what they do not is said.

mod adapt;
mod foreign;
mod names;
mod shapes;

use std::path::Path;

pub(crate) use self::names::own_names;
use crate::checkpoint::file::{StateDict, is_safetensors, read_state_dict};
use crate::checkpoint::native::Checkpoint;
use crate::checkpoint::tensors::Tensors;
use crate::config::ModelConfig;
use crate::error::{Error, Result};

/// Who wrote a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// adavit: with a `config.json` of its own.
    Adavit,
    /// timm, or PyTorch code with its names: DeiT's, T2T-ViT's, the published AdaViT's.
    Timm,
    /// Hugging Face's transformers: `ViTForImageClassification` and DeiT's.
    HuggingFace,
}

impl Source {
    /// The source's name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Adavit => "adavit",
            Self::Timm => "timm",
            Self::HuggingFace => "Hugging Face transformers",
        }
    }
}

/// What to make of a checkpoint, where it is not taken as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// Heads, where neither a shape nor a file tells.
    pub num_heads: Option<usize>,
    /// Height and width of the images, for which the position embedding is resampled.
    pub img_size: Option<(usize, usize)>,
    /// Classes of a new head, in place of the one that is there.
    pub num_classes: Option<usize>,
    /// Of the new head.
    pub seed: u64,
    /// Leave out the distillation token and its head.
    pub drop_distillation: bool,
}

/// A checkpoint, and how it was understood.
#[derive(Debug, Clone)]
pub struct Imported {
    /// What was read.
    pub checkpoint: Checkpoint,
    /// Who wrote it.
    pub source: Source,
    /// The format of its file.
    pub format: &'static str,
    /// The key under which the weights were, if they were not on top.
    pub wrapper: Option<String>,
    /// What was assumed or changed, a sentence each.
    pub notes: Vec<String>,
}

/// Reads a checkpoint of adavit, or a file of timm, Hugging Face or PyTorch code with timm's names:
/// safetensors, or what `torch.save` wrote, whatever the file's name ends with.
///
/// # Errors
/// If a file is missing or damaged, the shapes describe no model, tensors are missing, unused or
/// misshapen, or the options do not fit the model.
pub fn import(path: &Path, options: &ImportOptions) -> Result<Imported> {
    let (imported, fits) = inspect(path, options)?;
    fits.map(|()| imported)
}

/// As [`import`], but a checkpoint whose tensors are not exactly those of its configuration is told
/// all the same, beside the error that says what does not fit.
///
/// # Errors
/// If a file is missing or damaged, the shapes describe no model, or the options do not fit it.
pub fn inspect(path: &Path, options: &ImportOptions) -> Result<(Imported, Result<()>)> {
    let (mut imported, weights_path) = if path.is_dir() || is_native(path) {
        let (checkpoint, weights_path) = Checkpoint::read(path)?;
        let told = checkpoint.config.num_heads;
        if let Some(given) = options.num_heads.filter(|given| *given != told) {
            return Err(Error::Config(format!(
                "num_heads: the checkpoint's config.json tells {told}, where {given} was given"
            )));
        }
        let imported = Imported {
            checkpoint,
            source: Source::Adavit,
            format: "safetensors",
            wrapper: None,
            notes: Vec::new(),
        };
        (imported, weights_path)
    } else {
        (foreign_checkpoint(path, options)?, path.to_path_buf())
    };
    imported
        .checkpoint
        .config
        .validate()
        .map_err(|error| Error::Checkpoint {
            path: weights_path.clone(),
            message: format!("its configuration: {error}"),
        })?;
    let before = imported.checkpoint.check(&weights_path);
    if let Err(Error::Tensors { misshapen, .. }) = &before
        && !misshapen.is_empty()
    {
        // Nothing to build on.
        return Ok((imported, before));
    }
    adapt::adapt(&mut imported, options)?;
    let fits = imported.checkpoint.check(&weights_path);
    Ok((imported, fits))
}

/// Reads a checkpoint as [`import`] does, for a model whose configuration is known.
///
/// # Errors
/// If a file is missing or damaged, or tensors are missing, unused or misshapen.
pub fn import_as(path: &Path, config: &ModelConfig) -> Result<Imported> {
    if path.is_dir() {
        let options = ImportOptions::default();
        let mut imported = import(path, &options)?;
        imported.checkpoint.config = config.clone();
        imported.checkpoint.check(path)?;
        return Ok(imported);
    }
    let found = Found::read(path)?;
    let checkpoint = Checkpoint {
        config: config.clone(),
        tensors: found.tensors,
    };
    checkpoint.check(path)?;
    Ok(Imported {
        checkpoint,
        source: found.source,
        format: found.format,
        wrapper: found.wrapper,
        notes: found.notes,
    })
}

/// Whether these are safetensors with a `config.json` of ours beside; others write one too.
fn is_native(path: &Path) -> bool {
    is_safetensors(path)
        && std::fs::read_to_string(path.with_file_name("config.json"))
            .is_ok_and(|text| serde_json::from_str::<ModelConfig>(&text).is_ok())
}

/// Tensors under our names, and where they come from.
struct Found {
    tensors: Tensors,
    source: Source,
    format: &'static str,
    wrapper: Option<String>,
    notes: Vec<String>,
}

impl Found {
    fn read(path: &Path) -> Result<Self> {
        let StateDict {
            tensors,
            format,
            wrapper,
            beside,
            no_tensors,
        } = read_state_dict(path)?;
        let mut notes = Vec::new();
        if let Some(wrapper) = &wrapper {
            notes.push(if beside.is_empty() {
                format!("the weights are those under {wrapper}")
            } else {
                let beside = beside.join(", ");
                format!("the weights are those under {wrapper}; beside it were {beside}")
            });
        }
        if !no_tensors.is_empty() {
            notes.push(format!(
                "left out, since they are no tensors: {}",
                no_tensors.join(", ")
            ));
        }
        let (tensors, source) = own_names(tensors, &mut notes)?;
        Ok(Self {
            tensors,
            source,
            format,
            wrapper,
            notes,
        })
    }
}

fn foreign_checkpoint(path: &Path, options: &ImportOptions) -> Result<Imported> {
    let Found {
        tensors,
        source,
        format,
        wrapper,
        mut notes,
    } = Found::read(path)?;
    let told = foreign::beside(path);
    let config = shapes::config_of(&tensors, source, (&told, options), &mut notes);
    let config = config.map_err(|message| Error::Checkpoint {
        path: path.to_path_buf(),
        message,
    })?;
    Ok(Imported {
        checkpoint: Checkpoint { config, tensors },
        source,
        format,
        wrapper,
        notes,
    })
}
