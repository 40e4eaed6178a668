//! Weights in several files, with an index that says which tensor is where: transformers'
//! `model.safetensors.index.json` and `pytorch_model.bin.index.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::open::read_state_dict;
use super::state_dict::StateDict;
use crate::checkpoint::tensors::Tensors;
use crate::error::{Error, Result};

/// What the name of an index ends with.
const INDEX_ENDING: &str = ".index.json";

#[derive(Debug, Deserialize)]
struct Index {
    /// The file of each tensor, in the folder of the index.
    weight_map: BTreeMap<String, String>,
}

/// Whether a file is an index, by its name.
pub(crate) fn is_index(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(INDEX_ENDING)
}

/// Reads every file of an index.
///
/// # Errors
/// If the index or a file is missing or damaged, leads out of the folder, or does not hold what the index
/// says.
pub(crate) fn read_sharded(path: &Path) -> Result<StateDict> {
    let fail = |message: String| Error::Checkpoint {
        path: path.to_path_buf(),
        message,
    };
    let text = std::fs::read_to_string(path).map_err(|source| Error::Unreadable {
        path: path.to_path_buf(),
        source,
    })?;
    let index: Index = serde_json::from_str(&text)
        .map_err(|error| fail(format!("not an index of weights: {error}")))?;
    let files: BTreeSet<&String> = index.weight_map.values().collect();
    if files.is_empty() {
        return Err(fail("an index without tensors".into()));
    }
    let (mut tensors, mut format) = (Tensors::new(), "");
    for file in files {
        if Path::new(file).components().count() != 1 || file.contains(['/', '\\']) || file == ".." {
            return Err(fail(format!(
                "expected files beside the index, found {file}"
            )));
        }
        let shard = read_state_dict(&path.with_file_name(file))?;
        format = shard.format;
        for (name, tensor) in shard.tensors {
            if index.weight_map.get(&name) != Some(file) {
                return Err(fail(format!(
                    "{file} holds {name}, which the index does not say; the files are not of one \
                     checkpoint"
                )));
            }
            tensors.insert(name, tensor);
        }
    }
    let mut names = index.weight_map.iter();
    if let Some((name, file)) = names.find(|(name, _)| !tensors.contains_key(*name)) {
        return Err(fail(format!(
            "expected {name} in {file}, found none; the files are not of one checkpoint"
        )));
    }
    Ok(StateDict::bare(tensors, format))
}

/// The index of which a file is one part, by its name: `model-00001-of-00004.safetensors`.
pub(crate) fn index_beside(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let (stem, extension) = name.rsplit_once('.')?;
    let (stem, of) = stem.rsplit_once("-of-")?;
    let (stem, number) = stem.rsplit_once('-')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(of) || !digits(number) {
        return None;
    }
    let index = path.with_file_name(format!("{stem}.{extension}{INDEX_ENDING}"));
    index.is_file().then_some(index)
}
