//! A recording: weights, input, and every number that came out, in one safetensors file.

use std::path::{Path, PathBuf};

use adavit_decision::UsageLoss;
use candle_core::Tensor;
use serde::de::DeserializeOwned;

use super::published::{PublishedConfig, PublishedLoss};
use crate::checkpoint::file::safetensors::SafetensorsFile;
use crate::checkpoint::import::names::own_names;
use crate::checkpoint::tensors::Tensors;
use crate::config::ModelConfig;
use crate::error::{Error, Result};

/// The temperature of training recordings that do not say theirs.
const TAU: f64 = 5.0;

/// A recording of another implementation; `docs/recordings.md` says what is in one.
#[derive(Debug, Clone)]
pub struct Recording {
    path: PathBuf,
    /// The recorded model.
    pub config: ModelConfig,
    /// Of the budget losses, if recorded in training.
    pub usage_loss: Option<UsageLoss>,
    /// The temperature of the gates in training.
    pub tau: f64,
    weights: Tensors,
    gradients: Tensors,
    tensors: Tensors,
}

impl Recording {
    /// Reads a recording.
    ///
    /// # Errors
    /// If the file is damaged or no recording.
    pub fn load(path: &Path) -> Result<Self> {
        let mut file = SafetensorsFile::open(path)?;
        let fail = |message: String| Error::Recording {
            path: path.to_path_buf(),
            message,
        };
        let metadata = file.metadata();
        let Some(config) = metadata.get("config") else {
            return Err(fail(
                "no recording: expected the metadata to hold a config; docs/recordings.md says what \
                 a recording is"
                    .into(),
            ));
        };
        let config: PublishedConfig = json("config", config).map_err(fail)?;
        let usage_loss = metadata.get("loss_config");
        let usage_loss: Option<PublishedLoss> = usage_loss
            .map(|text| json("loss_config", text))
            .transpose()
            .map_err(fail)?;
        let tau = metadata.get("tau").map(|tau| tau.parse());
        let tau = tau
            .transpose()
            .map_err(|error| fail(format!("tau: {error}")))?;
        let config = config.model().map_err(fail)?;
        config
            .validate()
            .map_err(|error| fail(format!("config: {error}")))?;
        let mut recording = Self {
            path: path.to_path_buf(),
            config,
            usage_loss: usage_loss.map(PublishedLoss::usage_loss),
            tau: tau.unwrap_or(TAU),
            weights: Tensors::new(),
            gradients: Tensors::new(),
            tensors: Tensors::new(),
        };
        recording.sort(file.read_all()?)?;
        Ok(recording)
    }

    /// Sorts the tensors of the file by what they are.
    fn sort(&mut self, tensors: Tensors) -> Result<()> {
        let (mut weights, mut gradients) = (Tensors::new(), Tensors::new());
        for (name, tensor) in tensors {
            if let Some(name) = name.strip_prefix("weights.") {
                weights.insert(name.into(), tensor);
            } else if let Some(name) = name.strip_prefix("grad.") {
                gradients.insert(name.into(), tensor);
            } else {
                self.tensors.insert(name, tensor);
            }
        }
        // Models of timm and transformers have names of their own, and so have their gradients.
        let mut notes = Vec::new();
        self.weights = own_names(weights, &mut notes)?.0;
        self.gradients = own_names(gradients, &mut notes)?.0;
        Ok(())
    }

    /// Whether noise, losses and gradients were recorded.
    pub fn is_training(&self) -> bool {
        self.tensors.contains_key("loss")
    }

    /// The recorded images, `(B, in_chans, height, width)`.
    pub fn input(&self) -> Result<&Tensor> {
        self.expect("input")
    }

    /// The recorded tensor of this name, if there is one.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn weights(&self) -> Result<&Tensors> {
        if self.weights.is_empty() {
            return Err(self.unfit("no weights recorded: give a checkpoint with them"));
        }
        Ok(&self.weights)
    }

    pub(super) fn gradients(&self) -> &Tensors {
        &self.gradients
    }

    pub(super) fn expect(&self, name: &str) -> Result<&Tensor> {
        let tensor = self.tensors.get(name);
        tensor.ok_or_else(|| self.unfit(&format!("no tensor {name} recorded")))
    }

    /// The recorded noises, in the order of the gate calls; token noise as `(B, N - 1)`.
    pub(super) fn noises(&self) -> candle_core::Result<Vec<Tensor>> {
        (0..)
            .map_while(|n| self.tensors.get(&format!("noise.{n}")))
            .map(|noise| match noise.rank() {
                3 => noise.squeeze(2),
                _ => Ok(noise.clone()),
            })
            .collect()
    }

    /// An error about this recording.
    pub(super) fn unfit(&self, message: &str) -> Error {
        Error::Recording {
            path: self.path.clone(),
            message: message.into(),
        }
    }
}

fn json<T: DeserializeOwned>(key: &str, text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| format!("{key} in the metadata: {error}"))
}
