//! What a sweep measures: one TOML file.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use adavit_decision::DecisionConfig;
use adavit_model::ReductionMethod;
use adavit_train::{ModelOptions, TrainConfig, merge};
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::error::{Error, Result};
use crate::sweep::point::Kind;

/// Which models a sweep trains and compares.
///
/// Keys left out have the values of [`Default`]; every model starts from the recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SweepConfig {
    /// The training settings of the recipe, a file beside this one.
    pub recipe: PathBuf,
    /// Seeds of the plain model and the adaptive ones; the rivals have the first.
    pub seeds: Vec<u64>,
    /// Shares of the plain model's multiply-adds, in (0, 1], for each of which a model is trained.
    pub budgets: Vec<f64>,
    /// Shares that a model of one of `budgets` is calibrated to, without training: that of the largest
    /// which is not above, or else of the smallest.
    pub calibrated: Vec<f64>,
    /// Which rivals are measured at each of `budgets`.
    pub rivals: Vec<Rival>,
    /// Whether the rivals are also fine-tuned, as long as the adaptive model and by the same
    /// distillation.
    pub fine_tune_rivals: bool,
    /// The blocks, counted from 0, in which EViT drops tokens.
    pub evit_blocks: Vec<usize>,
    /// Smaller plain models, trained for the epochs of both stages.
    #[serde(rename = "smaller")]
    pub smaller_models: Vec<SmallerModel>,
    /// Changes to the recipe, each trained from the same plain model as the adaptive one.
    #[serde(rename = "variant")]
    pub variants: Vec<Variant>,
    /// Seconds for which each model's speed is measured.
    pub speed_seconds: f64,
}

/// What the adaptive model is compared with on the same plain model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rival {
    /// Random decisions with the adaptive model's usage of each axis in each block, as it is on
    /// held-out images: under its weights, or fine-tuned from the plain model.
    Random,
    /// Token reduction by the class token's attention.
    Evit,
    /// Token reduction by merging.
    Tome,
}

impl Rival {
    pub(super) fn kind(self, tuned: bool) -> Kind {
        match (self, tuned) {
            (Self::Random, false) => Kind::Random,
            (Self::Random, true) => Kind::RandomTuned,
            (Self::Evit, false) => Kind::Evit,
            (Self::Evit, true) => Kind::EvitTuned,
            (Self::Tome, false) => Kind::Tome,
            (Self::Tome, true) => Kind::TomeTuned,
        }
    }

    /// What points and runs are called after.
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

/// A smaller plain model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmallerModel {
    /// Its name in tables.
    pub name: String,
    /// The budget that it is compared at, one of [`SweepConfig::budgets`].
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

/// How many draws of a random policy a point has room for: it keeps one digit of each image.
const MOST_DRAWS: usize = 9;

/// Keys that no variant sets: what it is compared with has them too, or the sweep gives them.
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
        let read = |path: &Path| {
            std::fs::read_to_string(path)
                .map_err(|error| Error::Input(format!("reading {}: {error}", path.display())))
        };
        let of = |path: &Path, error: &dyn std::fmt::Display| {
            let error = error.to_string();
            let lines: Vec<&str> = error.lines().map(str::trim).collect();
            Error::Input(format!("{}: {}", path.display(), lines.join(" ")))
        };
        let config: Self = toml::from_str(&read(path)?).map_err(|error| of(path, &error))?;
        if config.recipe.as_os_str().is_empty() {
            return Err(of(
                path,
                &"recipe: expected the file of the training settings",
            ));
        }
        let recipe = path.parent().unwrap_or(Path::new("")).join(&config.recipe);
        let recipe =
            TrainConfig::from_toml(&read(&recipe)?).map_err(|error| of(&recipe, &error))?;
        config.validate(&recipe).map_err(|error| of(path, &error))?;
        Ok((config, recipe))
    }

    /// Checks every value, and every model that the sweep is to train.
    ///
    /// # Errors
    /// If one cannot be used.
    pub fn validate(&self, recipe: &TrainConfig) -> Result<()> {
        let fail = |message: String| Err(Error::Input(message));
        recipe.validate()?;
        if self.seeds.is_empty() || self.budgets.is_empty() {
            return fail("seeds, budgets: expected at least one of each".into());
        }
        if !(self.speed_seconds > 0.0 && self.speed_seconds <= 600.0) {
            return fail(format!(
                "speed_seconds: expected a number in (0, 600], found {}",
                self.speed_seconds
            ));
        }
        self.validate_recipe(recipe)?;
        let smaller = self.smaller_models.iter().map(|model| model.budget);
        let variants = self.variants.iter().map(|variant| variant.budget);
        if let Some(budget) = smaller.chain(variants).find(|b| !self.budgets.contains(b)) {
            return fail(format!(
                "budget {budget}: expected one of {:?}, whose adaptive model it is compared with",
                self.budgets
            ));
        }
        self.validate_models(recipe)?;
        self.validate_names()
    }

    /// Checks the settings of every model, and names the one that has a mistake.
    fn validate_models(&self, recipe: &TrainConfig) -> Result<()> {
        let named = |settings: &TrainConfig, name: &str| {
            let checked = settings.validate();
            checked.map_err(|error| Error::Input(format!("{name}: {error}")))
        };
        for (budgets, name) in [(&self.budgets, "budgets"), (&self.calibrated, "calibrated")] {
            for &budget in budgets {
                let settings = TrainConfig {
                    budget,
                    ..recipe.clone()
                };
                named(&settings, name)?;
            }
        }
        for model in &self.smaller_models {
            let settings = self.smaller(recipe, model);
            named(&settings, &format!("smaller {}", model.name))?;
        }
        for (index, variant) in self.variants.iter().enumerate() {
            let settings = self.variant(recipe, variant)?;
            named(&settings, &format!("variant {}", variant.name))?;
            let before = &self.variants[..index];
            if let Some(against) = &variant.against
                && !before
                    .iter()
                    .any(|other| other.name == *against && other.budget == variant.budget)
            {
                return Err(Error::Input(format!(
                    "variant {}: expected an earlier variant of the same budget to compare with, \
                     found {against:?}",
                    variant.name
                )));
            }
        }
        Ok(())
    }

    /// Checks that every model of the recipe is the sweep's to choose, and that nothing is asked for
    /// twice or out of reach.
    fn validate_recipe(&self, recipe: &TrainConfig) -> Result<()> {
        let fail = |message: String| Err(Error::Input(message));
        if recipe.targets.is_some() {
            return fail("recipe: expected a budget, found targets per axis".into());
        }
        if recipe.dense_checkpoint.is_some() || !recipe.method.is_learned() {
            return fail("recipe: expected no dense_checkpoint and no method of its own".into());
        }
        if recipe.random_policies > MOST_DRAWS && self.rivals.contains(&Rival::Random) {
            return fail(format!(
                "recipe: random_policies: expected at most {MOST_DRAWS} where a sweep measures \
                 them, found {}",
                recipe.random_policies
            ));
        }
        let mut seeds = self.seeds.clone();
        seeds.sort_unstable();
        let budgets = self.budgets.iter().chain(&self.calibrated);
        let mut budgets: Vec<f64> = budgets.copied().collect();
        budgets.sort_by(f64::total_cmp);
        if seeds.windows(2).any(|pair| pair[0] == pair[1])
            || budgets.windows(2).any(|pair| pair[0] == pair[1])
        {
            return fail("seeds, budgets, calibrated: expected every value once".into());
        }
        let twice = |(i, rival): (usize, &Rival)| self.rivals[..i].contains(rival);
        if self.rivals.iter().enumerate().any(twice) {
            return fail("rivals: expected every rival once".into());
        }
        if self.fine_tune_rivals && self.rivals.iter().any(|rival| rival.reduction().is_some()) {
            let alike = recipe.distillation.expect_logits_alone();
            alike.map_err(|error| Error::Input(format!("fine_tune_rivals: {error}")))?;
        }
        let model = recipe.dense_model()?;
        let evit = self.rivals.contains(&Rival::Evit);
        let beyond = |block: &&usize| evit && **block >= model.depth;
        if let Some(block) = self.evit_blocks.iter().find(beyond) {
            return fail(format!(
                "evit_blocks: expected blocks below {}, found {block}",
                model.depth
            ));
        }
        Ok(())
    }

    fn validate_names(&self) -> Result<()> {
        let fail = |message: String| Err(Error::Input(message));
        let usable = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let variants = self.variants.iter().map(|variant| &variant.name);
        let smaller = self.smaller_models.iter().map(|model| &model.name);
        let mut seen = HashSet::new();
        for name in variants.chain(smaller) {
            if name.is_empty() || !name.chars().all(usable) {
                return fail(format!(
                    "{name:?}: expected a name of letters, digits, -, _ and ., which a folder gets"
                ));
            }
            if !seen.insert(name) {
                return fail(format!("{name:?}: expected a name once, found it twice"));
            }
        }
        Ok(())
    }

    /// The trained budget from which thresholds are moved to another: the largest that is not above
    /// it, or else the smallest. A model that gets more than it was trained with loses little, one
    /// that gets less loses much.
    pub(super) fn calibrated_from(&self, budget: f64) -> f64 {
        let mut budgets = self.budgets.clone();
        budgets.sort_by(f64::total_cmp);
        let below = budgets.partition_point(|trained| *trained <= budget);
        budgets[below.saturating_sub(1)]
    }

    /// The settings of a smaller plain model: the epochs of both stages in one.
    pub(super) fn smaller(&self, recipe: &TrainConfig, model: &SmallerModel) -> TrainConfig {
        let mut config = recipe.clone();
        config.model = model.model.over(&recipe.model);
        config.dense.epochs += config.adaptive.epochs;
        // Its own decisions, which it never makes, are possible at any depth and have no budget to keep.
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
        let input = |error: &dyn std::fmt::Display| {
            Error::Input(format!("variant {}: {error}", variant.name))
        };
        if let Some(key) = OF_THE_SWEEP
            .iter()
            .find(|key| variant.set.contains_key(**key))
        {
            let message = format!("set: expected no {key}, which is the same for every model");
            return Err(input(&message));
        }
        let mut table = Table::try_from(recipe).map_err(|error| input(&error))?;
        merge(&mut table, variant.set.clone());
        let mut config: TrainConfig = table.try_into().map_err(|error| input(&error))?;
        config.method.expect_learned().map_err(|e| input(&e))?;
        if config.dense_model()? != recipe.dense_model()? {
            let message = "set: expected the plain model of the recipe, which every variant starts \
                           from, found another";
            return Err(input(&message));
        }
        config.seed = self.seeds[0];
        config.budget = variant.budget;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut SweepConfig)) -> String {
        let mut config = SweepConfig::default();
        change(&mut config);
        let error = config.validate(&TrainConfig::default()).unwrap_err();
        assert!(error.is_input_error());
        error.to_string()
    }

    fn variant(name: &str, against: Option<&str>) -> Variant {
        Variant {
            name: name.into(),
            budget: 0.5,
            against: against.map(String::from),
            set: Table::new(),
        }
    }

    #[test]
    fn values_that_cannot_be_used_are_named() {
        SweepConfig::default()
            .validate(&TrainConfig::default())
            .unwrap();
        assert!(refused(|c| c.seeds.clear()).contains("seeds"));
        assert!(refused(|c| c.budgets = vec![1.5]).contains("budgets: "));
        assert!(refused(|c| c.calibrated = vec![1.5]).contains("calibrated: "));
        assert!(refused(|c| c.speed_seconds = 0.0).contains("speed_seconds"));
        assert!(refused(|c| c.rivals = vec![Rival::Evit; 2]).contains("rivals"));
        assert!(refused(|c| c.variants = vec![variant("a", Some("b"))]).contains("earlier"));
        let twice = vec![variant("a", None), variant("a", None)];
        assert!(refused(|c| c.variants = twice).contains("twice"));
        assert!(refused(|c| c.variants = vec![variant("a/b", None)]).contains("folder"));
        let mut other = variant("a", None);
        other.budget = 0.4;
        assert!(refused(|c| c.variants = vec![other]).contains("0.4"));
    }

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
    fn what_would_stop_the_sweep_later_is_named_before_it_begins() {
        // Heads that are off save their attention and nothing of the MLP.
        let mut heads_only = variant("heads", None);
        heads_only.budget = 0.3;
        let set = "decisions = { ada_token = false, ada_layer = false, ada_head = \"partial\" }";
        heads_only.set = set.parse().unwrap();
        let error = refused(|c| {
            c.budgets = vec![0.3];
            c.variants = vec![heads_only];
        });
        assert!(error.starts_with("variant heads: "), "{error}");
        assert!(error.contains("every gate off"), "{error}");
        let error = refused(|c| {
            let model = ModelOptions {
                num_heads: Some(7),
                ..ModelOptions::default()
            };
            let (name, budget) = ("odd".into(), 0.5);
            c.smaller_models = vec![SmallerModel {
                name,
                budget,
                model,
            }];
        });
        assert!(error.starts_with("smaller odd: "), "{error}");
        let mut recipe = TrainConfig::default();
        recipe.distillation.hidden = 1.0;
        let mut config = SweepConfig::default();
        config.validate(&recipe).unwrap();
        config.fine_tune_rivals = true;
        let error = config.validate(&recipe).unwrap_err().to_string();
        assert!(error.contains("distillation.hidden"), "{error}");
        let recipe = TrainConfig {
            random_policies: 10,
            ..TrainConfig::default()
        };
        let error = SweepConfig::default().validate(&recipe).unwrap_err();
        assert!(error.to_string().contains("random_policies"), "{error}");
    }

    #[test]
    fn a_variant_changes_the_keys_that_it_names() {
        let mut tokens_only = variant("tokens", None);
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
            ("[model]\ndepth = 2", "plain model"),
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
