//! Data sets by their name, in memory or built: from a name to the parts of a training.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::formats::idx::holds_grey_idx;
use crate::scenes::parts::SceneParts;
use crate::scenes::protocol::FASHION_SCENES;
use crate::source::{Datasets, Splits, load};

/// Opens a data set by its name or by the path of a folder of IDX files, as [`load`] does, and
/// [`FASHION_SCENES`], which is built from garments: those of Fashion-MNIST where `data_dir` holds its IDX
/// files, else those that ship with the repository.
///
/// # Errors
/// As for [`load`]; [`Error::Inconsistent`] if no scenes can be built of the garments.
pub fn load_splits(name: &str, data_dir: Option<&Path>) -> Result<Splits> {
    if name != FASHION_SCENES {
        return Ok(load(name, data_dir)?.into());
    }
    let parts = SceneParts::of(garments(data_dir)?)?;
    Ok(Splits {
        train: Arc::new(parts.train),
        val: Some(Arc::new(parts.held_out)),
        test: Arc::new(parts.test),
    })
}

/// Loads the garments that scenes are built from.
pub(super) fn garments(data_dir: Option<&Path>) -> Result<Datasets> {
    if let Some(folder) = data_dir.filter(|folder| holds_grey_idx(folder)) {
        return load("fashion-mnist", Some(folder));
    }
    load("fashion-mnist-subset", data_dir).map_err(|error| match error {
        Error::Unavailable(message) => Error::Unavailable(format!(
            "{FASHION_SCENES} is built from garments: {message}, or to the folder of Fashion-MNIST's four \
             IDX files"
        )),
        other => other,
    })
}
