//! The settings of the budget losses.

use adavit_decision::Deviation;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::optim::schedule::Ramp;
use crate::ranges::Ranges;

/// Usage targets of the paper, in (0, 1]: the table `targets`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Targets {
    /// Of tokens.
    pub tokens: f64,
    /// Of heads.
    pub heads: f64,
    /// Of block gates, the attention and MLP sub-layers.
    pub blocks: f64,
}

/// Weights and form of the budget losses: the table `usage`. Their targets come from the budget unless
/// [`Targets`] are set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsageWeights {
    /// When all weights rise from 0 to their values.
    pub ramp: Ramp,
    /// Weight of the token usage.
    pub tokens: f64,
    /// Weight of the head usage.
    pub heads: f64,
    /// Weight of the block usage.
    pub blocks: f64,
    /// Weight of the multiply-adds over the dense model's. Their target falls to the budget over the
    /// ramp. Ignored where targets are set per axis.
    pub macs: f64,
    /// How a deviation of the multiply-adds counts.
    pub macs_deviation: Deviation,
    /// How a deviation of the token usage counts.
    pub tokens_deviation: Deviation,
    /// How a deviation of the head usage counts.
    pub heads_deviation: Deviation,
    /// How a deviation of the block usage counts.
    pub blocks_deviation: Deviation,
    /// Weight of |usage - target| per block and head.
    pub diverse: f64,
    /// Weight of minus the mean entropy of head and block gates.
    pub entropy: f64,
    /// The usage below which a block, head or image is penalised, in [0, 1].
    pub minimum: f64,
    /// Weight of that penalty.
    pub minimum_weight: f64,
}

impl Default for UsageWeights {
    /// The paper's form, every deviation squared (eq. 8), with its weights.
    fn default() -> Self {
        Self {
            ramp: Ramp {
                start: 0.0,
                end: 0.3,
            },
            tokens: 2.0,
            heads: 2.0,
            blocks: 2.0,
            macs: 0.0,
            macs_deviation: Deviation::Squared,
            tokens_deviation: Deviation::Squared,
            heads_deviation: Deviation::Squared,
            blocks_deviation: Deviation::Squared,
            diverse: 0.0,
            entropy: 0.0,
            minimum: 0.0,
            minimum_weight: 0.0,
        }
    }
}

impl Targets {
    pub(crate) fn validate(&self) -> Result<()> {
        Ranges::of("targets").shares([
            ("tokens", self.tokens),
            ("heads", self.heads),
            ("blocks", self.blocks),
        ])
    }
}

impl UsageWeights {
    /// The share of the adaptive stage after which an epoch's model may be `best`, and has its
    /// thresholds calibrated: halfway from the end of the ramp to the end of the stage.
    pub fn settled_from(&self) -> f64 {
        f64::midpoint(self.ramp.end, 1.0)
    }

    pub(crate) fn validate(&self) -> Result<()> {
        self.ramp.validate_in("usage.ramp")?;
        let ranges = Ranges::of("usage");
        ranges.ratios([("minimum", self.minimum)])?;
        ranges.weights([
            ("tokens", self.tokens),
            ("heads", self.heads),
            ("blocks", self.blocks),
            ("macs", self.macs),
            ("diverse", self.diverse),
            ("entropy", self.entropy),
            ("minimum_weight", self.minimum_weight),
        ])?;
        // Each is a part of the losses of these axes.
        let parts = self.heads + self.blocks;
        for (name, weight, axes) in [
            ("diverse", self.diverse, parts),
            ("entropy", self.entropy, parts),
            ("minimum_weight", self.minimum_weight, parts + self.tokens),
        ] {
            if weight > 0.0 && axes == 0.0 {
                let expected = "0 where the weights of the axes that it is a part of are 0";
                return Err(ranges.unexpected(name, expected, weight));
            }
        }
        Ok(())
    }
}
