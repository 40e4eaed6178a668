//! How a loss measures the distance from its target.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

/// How a deviation from the target is punished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deviation {
    /// |u - g|.
    Absolute,
    /// (u - g)².
    Squared,
}

impl Deviation {
    /// The deviation of `found` from `target`.
    pub(crate) fn of(self, found: &Tensor, target: f64) -> Result<Tensor> {
        self.measure(&(found - target)?)
    }

    /// The measure of a difference from the target.
    pub(crate) fn measure(self, deviation: &Tensor) -> Result<Tensor> {
        match self {
            Self::Absolute => deviation.abs(),
            Self::Squared => deviation.sqr(),
        }
    }
}
