//! A folder as `save_pretrained` of transformers or timm makes it, or a download of the Hugging Face hub.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::checkpoint::native::CONFIG_FILE;
use crate::config::is_stored_config;

/// Files of weights, the better ones first.
const WEIGHTS: [&str; 5] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// Keys of the configuration of another library.
const FOREIGN_KEYS: [&str; 6] = [
    "architecture",
    "architectures",
    "model_type",
    "pretrained_cfg",
    "num_attention_heads",
    "model_cfg",
];

/// The weights of a folder that another library wrote; `None` for a folder of adavit, or without weights.
pub(super) fn foreign_weights(folder: &Path) -> Option<PathBuf> {
    let files = WEIGHTS.iter().map(|name| folder.join(name));
    let weights = files.into_iter().find(|file| file.is_file())?;
    let Ok(text) = std::fs::read_to_string(folder.join(CONFIG_FILE)) else {
        return Some(weights);
    };
    let config: Option<Value> = serde_json::from_str(&text).ok();
    let is_foreign = config.is_some_and(|config| {
        let has = |key: &&str| config.get(key).is_some();
        FOREIGN_KEYS.iter().any(has)
    });
    (is_foreign && !is_stored_config(&text)).then_some(weights)
}
