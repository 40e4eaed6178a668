//! Which decisions a model makes, and what an off decision means.
//!
//! Fields have the names of the published arguments, where one exists. "layer" in them means the
//! paper's "block": its two sub-layers, attention and MLP.

use candle_core::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::allocator::{AllocatorConfig, FIRST_ALLOCATED};
use crate::axis::Axis;

/// What an off head means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadDeactivation {
    /// Query, key, value and output of the head are zero, and its channels of fc1's input too.
    Full,
    /// The head's attention matrix is the identity: its value passes through.
    Partial,
    /// As full in attention. In the MLP, H groups of fc1's outputs are masked, not its inputs.
    HeadV2,
}

/// Thresholds above which a gate is on: 1[sigmoid(logit) > threshold] at inference.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Thresholds {
    /// Of token gates.
    pub tokens: f64,
    /// Of head gates.
    pub heads: f64,
    /// Of block gates.
    pub blocks: f64,
}

impl Default for Thresholds {
    /// What published checkpoints expect.
    fn default() -> Self {
        Self {
            tokens: 0.6,
            heads: 0.5,
            blocks: 0.5,
        }
    }
}

impl Thresholds {
    /// Returns the thresholds after every inference boundary has moved by `shift` in logits:
    /// sigmoid(logit(threshold) + shift). A positive shift keeps fewer tokens, heads and blocks.
    #[must_use]
    pub fn shifted(&self, shift: f64) -> Self {
        let axes = [Axis::Tokens, Axis::Heads, Axis::Blocks];
        axes.into_iter()
            .fold(*self, |moved, axis| moved.shifted_on(axis, shift))
    }

    /// As [`Thresholds::shifted`], for the gates of one axis.
    #[must_use]
    pub fn shifted_on(mut self, axis: Axis, shift: f64) -> Self {
        let threshold = match axis {
            Axis::Tokens => &mut self.tokens,
            Axis::Heads => &mut self.heads,
            Axis::Blocks => &mut self.blocks,
        };
        let odds = *threshold / (1.0 - *threshold) * shift.exp();
        *threshold = (odds / (1.0 + odds)).clamp(1e-9, 1.0 - 1e-9);
        self
    }
}

/// Which blocks decide on what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a published argument"
)]
pub struct DecisionConfig {
    /// Token gates, from block `ada_token_start_layer` on.
    pub ada_token: bool,
    /// Token gates mask the MLP's output too (the published checkpoints do).
    pub ada_token_with_mlp: bool,
    /// The first block with token gates.
    pub ada_token_start_layer: usize,
    /// Head gates, from block `keep_layers` on. A file writes none as `off`.
    #[serde(with = "or_off")]
    pub ada_head: Option<HeadDeactivation>,
    /// Block gates, one for attention and one for the MLP, from block `keep_layers` on.
    pub ada_layer: bool,
    /// How many first blocks keep all heads and both sub-layers.
    pub keep_layers: usize,
    /// The policy token passes a LayerNorm of its own before the block and head decisions.
    pub norm_policy: bool,
    /// Above which a gate is on at inference.
    pub thresholds: Thresholds,
    /// The networks take a budget as an input: see [`Budgets`](crate::Budgets). The value is the
    /// budget of a call that asks for none, in (0, 1].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_input: Option<f64>,
    /// Gives each image a budget of its own, in a model that takes one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocator: Option<AllocatorConfig>,
}

impl Default for DecisionConfig {
    /// Decisions on all three axes, as in the published checkpoints.
    fn default() -> Self {
        Self {
            ada_token: true,
            ada_token_with_mlp: true,
            ada_token_start_layer: 0,
            ada_head: Some(HeadDeactivation::Full),
            ada_layer: true,
            keep_layers: 1,
            norm_policy: false,
            thresholds: Thresholds::default(),
            budget_input: None,
            allocator: None,
        }
    }
}

impl DecisionConfig {
    /// Returns the configuration without decisions: the dense model.
    pub fn none() -> Self {
        Self {
            ada_token: false,
            ada_head: None,
            ada_layer: false,
            ..Self::default()
        }
    }

    /// Whether block `block` gates its tokens.
    pub fn gates_tokens(&self, block: usize) -> bool {
        self.ada_token && block >= self.ada_token_start_layer
    }

    /// How block `block` gates its heads, if it does.
    pub fn gates_heads(&self, block: usize) -> Option<HeadDeactivation> {
        self.ada_head.filter(|_| block >= self.keep_layers)
    }

    /// Whether block `block` gates its two sub-layers, attention and MLP.
    pub fn gates_sublayers(&self, block: usize) -> bool {
        self.ada_layer && block >= self.keep_layers
    }

    /// Checks thresholds and budget, and that a model of `depth` blocks has something to decide.
    pub fn validate(&self, depth: usize) -> Result<()> {
        let Thresholds {
            tokens,
            heads,
            blocks,
        } = self.thresholds;
        for (name, threshold) in [("tokens", tokens), ("heads", heads), ("blocks", blocks)] {
            if !(threshold > 0.0 && threshold < 1.0) {
                bail!("thresholds.{name}: expected a number in (0, 1), found {threshold}");
            }
        }
        if let Some(budget) = self.budget_input
            && !(budget > 0.0 && budget <= 1.0)
        {
            bail!("budget_input: expected a number in (0, 1], found {budget}");
        }
        if let Some(allocator) = &self.allocator {
            allocator.validate()?;
            if self.budget_input.is_none() || depth <= FIRST_ALLOCATED {
                bail!(
                    "allocator: expected a model of at least {} blocks that takes a budget",
                    FIRST_ALLOCATED + 1
                );
            }
        }
        let decides = (0..depth).any(|block| {
            self.gates_tokens(block)
                || self.gates_heads(block).is_some()
                || self.gates_sublayers(block)
        });
        if !decides {
            bail!(
                "no block of {depth} decides anything: turn on ada_token, ada_head or ada_layer, \
                 and keep keep_layers and ada_token_start_layer below the depth"
            );
        }
        Ok(())
    }
}

/// None as the word `off`: a TOML file has no null, and an absent key means the default.
mod or_off {
    use serde::de::value::Error as NoWord;
    use serde::de::{Error, IntoDeserializer, Unexpected};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::HeadDeactivation;

    const OFF: &str = "off";

    #[expect(
        clippy::ref_option,
        clippy::trivially_copy_pass_by_ref,
        reason = "the signature that serde calls"
    )]
    pub(super) fn serialize<S: Serializer>(
        heads: &Option<HeadDeactivation>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match heads {
            Some(heads) => heads.serialize(serializer),
            None => serializer.serialize_str(OFF),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<HeadDeactivation>, D::Error> {
        let word = String::deserialize(deserializer)?;
        if word == OFF {
            return Ok(None);
        }
        let heads = HeadDeactivation::deserialize(word.as_str().into_deserializer());
        heads.map(Some).map_err(|_: NoWord| {
            let expected = "\"off\", \"full\", \"partial\" or \"head_v2\"";
            D::Error::invalid_value(Unexpected::Str(&word), &expected)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shifted_thresholds_move_every_boundary_by_the_same_logit() {
        let thresholds = Thresholds::default();
        let moved = thresholds.shifted(0.7);
        let logit = |p: f64| (p / (1.0 - p)).ln();
        for (a, b) in [
            (thresholds.tokens, moved.tokens),
            (thresholds.heads, moved.heads),
            (thresholds.blocks, moved.blocks),
        ] {
            assert!((logit(b) - logit(a) - 0.7).abs() < 1e-12);
        }
        let heads = thresholds.shifted_on(Axis::Heads, 0.7);
        let expected = Thresholds {
            heads: moved.heads,
            ..thresholds
        };
        assert_eq!(heads, expected);
    }

    #[test]
    fn a_configuration_that_decides_nothing_is_refused() {
        let config = DecisionConfig {
            ada_token: false,
            keep_layers: 4,
            ..DecisionConfig::default()
        };
        assert!(config.validate(5).is_ok());
        assert!(
            config
                .validate(4)
                .unwrap_err()
                .to_string()
                .contains("decides anything")
        );
    }
}
