//! The dense checkpoint that a run starts from.

use std::collections::BTreeSet;
use std::path::Path;

use adavit_model::{Checkpoint, ImportOptions, ModelConfig, Origin};
use serde_json::Value;

use crate::config::fine_tune::FineTune;
use crate::config::train_config::TrainConfig;
use crate::error::{Error, Result};
use crate::run::images::import_dense;

/// Loads the dense checkpoint to start from, adavit's or another library's, which must have the
/// configured sizes. Also returns how it was understood. An image size and a number of classes that
/// are set are changes to the checkpoint too: its position embedding is resampled, its head replaced. One
/// that a run keeps, which is not `fresh`, has its new head already.
pub(super) fn given_dense(
    config: &TrainConfig,
    path: &Path,
    fresh: bool,
) -> Result<(Checkpoint, Vec<String>)> {
    let expected = config.dense_model()?;
    let mut options = ImportOptions {
        num_heads: Some(expected.num_heads),
        img_size: Some(expected.img_size),
        ..ImportOptions::default()
    };
    let mut imported = import_dense(path, &options)?;
    let found = imported.checkpoint.config.num_classes;
    let asked = config.model.num_classes.is_some_and(|asked| asked != found);
    if (fresh && config.fine_tune == FineTune::NewHead) || asked {
        options.num_classes = Some(expected.num_classes);
        options.seed = config.seed;
        imported = import_dense(path, &options)?;
    }
    let mut checkpoint = imported.checkpoint;
    if checkpoint.config.decisions.is_some() {
        return Err(Error::Mismatch(format!(
            "{}: expected a dense checkpoint to start from, found an adaptive one",
            path.display()
        )));
    }
    if imported.origin != Origin::Adavit {
        // Other libraries store neither a preset nor where the position embedding comes from.
        checkpoint.config.preset.clone_from(&expected.preset);
        checkpoint.config.pos_embed = expected.pos_embed;
    }
    if config.model.preprocessing.is_some() {
        checkpoint
            .config
            .preprocessing
            .clone_from(&config.model.preprocessing);
    }
    // Sizes decide, not the name that they have. The checkpoint keeps its eps, and may have been trained
    // on other data.
    let found = ModelConfig {
        preset: expected.preset.clone(),
        layer_norm_eps: expected.layer_norm_eps,
        normalization: None,
        preprocessing: expected.preprocessing.clone(),
        class_names: Vec::new(),
        trained_on: None,
        ..checkpoint.config.clone()
    };
    if found != expected {
        return Err(misfit(path, &expected, &found)?);
    }
    Ok((checkpoint, imported.notes))
}

/// The error for a checkpoint of other sizes; it lists every field that differs.
fn misfit(path: &Path, expected: &ModelConfig, found: &ModelConfig) -> Result<Error> {
    let (expected_fields, found_fields) = (fields(expected)?, fields(found)?);
    let differing: BTreeSet<&String> = expected_fields
        .keys()
        .chain(found_fields.keys())
        .filter(|&name| expected_fields.get(name) != found_fields.get(name))
        .collect();
    let listed = |fields: &serde_json::Map<String, Value>| {
        let listed = differing.iter().map(|&name| match fields.get(name) {
            Some(Value::String(text)) => format!("{name} {text}"),
            Some(value) => format!("{name} {value}"),
            None => format!("no {name}"),
        });
        listed.collect::<Vec<_>>().join(", ")
    };
    Ok(Error::Mismatch(format!(
        "{}: expected a checkpoint of {} with {}, found {}; set preset or the table model to the \
         checkpoint's sizes, or convert the checkpoint, which can change classes, image size and \
         distillation",
        path.display(),
        expected.preset,
        listed(&expected_fields),
        listed(&found_fields),
    )))
}

/// The fields of a configuration by name; those at their default may be absent.
fn fields(config: &ModelConfig) -> Result<serde_json::Map<String, Value>> {
    match serde_json::to_value(config) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => {
            let message = format!("expected an object, found {other}");
            Err(Error::encode("config.json", &message))
        }
        Err(error) => Err(Error::encode("config.json", &error)),
    }
}
