//! The settings of distillation from the dense model.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::ranges::Ranges;

/// Weights of the three published distillation terms: the table `distillation`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distillation {
    /// Weight of the soft targets, in [0, 1]; the labels get the rest.
    pub logits: f64,
    /// Temperature of the soft targets.
    pub temperature: f64,
    /// Weight of the class token's hidden states.
    pub hidden: f64,
    /// Weight of the class token's attention rows.
    pub attention: f64,
}

impl Default for Distillation {
    /// Half soft targets, half labels.
    fn default() -> Self {
        Self {
            logits: 0.5,
            temperature: 2.0,
            hidden: 0.0,
            attention: 0.0,
        }
    }
}

impl Distillation {
    /// Checks that nothing inside the blocks is compared: token reduction leaves other tokens there
    /// than the teacher has.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) if hidden states or attention have a weight.
    pub fn expect_logits_alone(&self) -> Result<()> {
        for (name, weight) in [("hidden", self.hidden), ("attention", self.attention)] {
            if weight > 0.0 {
                let expected = "0 for token reduction, which only logits can teach";
                return Err(Ranges::of("distillation").unexpected(name, expected, weight));
            }
        }
        Ok(())
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let ranges = Ranges::of("distillation");
        ranges.ratios([("logits", self.logits)])?;
        ranges.weights([("hidden", self.hidden), ("attention", self.attention)])?;
        let fits = self.temperature.is_finite() && self.temperature > 0.0;
        ranges.check("temperature", self.temperature, fits, "above 0")
    }
}
