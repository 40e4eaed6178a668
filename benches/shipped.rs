//! The trained checkpoints and the test images that ship with the repository.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use adavit_data::{Labelled, Normalization, all_indices, make_batch};
use adavit_decision::Thresholds;
use adavit_model::{Checkpoint, PreparedTransformer};
use adavit_train::Images;
use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

/// The folder of the checkpoints in the repository.
pub const CHECKPOINTS: &str = "data/fashion-mnist-nano";
/// The folder of the dense one.
pub const DENSE: &str = "dense";
/// The data set whose test images ship.
const DATA: &str = "fashion-mnist-subset";

/// A model of the curve: a checkpoint, and thresholds if it is an adaptive one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShippedPoint {
    /// The folder of its checkpoint.
    pub checkpoint: String,
    /// Share of the dense model's multiply-adds; none for the dense model itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<f64>,
    /// Where its gates turn on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<Thresholds>,
    /// Accuracy on the shipped test images.
    pub top1: f64,
}

impl ShippedPoint {
    /// The model's name in benches.
    pub fn name(&self) -> String {
        match self.budget {
            Some(budget) => format!("nano-budget-{budget}"),
            None => "nano-dense".into(),
        }
    }
}

/// The dense checkpoint, and the points of the curve that it and the adaptive ones are.
#[derive(Debug)]
pub struct Shipped {
    /// The dense model.
    pub dense: Checkpoint,
    /// The dense model first, then budget by budget.
    pub points: Vec<ShippedPoint>,
}

impl Shipped {
    /// Reads them.
    ///
    /// # Errors
    /// If a file is missing or damaged.
    pub fn load() -> Result<Self> {
        let folder = workspace().join(CHECKPOINTS);
        let points = folder.join("points.json");
        let bytes = std::fs::read(&points).with_context(|| points.display().to_string())?;
        Ok(Self {
            dense: Checkpoint::load(&folder.join(DENSE))?,
            points: serde_json::from_slice(&bytes).with_context(|| points.display().to_string())?,
        })
    }

    /// The model of a point, ready for inference.
    ///
    /// # Errors
    /// If its checkpoint is missing or damaged.
    pub fn prepared(&self, point: &ShippedPoint) -> Result<PreparedTransformer> {
        let folder = workspace().join(CHECKPOINTS).join(&point.checkpoint);
        let mut prepared = Checkpoint::load(&folder)?.prepared(&Device::Cpu)?;
        if let Some(thresholds) = point.thresholds {
            prepared.set_thresholds(thresholds);
        }
        Ok(prepared)
    }
}

/// The shipped test images, normalised as the checkpoints expect.
#[derive(Debug)]
pub struct TestImages {
    test: Arc<dyn Labelled>,
    normalization: Normalization,
    indices: Vec<u32>,
}

impl TestImages {
    /// Reads them.
    ///
    /// # Errors
    /// If a file is missing or damaged.
    pub fn load() -> Result<Self> {
        let config = Checkpoint::load(&workspace().join(CHECKPOINTS).join(DENSE))?.config;
        let test: Arc<dyn Labelled> = Arc::new(adavit_data::load(DATA, None)?.test);
        Ok(Self {
            normalization: config
                .normalization
                .context("the checkpoint's normalization")?,
            indices: all_indices(test.as_ref()),
            test,
        })
    }

    /// Returns the number of images.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Returns false: there is at least one image.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// Returns all images, for an evaluation.
    pub fn images<'a>(&'a self, device: &'a Device) -> Images<'a> {
        Images {
            dataset: self.test.as_ref(),
            indices: &self.indices,
            normalization: &self.normalization,
            batch_size: 250,
            device,
        }
    }

    /// Returns the first `n` images in batches.
    ///
    /// # Errors
    /// If candle fails.
    pub fn batches(&self, n: usize, batch: usize) -> Result<Vec<Tensor>> {
        let chosen = self.indices[..n.min(self.len())].chunks_exact(batch);
        chosen
            .map(|indices| {
                let (test, normalization) = (self.test.as_ref(), &self.normalization);
                Ok(make_batch(test, indices, None, normalization, &Device::Cpu)?.images)
            })
            .collect()
    }
}

/// The root of the repository.
pub fn workspace() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}
