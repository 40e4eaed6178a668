//! The ranges of the settings.

use adavit_kernels::MOST_THREADS;

use crate::config::method::Method;
use crate::config::train_config::{
    Distillation, Gates, StageConfig, Targets, TrainConfig, UsageWeights,
};
use crate::error::{Error, Result};

impl TrainConfig {
    /// Checks the range of every field and that the model's sizes fit each other.
    pub fn validate(&self) -> Result<()> {
        if !(self.budget > 0.0 && self.budget <= 1.0) {
            return Err(Error::Input(format!(
                "budget: expected a number in (0, 1], found {}",
                self.budget
            )));
        }
        self.validate_counts()?;
        let fraction = self.held_out > 0.0 && self.held_out < 1.0;
        let seconds = self.snapshot_seconds > 0.0 && self.snapshot_seconds <= 60.0;
        for (name, value, ok, expected) in [
            ("held_out", self.held_out, fraction, "(0, 1)"),
            (
                "snapshot_seconds",
                self.snapshot_seconds,
                seconds,
                "(0, 60]",
            ),
        ] {
            if !ok {
                return Err(Error::Input(format!(
                    "{name}: expected a number in {expected}, found {value}"
                )));
            }
        }
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
        if matches!(self.method, Method::Reduced { .. }) {
            self.distillation.expect_logits_alone()?;
        }
        self.adaptive_model()?.validate()?;
        self.validate_reach()
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
            Some((axis, _, weight)) => Err(Error::Input(format!(
                "targets.{axis}: expected usage.{axis} above 0, which weighs it in the loss, found \
                 {weight}"
            ))),
            None => Ok(()),
        }
    }

    /// Checks that the gates can save as much as the budget asks for.
    fn validate_reach(&self) -> Result<()> {
        let geometry = self.dense_model()?.geometry();
        let least = geometry.expected_share(&self.decisions, 0.0);
        if self.targets.is_none() && self.budget < least {
            return Err(Error::Input(format!(
                "budget: expected at least {least:.4}, what this model costs with every gate off, \
                 found {}",
                self.budget
            )));
        }
        Ok(())
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
            (
                "threads",
                self.threads.unwrap_or(1) as u64,
                (1, MOST_THREADS as u64),
            ),
            ("dense.epochs", self.dense.epochs, (1, 1 << 20)),
            ("adaptive.epochs", self.adaptive.epochs, (1, 1 << 20)),
        ] {
            if value < least || value > most {
                return Err(Error::Input(format!(
                    "{name}: expected between {least} and {most}, found {value}"
                )));
            }
        }
        Ok(())
    }
}

impl Targets {
    fn validate(&self) -> Result<()> {
        for (name, target) in [
            ("tokens", self.tokens),
            ("heads", self.heads),
            ("blocks", self.blocks),
        ] {
            if !(target > 0.0 && target <= 1.0) {
                return Err(Error::Input(format!(
                    "targets.{name}: expected a number in (0, 1], found {target}"
                )));
            }
        }
        Ok(())
    }
}

impl StageConfig {
    fn validate(&self, stage: &str) -> Result<()> {
        self.optimizer.validate()?;
        check_ratios(
            stage,
            &[
                ("min_lr_factor", self.min_lr_factor),
                ("label_smoothing", self.label_smoothing),
                ("ema_decay", self.ema_decay),
            ],
        )?;
        check_weights(stage, &[("warmup_epochs", self.warmup_epochs)])
    }
}

impl Gates {
    fn validate(&self) -> Result<()> {
        self.temperature
            .validate()
            .map_err(|error| Error::Input(error.to_string()))?;
        self.noise_end.validate()?;
        if !(self.keep_logit.is_finite() && self.keep_logit.abs() <= 50.0) {
            return Err(Error::Input(format!(
                "gates.keep_logit: expected a number in [-50, 50], found {}",
                self.keep_logit
            )));
        }
        Ok(())
    }
}

impl UsageWeights {
    fn validate(&self) -> Result<()> {
        self.ramp.validate()?;
        check_ratios("usage", &[("minimum", self.minimum)])?;
        check_weights(
            "usage",
            &[
                ("tokens", self.tokens),
                ("heads", self.heads),
                ("blocks", self.blocks),
                ("macs", self.macs),
                ("diverse", self.diverse),
                ("entropy", self.entropy),
                ("minimum_weight", self.minimum_weight),
            ],
        )?;
        // Each is a part of the losses of these axes.
        let parts = self.heads + self.blocks;
        for (name, weight, axes) in [
            ("diverse", self.diverse, parts),
            ("entropy", self.entropy, parts),
            ("minimum_weight", self.minimum_weight, parts + self.tokens),
        ] {
            if weight > 0.0 && axes == 0.0 {
                return Err(Error::Input(format!(
                    "usage.{name}: expected 0 where the weights of the axes that it is a part of \
                     are 0, found {weight}"
                )));
            }
        }
        Ok(())
    }
}

impl Distillation {
    /// Checks that nothing inside the blocks is compared: with fewer tokens from block to block there
    /// is nothing there to compare with the teacher's.
    ///
    /// # Errors
    /// If hidden states or attention have a weight.
    pub fn expect_logits_alone(&self) -> Result<()> {
        for (name, weight) in [("hidden", self.hidden), ("attention", self.attention)] {
            if weight > 0.0 {
                return Err(Error::Input(format!(
                    "distillation.{name}: expected 0 for token reduction, which logits alone can \
                     teach, found {weight}"
                )));
            }
        }
        Ok(())
    }

    fn validate(&self) -> Result<()> {
        check_ratios("distillation", &[("logits", self.logits)])?;
        check_weights(
            "distillation",
            &[("hidden", self.hidden), ("attention", self.attention)],
        )?;
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err(Error::Input(format!(
                "distillation.temperature: expected a number above 0, found {}",
                self.temperature
            )));
        }
        Ok(())
    }
}

fn check_ratios(table: &str, ratios: &[(&str, f64)]) -> Result<()> {
    for (name, ratio) in ratios {
        if !(0.0..=1.0).contains(ratio) {
            return Err(Error::Input(format!(
                "{table}.{name}: expected a number in [0, 1], found {ratio}"
            )));
        }
    }
    Ok(())
}

fn check_weights(table: &str, weights: &[(&str, f64)]) -> Result<()> {
    for (name, weight) in weights {
        if !(weight.is_finite() && *weight >= 0.0) {
            return Err(Error::Input(format!(
                "{table}.{name}: expected a number of at least 0, found {weight}"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn ranges_are_checked() {
        let wrong: [fn(&mut TrainConfig); 9] = [
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
