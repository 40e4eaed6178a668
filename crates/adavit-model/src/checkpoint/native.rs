//! Native checkpoints: a folder with `model.safetensors` and `config.json`.
//!
//! Loading is strict: the error names every missing, unused and misshapen tensor, all at once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;

use crate::checkpoint::file::safetensors::read_tensors;
use crate::checkpoint::file::write::{write_file, write_tensors};
use crate::checkpoint::tensors::{Tensors, tensor_shapes};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::prepared::PreparedTransformer;
use crate::vit::VisionTransformer;

const WEIGHTS_FILE: &str = "model.safetensors";
pub(super) const CONFIG_FILE: &str = "config.json";

/// A model's configuration and weights.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// What the model is made of.
    pub config: ModelConfig,
    /// Exactly the tensors that it consists of.
    pub tensors: Tensors,
}

impl Checkpoint {
    /// Reads a checkpoint: a folder with `model.safetensors` and `config.json`, a run folder (its
    /// `best`), or the path of such a `model.safetensors`.
    ///
    /// # Errors
    /// If a file is missing or damaged, the configuration is invalid, or the tensors are not
    /// exactly those of the configuration.
    pub fn load(path: &Path) -> Result<Self> {
        let (checkpoint, weights_path) = Self::read(path)?;
        checkpoint.check(&weights_path)?;
        Ok(checkpoint)
    }

    /// As [`Self::load`] without comparing tensors and configuration; also returns the weights' file.
    pub(crate) fn read(path: &Path) -> Result<(Self, PathBuf)> {
        let weights_path = locate(path)?;
        let config_path = weights_path.with_file_name(CONFIG_FILE);
        let text = std::fs::read_to_string(&config_path).map_err(|source| Error::Unreadable {
            path: config_path.clone(),
            source,
        })?;
        let config: ModelConfig =
            serde_json::from_str(&text).map_err(|error| Error::Checkpoint {
                path: config_path,
                message: format!("not a model configuration: {error}"),
            })?;
        let tensors = read_tensors(&weights_path)?;
        Ok((Self { config, tensors }, weights_path))
    }

    /// Writes `model.safetensors` and `config.json` into `folder`, which is made if it is missing.
    ///
    /// # Errors
    /// If the folder or a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(Error::io("creating", folder))?;
        write_tensors(&folder.join(WEIGHTS_FILE), &self.tensors)?;
        let config_path = folder.join(CONFIG_FILE);
        let config = serde_json::to_string_pretty(&self.config)
            .map_err(|error| Error::io("writing", &config_path)(error.into()))?;
        write_file(&config_path, format!("{config}\n").as_bytes())
    }

    /// Returns the number of parameters.
    pub fn num_parameters(&self) -> usize {
        self.tensors.values().map(Tensor::elem_count).sum()
    }

    /// Builds the model on `device`, without gradients.
    pub fn model(&self, device: &Device) -> Result<VisionTransformer> {
        VisionTransformer::new(&self.config, &self.variables(device)?)
    }

    /// Prepares the model for inference on `device`.
    pub fn prepared(&self, device: &Device) -> Result<PreparedTransformer> {
        PreparedTransformer::new(&self.config, &self.variables(device)?)
    }

    /// As [`Self::prepared`] by candle's operations, also on the CPU.
    pub fn gathered(&self, device: &Device) -> Result<PreparedTransformer> {
        PreparedTransformer::gathered(&self.config, &self.variables(device)?)
    }

    fn variables(&self, device: &Device) -> Result<VarBuilder<'static>> {
        let on_device = self
            .tensors
            .iter()
            .map(|(name, tensor)| Ok((name.clone(), tensor.to_device(device)?)))
            .collect::<candle_core::Result<HashMap<_, _>>>()?;
        Ok(VarBuilder::from_tensors(on_device, DType::F32, device))
    }

    /// Checks that the tensors are exactly those of the configuration; `path` is for the error.
    pub(crate) fn check(&self, path: &Path) -> Result<()> {
        let expected = tensor_shapes(&self.config).map_err(|error| Error::Checkpoint {
            path: path.with_file_name(CONFIG_FILE),
            message: error.to_string(),
        })?;
        let missing = expected.keys().filter(|n| !self.tensors.contains_key(*n));
        let unused = self.tensors.keys().filter(|n| !expected.contains_key(*n));
        let (missing, unused): (Vec<_>, Vec<_>) =
            (missing.cloned().collect(), unused.cloned().collect());
        let both = expected
            .iter()
            .filter_map(|(name, shape)| Some((name, shape.dims(), self.tensors.get(name)?)));
        let misshapen: Vec<String> = both
            .filter(|(_, expected, found)| *expected != found.dims() || found.dtype() != DType::F32)
            .map(|(name, expected, found)| {
                let (dims, dtype) = (found.dims(), found.dtype());
                format!("{name} (expected {expected:?} floats, found {dims:?} {dtype:?})")
            })
            .collect();
        if missing.is_empty() && unused.is_empty() && misshapen.is_empty() {
            return Ok(());
        }
        Err(Error::Tensors {
            path: path.to_path_buf(),
            missing,
            unused,
            misshapen,
        })
    }
}

/// The weights file that `path` stands for.
fn locate(path: &Path) -> Result<PathBuf> {
    if path.is_file() {
        return Ok(path.to_path_buf());
    }
    let candidates = [
        path.join(WEIGHTS_FILE),
        path.join("best").join(WEIGHTS_FILE),
    ];
    let found = candidates.into_iter().find(|file| file.is_file());
    found.ok_or_else(|| Error::Checkpoint {
        path: path.to_path_buf(),
        message: format!(
            "no checkpoint: expected a folder with {WEIGHTS_FILE} and {CONFIG_FILE}, a run folder \
             with best/, or a {WEIGHTS_FILE} file"
        ),
    })
}
