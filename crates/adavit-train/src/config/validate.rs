//! Checks of the settings: the range of each, and that they fit each other.

use adavit_kernels::MOST_THREADS;
use adavit_model::Stem;

use crate::config::device::check_device_name;
use crate::config::method::Method;
use crate::config::train_config::TrainConfig;
use crate::error::{Error, Result};
use crate::ranges::Ranges;

impl TrainConfig {
    /// Checks the range of every setting, and that they fit each other.
    ///
    /// Whether they fit the images is checked by [`Session::prepare`](crate::Session::prepare).
    ///
    /// # Errors
    /// [`Error::Setting`] names the first setting that is out of range, or an error of the model's
    /// sizes.
    pub fn validate(&self) -> Result<()> {
        self.validate_numbers()?;
        check_device_name(&self.device)?;
        if let Some(targets) = self.targets {
            targets.validate()?;
            self.expect_weighed_targets()?;
        }
        self.augment.validate_probabilities()?;
        self.dense.validate("dense")?;
        self.adaptive.validate("adaptive")?;
        self.gates.validate()?;
        self.usage.validate()?;
        self.distillation.validate()?;
        self.validate_elastic()?;
        if matches!(self.method, Method::Reduced { .. }) {
            self.distillation.expect_logits_alone()?;
        }
        let model = self.adaptive_model()?;
        model.validate()?;
        if let Some(weights) = &self.class_weights {
            weights.validate(model.num_classes)?;
        }
        self.expect_used_dropout()?;
        self.validate_reach()
    }

    /// Checks that only an elastic model takes a budget, and that nothing else sets its targets.
    fn validate_elastic(&self) -> Result<()> {
        if let Some(budget) = self.decisions.budget_input {
            let expected = "none: the table `elastic` sets it";
            return Err(Ranges::of("decisions").unexpected("budget_input", expected, budget));
        }
        if self.decisions.allocator.is_some() {
            return Err(Error::Setting(
                "decisions.allocator: expected none, since an elastic run fits it at its end; remove it"
                    .into(),
            ));
        }
        let Some(elastic) = &self.elastic else {
            return Ok(());
        };
        let geometry = self.dense_model()?.geometry();
        elastic.validate(geometry.expected_share(&self.adaptive_decisions(), 0.0))?;
        if self.targets.is_some() || !self.method.is_learned() {
            return Err(Error::Setting(
                "elastic: expected a model that makes its own decisions, without `targets`; remove \
                 one of them"
                    .into(),
            ));
        }
        let (ranges, usage) = (Ranges::of("usage"), &self.usage);
        let fits = usage.macs > 0.0;
        ranges.check(
            "macs",
            usage.macs,
            fits,
            "above 0, which weighs the budgets of an elastic model",
        )?;
        for (axis, weight) in [
            ("tokens", usage.tokens),
            ("heads", usage.heads),
            ("blocks", usage.blocks),
        ] {
            if weight > 0.0 {
                let expected =
                    "0 for an elastic model, since an axis has one target for all images";
                return Err(ranges.unexpected(axis, expected, weight));
            }
        }
        Ok(())
    }

    /// Checks that only a model with a token module has a dropout there.
    fn expect_used_dropout(&self) -> Result<()> {
        if matches!(self.dense_model()?.stem, Stem::TokensToToken(_)) {
            return Ok(());
        }
        for (table, stage) in [("dense", &self.dense), ("adaptive", &self.adaptive)] {
            if stage.token_dropout > 0.0 {
                let expected = "0 for a model without the token module of T2T-ViT";
                let found = stage.token_dropout;
                return Err(Ranges::of(table).unexpected("token_dropout", expected, found));
            }
        }
        Ok(())
    }

    /// Checks that the loss weighs the target of every axis that has gates.
    fn expect_weighed_targets(&self) -> Result<()> {
        let (decisions, usage) = (&self.decisions, &self.usage);
        let axes = [
            ("tokens", decisions.ada_token, usage.tokens),
            ("heads", decisions.ada_head.is_some(), usage.heads),
            ("blocks", decisions.ada_layer, usage.blocks),
        ];
        let unweighed = axes
            .iter()
            .find(|(_, gated, weight)| *gated && *weight <= 0.0);
        match unweighed {
            Some((axis, _, weight)) => {
                let expected = format!("usage.{axis} above 0, which weighs it in the loss");
                Err(Ranges::of("targets").unexpected(axis, &expected, weight))
            }
            None => Ok(()),
        }
    }

    /// Checks that the gates can save as much as the budget asks for.
    fn validate_reach(&self) -> Result<()> {
        let geometry = self.dense_model()?.geometry();
        let least = geometry.expected_share(&self.adaptive_decisions(), 0.0);
        if self.targets.is_none() && self.budget < least {
            return Err(Error::Setting(format!(
                "budget: expected at least {least:.4}, what this model costs with every gate off, \
                 found {}",
                self.budget
            )));
        }
        Ok(())
    }

    fn validate_numbers(&self) -> Result<()> {
        let ranges = Ranges::of("");
        ranges.shares([("budget", self.budget)])?;
        self.validate_counts()?;
        let held_out = self.held_out;
        let fits = held_out > 0.0 && held_out < 1.0;
        ranges.check("held_out", held_out, fits, "in (0, 1)")?;
        let val_split = self.val_split;
        let fits = val_split > 0.0 && val_split < 1.0;
        ranges.check("val_split", val_split, fits, "in (0, 1)")?;
        let seconds = self.snapshot_seconds;
        let fits = seconds > 0.0 && seconds <= 60.0;
        ranges.check("snapshot_seconds", seconds, fits, "in (0, 60]")
    }

    fn validate_counts(&self) -> Result<()> {
        // What a TOML file can hold, and far more than anyone waits for.
        let most = i64::MAX as u64;
        for (name, value, (least, most)) in [
            ("seed", self.seed, (0, most)),
            ("max_steps", self.max_steps.unwrap_or(1), (1, most)),
            ("batch_size", self.batch_size as u64, (1, 1 << 24)),
            ("eval_batch_size", self.eval_batch_size as u64, (1, 1 << 24)),
            ("random_policies", self.random_policies as u64, (1, 1 << 16)),
            ("patience", self.patience.unwrap_or(1), (1, most)),
            ("keep", self.keep as u64, (0, 1 << 16)),
            ("workers", self.workers.unwrap_or(0) as u64, (0, 256)),
            ("cache_bytes", self.cache_bytes, (0, most)),
            (
                "threads",
                self.threads.unwrap_or(1) as u64,
                (1, MOST_THREADS as u64),
            ),
            ("dense.epochs", self.dense.epochs, (1, 1 << 20)),
            ("adaptive.epochs", self.adaptive.epochs, (1, 1 << 20)),
            (
                "dense.accum_steps",
                self.dense.accum_steps as u64,
                (1, 1 << 20),
            ),
            (
                "adaptive.accum_steps",
                self.adaptive.accum_steps as u64,
                (1, 1 << 20),
            ),
        ] {
            if value < least || value > most {
                let expected = format!("between {least} and {most}");
                return Err(Ranges::of("").unexpected(name, &expected, value));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::usage_weights::{Targets, UsageWeights};

    #[test]
    fn targets_that_nothing_weighs_are_refused() {
        let mut config = TrainConfig {
            targets: Some(Targets {
                tokens: 0.5,
                heads: 0.6,
                blocks: 0.7,
            }),
            ..TrainConfig::default()
        };
        config.validate().unwrap();
        config.usage.heads = 0.0;
        let error = config.validate().unwrap_err();
        assert!(error.is_input_error());
        assert!(error.to_string().starts_with("targets.heads: "), "{error}");
        // Without gates of that axis there is nothing to weigh.
        config.decisions.ada_head = None;
        config.validate().unwrap();
    }

    #[test]
    fn parts_of_axes_without_weight_are_refused() {
        let with = |tokens, [diverse, entropy, minimum_weight]: [f64; 3]| {
            let mut config = TrainConfig::default();
            config.usage = UsageWeights {
                tokens,
                heads: 0.0,
                blocks: 0.0,
                macs: 20.0,
                diverse,
                entropy,
                minimum_weight,
                ..config.usage
            };
            config.validate()
        };
        with(0.0, [0.0; 3]).unwrap();
        with(2.0, [0.0, 0.0, 1.0]).unwrap();
        for (tokens, weights) in [
            (0.0, [0.0, 0.0, 1.0]),
            (0.0, [1.0, 0.0, 0.0]),
            (2.0, [1.0, 0.0, 0.0]),
            (2.0, [0.0, 1.0, 0.0]),
        ] {
            let error = with(tokens, weights).unwrap_err();
            assert!(error.is_input_error(), "{error}");
        }
    }

    #[test]
    fn messages_begin_with_the_path_of_the_setting() {
        type Change = fn(&mut TrainConfig);
        let wrong: [(&str, Change); 15] = [
            ("budget", |c| c.budget = 0.0),
            ("held_out", |c| c.held_out = 1.0),
            ("device", |c| c.device = "gpu".into()),
            ("augment.random_erasing", |c| c.augment.random_erasing = 2.0),
            ("dense.optimizer.lr", |c| c.dense.optimizer.lr = -1.0),
            ("dense.optimizer.layer_decay", |c| {
                c.dense.optimizer.layer_decay = 0.0;
            }),
            ("adaptive.ema_decay", |c| c.adaptive.ema_decay = 2.0),
            ("adaptive.token_dropout", |c| c.adaptive.token_dropout = 0.1),
            ("dense.drop_path", |c| c.dense.drop_path = 1.0),
            ("gates.temperature", |c| {
                c.gates.temperature = adavit_gumbel::Temperature::Constant { tau: 0.0 };
            }),
            ("gates.noise_end.start", |c| c.gates.noise_end.start = -0.5),
            ("gates.keep_logit", |c| c.gates.keep_logit = 99.0),
            ("usage.ramp.end", |c| c.usage.ramp.end = 2.0),
            ("usage.tokens", |c| c.usage.tokens = f64::NAN),
            ("distillation.logits", |c| c.distillation.logits = 1.5),
        ];
        for (name, change) in wrong {
            let mut config = TrainConfig::default();
            change(&mut config);
            let error = config.validate().unwrap_err();
            assert!(
                matches!(error, Error::Setting(_) | Error::Data(_)),
                "{error:?}"
            );
            assert!(
                error.to_string().starts_with(&format!("{name}: ")),
                "{error}"
            );
        }
    }

    #[test]
    fn ranges_are_checked() {
        let wrong: [fn(&mut TrainConfig); 10] = [
            |c| c.dense.accum_steps = 0,
            |c| c.budget = 0.0,
            |c| c.budget = 1.5,
            |c| c.budget = f64::NAN,
            |c| c.batch_size = 0,
            |c| c.held_out = 1.0,
            |c| c.adaptive.epochs = 0,
            |c| c.model.num_heads = Some(5),
            |c| c.model.patch_size = Some(5),
            |c| c.augment.random_erasing = 1.5,
        ];
        TrainConfig::default().validate().unwrap();
        for change in wrong {
            let mut config = TrainConfig::default();
            change(&mut config);
            assert!(config.validate().unwrap_err().is_input_error());
        }
    }
}
