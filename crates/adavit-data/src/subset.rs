//! Some images of a set.

use std::sync::Arc;

use crate::augmentation::augment::KeyedAugment;
use crate::error::Result;
use crate::labelled::Labelled;
use crate::loader::streamed::StoredRuns;
use crate::normalization::Normalization;
use crate::scenes::truth::SceneTruth;

/// The images of a set at some indices, as a set of their own.
#[derive(Debug)]
pub struct Subset {
    name: String,
    set: Arc<dyn Labelled>,
    indices: Vec<u32>,
    runs: Option<StoredRuns>,
}

impl Subset {
    /// Returns the images of `set` at `indices`, which are below its length, as `name`.
    pub fn new(name: String, set: Arc<dyn Labelled>, indices: Vec<u32>) -> Self {
        let runs = set.stored_runs().map(|runs| runs.of(&indices));
        Self {
            name,
            set,
            indices,
            runs,
        }
    }

    fn inner(&self, index: usize) -> usize {
        self.indices[index] as usize
    }
}

impl Labelled for Subset {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.indices.len()
    }

    fn class_names(&self) -> &[String] {
        self.set.class_names()
    }

    fn dims(&self) -> [usize; 3] {
        self.set.dims()
    }

    fn label(&self, index: usize) -> u32 {
        self.set.label(self.inner(index))
    }

    fn stored_runs(&self) -> Option<&StoredRuns> {
        self.runs.as_ref()
    }

    fn place(&self, index: usize) -> String {
        self.set.place(self.inner(index))
    }

    fn normalization(&self) -> Result<Normalization> {
        self.set.normalization()
    }

    fn identify(&self, take: &mut dyn FnMut(&[u8])) -> Result<()> {
        self.set.identify(take)?;
        for index in &self.indices {
            take(&index.to_le_bytes());
        }
        Ok(())
    }

    fn pixels(&self, index: usize, augment: Option<&KeyedAugment>, out: &mut [u8]) -> Result<()> {
        self.set.pixels(self.inner(index), augment, out)
    }

    fn scene_truth(&self, index: usize) -> Option<SceneTruth> {
        self.set.scene_truth(self.inner(index))
    }
}
