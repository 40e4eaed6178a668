//! What a sweep measures: one TOML file.

use std::fmt;
use std::path::{Path, PathBuf};

use adavit_decision::DecisionConfig;
use adavit_model::ReductionMethod;
use adavit_train::{ModelOptions, TrainConfig, merge};
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::error::{Error, Result};
use crate::sweep::point::ModelKind;

/// Which models a sweep trains and compares.
///
/// Keys left out have the values of [`Default`]; every model starts from the recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SweepConfig {
    /// The training settings of the recipe, a file beside this one.
    pub recipe: PathBuf,
    /// Seeds of the dense model and the adaptive ones; the rivals have the first.
    pub seeds: Vec<u64>,
    /// Shares of the dense model's multiply-adds, in (0, 1], for each of which a model is trained.
    pub budgets: Vec<f64>,
    /// Shares that a model of one of `budgets` is calibrated to, without training: the model of the
    /// largest budget that is not above the share, else of the smallest.
    pub calibrated: Vec<f64>,
    /// Which rivals are measured at each of `budgets`.
    pub rivals: Vec<Rival>,
    /// Whether the rivals are also fine-tuned, for as long as the adaptive model and with the same
    /// distillation.
    pub fine_tune_rivals: bool,
    /// The blocks, counted from 0, in which EViT drops tokens.
    pub evit_blocks: Vec<usize>,
    /// Smaller dense models, trained for the epochs of both stages.
    #[serde(rename = "smaller")]
    pub smaller_models: Vec<SmallerModel>,
    /// Changes to the recipe, each trained from the same dense model as the adaptive one.
    #[serde(rename = "variant")]
    pub variants: Vec<Variant>,
    /// Seconds for which each model's speed is measured.
    pub speed_seconds: f64,
}

/// What the adaptive model is compared with, from the same dense model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rival {
    /// Random decisions with the adaptive model's usage of each axis in each block, as it is on
    /// held-out images: under its weights, or fine-tuned from the dense model.
    Random,
    /// Token reduction by the class token's attention.
    Evit,
    /// Token reduction by merging.
    Tome,
}

impl Rival {
    pub(super) fn kind(self, tuned: bool) -> ModelKind {
        match (self, tuned) {
            (Self::Random, false) => ModelKind::Random,
            (Self::Random, true) => ModelKind::RandomTuned,
            (Self::Evit, false) => ModelKind::Evit,
            (Self::Evit, true) => ModelKind::EvitTuned,
            (Self::Tome, false) => ModelKind::Tome,
            (Self::Tome, true) => ModelKind::TomeTuned,
        }
    }

    /// The first part of the names of its points and runs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Evit => "evit",
            Self::Tome => "tome",
        }
    }

    pub(super) fn reduction(self) -> Option<ReductionMethod> {
        match self {
            Self::Random => None,
            Self::Evit => Some(ReductionMethod::Evit),
            Self::Tome => Some(ReductionMethod::Tome),
        }
    }
}

/// A smaller dense model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmallerModel {
    /// Its name in tables.
    pub name: String,
    /// The budget at which it is compared, one of [`SweepConfig::budgets`].
    pub budget: f64,
    /// Its sizes, over those of the recipe.
    pub model: ModelOptions,
}

/// A change to the recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Its name in tables.
    pub name: String,
    /// Its budget.
    pub budget: f64,
    /// The name of the variant that it is compared with; the adaptive model, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<String>,
    /// Keys of the recipe with other values.
    pub set: Table,
}

impl Default for SweepConfig {
    fn default() -> Self {
        Self {
            recipe: PathBuf::new(),
            seeds: vec![0],
            budgets: vec![0.5],
            calibrated: Vec::new(),
            rivals: vec![Rival::Random, Rival::Evit, Rival::Tome],
            fine_tune_rivals: false,
            evit_blocks: vec![1, 3],
            smaller_models: Vec::new(),
            variants: Vec::new(),
            speed_seconds: 3.0,
        }
    }
}

/// Keys that no variant sets: it shares them with the model that it is compared with, or the sweep
/// sets them.
const OF_THE_SWEEP: [&str; 8] = [
    "budget",
    "data",
    "data_dir",
    "dense",
    "dense_checkpoint",
    "held_out",
    "seed",
    "targets",
];

impl SweepConfig {
    /// Reads the file and the recipe beside it.
    ///
    /// # Errors
    /// If one cannot be read, has a key that does not exist, or a value that cannot be used.
    pub fn read(path: &Path) -> Result<(Self, TrainConfig)> {
        let config: Self =
            toml::from_str(&text_of(path)?).map_err(|error| in_file(path, &error))?;
        if config.recipe.as_os_str().is_empty() {
            let message = "recipe: expected the file of the training settings";
            return Err(in_file(path, &message));
        }
        let recipe = path.parent().unwrap_or(Path::new("")).join(&config.recipe);
        let recipe =
            TrainConfig::from_toml(&text_of(&recipe)?).map_err(|error| in_file(&recipe, &error))?;
        config
            .validate(&recipe)
            .map_err(|error| in_file(path, &error))?;
        Ok((config, recipe))
    }

    /// The trained budget from which thresholds are moved to `budget`: the largest that is not above
    /// it, else the smallest. A model that gets more compute than in training loses little accuracy;
    /// one that gets less loses much.
    pub(super) fn calibrated_from(&self, budget: f64) -> f64 {
        let mut budgets = self.budgets.clone();
        budgets.sort_by(f64::total_cmp);
        let below = budgets.partition_point(|trained| *trained <= budget);
        budgets[below.saturating_sub(1)]
    }

    /// The settings of a smaller dense model: the epochs of both stages in one.
    pub(super) fn smaller(&self, recipe: &TrainConfig, model: &SmallerModel) -> TrainConfig {
        let mut config = recipe.clone();
        config.model = model.model.over(&recipe.model);
        config.dense.epochs += config.adaptive.epochs;
        // It makes no decisions; these settings are valid at any depth and for any budget.
        config.decisions = DecisionConfig {
            keep_layers: 0,
            ..DecisionConfig::default()
        };
        config.budget = 1.0;
        config.seed = self.seeds[0];
        config
    }

    /// The settings of a variant.
    pub(super) fn variant(&self, recipe: &TrainConfig, variant: &Variant) -> Result<TrainConfig> {
        let input =
            |error: &dyn fmt::Display| Error::Setting(format!("variant {}: {error}", variant.name));
        if let Some(key) = OF_THE_SWEEP
            .iter()
            .find(|key| variant.set.contains_key(**key))
        {
            let message = format!("set: expected no {key}, which is the same for every model");
            return Err(input(&message));
        }
        let mut table = Table::try_from(recipe).map_err(|error| Error::Encode {
            what: "the recipe",
            message: error.to_string(),
        })?;
        merge(&mut table, variant.set.clone());
        let mut config: TrainConfig = table.try_into().map_err(|error| input(&error))?;
        config.method.expect_learned().map_err(|e| input(&e))?;
        if config.dense_model()? != recipe.dense_model()? {
            let message = "set: expected the dense model of the recipe, which every variant starts \
                           from, found another";
            return Err(input(&message));
        }
        config.seed = self.seeds[0];
        config.budget = variant.budget;
        Ok(config)
    }
}

fn text_of(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path);
    text.map_err(|error| in_file(path, &format!("reading failed: {error}")))
}

/// The error of a file, on one line.
fn in_file(path: &Path, error: &dyn fmt::Display) -> Error {
    let error = error.to_string();
    let lines: Vec<&str> = error.lines().map(str::trim).collect();
    Error::File {
        path: path.into(),
        message: lines.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_moved_to_more_compute_rather_than_to_less() {
        let config = SweepConfig {
            budgets: vec![0.45, 0.28],
            ..SweepConfig::default()
        };
        let from = [0.6, 0.45, 0.44, 0.2].map(|budget| config.calibrated_from(budget));
        assert_eq!(from, [0.45, 0.45, 0.28, 0.28]);
    }

    #[test]
    fn a_variant_changes_the_keys_that_it_names() {
        let mut tokens_only = Variant {
            name: "tokens".into(),
            budget: 0.5,
            against: None,
            set: Table::new(),
        };
        tokens_only.set = toml::from_str("[decisions]\nada_head = \"off\"").unwrap();
        let recipe = TrainConfig::default();
        let config = SweepConfig::default()
            .variant(&recipe, &tokens_only)
            .unwrap();
        assert_eq!(config.decisions.ada_head, None);
        assert_eq!(config.decisions.ada_layer, recipe.decisions.ada_layer);
        for (set, expected) in [
            ("[decisions]\nada_heads = 1", "ada_heads"),
            ("seed = 3", "no seed"),
            ("[dense]\nepochs = 2", "no dense"),
            (
                "targets = { tokens = 0.5, heads = 0.5, blocks = 0.5 }",
                "no targets",
            ),
            ("[model]\ndepth = 2", "dense model"),
            (
                "method = { kind = \"random\", usage = [] }",
                "its own decisions",
            ),
        ] {
            tokens_only.set = toml::from_str(set).unwrap();
            let error = SweepConfig::default().variant(&recipe, &tokens_only);
            let error = error.unwrap_err().to_string();
            assert!(
                error.contains("variant tokens") && error.contains(expected),
                "{error}"
            );
        }
    }
}
