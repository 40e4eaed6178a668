//! Reading a checkpoint, whoever wrote it.

use std::path::{Path, PathBuf};

use candle_core::DType;

use super::adapt::adapt;
use super::folder::foreign_weights;
use super::imported::{ImportOptions, Imported, Origin};
use super::names::own_names;
use super::shapes::Evidence;
use super::sidecar::Sidecar;
use crate::checkpoint::file::open::{is_safetensors, read_state_dict};
use crate::checkpoint::file::sharded::{index_beside, is_index, read_sharded};
use crate::checkpoint::file::state_dict::StateDict;
use crate::checkpoint::native::{CONFIG_FILE, Checkpoint};
use crate::checkpoint::tensors::Tensors;
use crate::config::{ModelConfig, is_stored_config};
use crate::error::{Error, Result};

/// Reads a checkpoint of adavit, or one of timm, Hugging Face, torchvision or PyTorch code with timm's
/// names: safetensors, or what `torch.save` wrote, whatever the file's name ends with; a folder of the
/// Hugging Face hub; the index of several files.
///
/// # Errors
/// If a file is missing or damaged, the shapes describe no model, tensors are missing, unused or
/// misshapen, or the options do not fit the model.
pub fn import(path: &Path, options: &ImportOptions) -> Result<Imported> {
    let (imported, fits) = inspect(path, options)?;
    fits.map(|()| imported)
}

/// As [`import`], but also returns a checkpoint whose tensors are not exactly those of its
/// configuration, beside the error that says what does not fit.
///
/// # Errors
/// If a file is missing or damaged, the shapes describe no model, or the options do not fit it.
pub fn inspect(path: &Path, options: &ImportOptions) -> Result<(Imported, Result<()>)> {
    let (mut imported, weights_path) = match foreign_weights(path) {
        Some(weights) => (foreign_checkpoint(&weights, options)?, weights),
        None if path.is_dir() || is_native(path) => native_checkpoint(path, options)?,
        None => (foreign_checkpoint(path, options)?, path.to_path_buf()),
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
    adapt(&mut imported, options)?;
    let fits = imported.checkpoint.check(&weights_path);
    let fits = fits.and_then(|()| check_finite(&imported.checkpoint.tensors, &weights_path));
    Ok((imported, fits))
}

/// Checks that no weight is infinite or not a number: such a model has diverged, or its file is
/// damaged.
fn check_finite(tensors: &Tensors, path: &Path) -> Result<()> {
    for (name, tensor) in tensors {
        // The sum of finite weights is finite: they are far from the largest float.
        let sum = tensor.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()?;
        if !sum.is_finite() {
            return Err(Error::Checkpoint {
                path: path.to_path_buf(),
                message: format!(
                    "{name} holds a value that is not finite: the model diverged in training, or the \
                     file is damaged"
                ),
            });
        }
    }
    Ok(())
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
    let named = NamedTensors::read(path)?;
    let imported = named.into_imported(config.clone(), false);
    imported.checkpoint.check(path)?;
    Ok(imported)
}

/// Reads one file, or those of an index.
fn read_weights(path: &Path) -> Result<StateDict> {
    if is_index(path) {
        return read_sharded(path);
    }
    if let Some(index) = index_beside(path) {
        return Err(Error::Checkpoint {
            path: path.to_path_buf(),
            message: format!(
                "one file of several; expected the folder, or the index {}",
                index.display()
            ),
        });
    }
    read_state_dict(path)
}

/// Whether these are safetensors with a `config.json` of ours beside; others write one too.
fn is_native(path: &Path) -> bool {
    is_safetensors(path)
        && std::fs::read_to_string(path.with_file_name(CONFIG_FILE))
            .is_ok_and(|text| is_stored_config(&text))
}

/// Tensors under our names, and where they come from.
struct NamedTensors {
    tensors: Tensors,
    origin: Origin,
    format: &'static str,
    wrapper: Option<String>,
    notes: Vec<String>,
}

impl NamedTensors {
    fn read(path: &Path) -> Result<Self> {
        let StateDict {
            tensors,
            format,
            wrapper,
            beside,
            no_tensors,
        } = read_weights(path)?;
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
        let named = own_names(tensors, &mut notes).map_err(|error| match error {
            Error::Import(message) => Error::Checkpoint {
                path: path.to_path_buf(),
                message,
            },
            other => other,
        });
        let (tensors, origin) = named?;
        Ok(Self {
            tensors,
            origin,
            format,
            wrapper,
            notes,
        })
    }

    fn into_imported(self, config: ModelConfig, num_heads_assumed: bool) -> Imported {
        Imported {
            checkpoint: Checkpoint {
                config,
                tensors: self.tensors,
            },
            origin: self.origin,
            format: self.format,
            wrapper: self.wrapper,
            num_heads_assumed,
            notes: self.notes,
        }
    }
}

/// A checkpoint of adavit, and its weights' file.
fn native_checkpoint(path: &Path, options: &ImportOptions) -> Result<(Imported, PathBuf)> {
    let (checkpoint, weights_path) = Checkpoint::read(path)?;
    let known = checkpoint.config.num_heads;
    if let Some(given) = options.num_heads.filter(|given| *given != known) {
        return Err(Error::Import(format!(
            "num_heads: expected {known}, as the checkpoint's {CONFIG_FILE} says, found {given}; \
             leave it out"
        )));
    }
    let imported = Imported {
        checkpoint,
        origin: Origin::Adavit,
        format: "safetensors",
        wrapper: None,
        num_heads_assumed: false,
        notes: Vec::new(),
    };
    Ok((imported, weights_path))
}

fn foreign_checkpoint(path: &Path, options: &ImportOptions) -> Result<Imported> {
    let mut named = NamedTensors::read(path)?;
    let evidence = Evidence {
        tensors: &named.tensors,
        origin: named.origin,
        sidecar: &Sidecar::beside(path)?,
        options,
    };
    let found = evidence.config(&mut named.notes);
    let found = found.map_err(|message| Error::Checkpoint {
        path: path.to_path_buf(),
        message,
    })?;
    Ok(named.into_imported(found.config, found.num_heads_assumed))
}
