//! The checks of a sweep's settings, before anything is trained.

use std::collections::HashSet;

use adavit_train::TrainConfig;

use crate::error::{Error, Result};
use crate::sweep::config::{Rival, SweepConfig};

/// How many draws of a random policy a point has room for: it keeps one digit of each image.
const MOST_DRAWS: usize = 9;

impl SweepConfig {
    /// Checks every value, and every model that the sweep is to train.
    ///
    /// # Errors
    /// If one cannot be used.
    pub fn validate(&self, recipe: &TrainConfig) -> Result<()> {
        let fail = |message: String| Err(Error::Setting(message));
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
        self.validate_lists()?;
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

    /// Checks the settings of every model; the error names the model.
    fn validate_models(&self, recipe: &TrainConfig) -> Result<()> {
        let named = |settings: &TrainConfig, name: &str| {
            let checked = settings.validate();
            checked.map_err(|error| Error::Setting(format!("{name}: {error}")))
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
                return Err(Error::Setting(format!(
                    "variant {}: expected an earlier variant of the same budget to compare with, \
                     found {against:?}",
                    variant.name
                )));
            }
        }
        Ok(())
    }

    /// Checks that the recipe leaves to the sweep what the sweep sets.
    fn validate_recipe(&self, recipe: &TrainConfig) -> Result<()> {
        let fail = |message: String| Err(Error::Setting(message));
        if recipe.targets.is_some() {
            return fail("recipe: expected a budget, found targets per axis".into());
        }
        if recipe.elastic.is_some() {
            return fail(
                "recipe: expected a model for each budget, found the table elastic".into(),
            );
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
        if self.fine_tune_rivals && self.rivals.iter().any(|rival| rival.reduction().is_some()) {
            let alike = recipe.distillation.expect_logits_alone();
            alike.map_err(|error| Error::Setting(format!("fine_tune_rivals: {error}")))?;
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

    /// Checks that no seed, budget or rival is listed twice.
    fn validate_lists(&self) -> Result<()> {
        let fail = |message: &str| Err(Error::Setting(message.into()));
        let mut seeds = self.seeds.clone();
        seeds.sort_unstable();
        let budgets = self.budgets.iter().chain(&self.calibrated);
        let mut budgets: Vec<f64> = budgets.copied().collect();
        budgets.sort_by(f64::total_cmp);
        if seeds.windows(2).any(|pair| pair[0] == pair[1])
            || budgets.windows(2).any(|pair| pair[0] == pair[1])
        {
            return fail("seeds, budgets, calibrated: expected every value once");
        }
        let twice = |(i, rival): (usize, &Rival)| self.rivals[..i].contains(rival);
        if self.rivals.iter().enumerate().any(twice) {
            return fail("rivals: expected every rival once");
        }
        Ok(())
    }

    /// Checks that every name is a usable one, once.
    fn validate_names(&self) -> Result<()> {
        let fail = |message: String| Err(Error::Setting(message));
        let usable = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let variants = self.variants.iter().map(|variant| &variant.name);
        let smaller = self.smaller_models.iter().map(|model| &model.name);
        let mut seen = HashSet::new();
        for name in variants.chain(smaller) {
            if name.is_empty() || !name.chars().all(usable) {
                return fail(format!(
                    "{name:?}: expected a name of letters, digits, -, _ and ., since a folder gets it"
                ));
            }
            if !seen.insert(name) {
                return fail(format!("{name:?}: expected a name once, found it twice"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use adavit_train::ModelOptions;
    use toml::Table;

    use super::*;
    use crate::sweep::config::{SmallerModel, Variant};

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
}
