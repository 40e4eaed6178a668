//! The settings of decision networks in training.

use adavit_gumbel::Temperature;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::optim::schedule::Ramp;
use crate::ranges::Ranges;

/// How decision networks are trained: the table `gates`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gates {
    /// Temperature over the stage.
    pub temperature: Temperature,
    /// The logit that every gate starts from; above 0 it starts by keeping.
    pub keep_logit: f64,
    /// The part of the stage over which the noise fades out; with both ends at 1 it stays. Without
    /// noise, a gate in training equals the gate at inference.
    pub noise_end: Ramp,
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            // The published temperature: the gradient reaches gates that are sure already.
            temperature: Temperature::Constant { tau: 5.0 },
            keep_logit: 3.0,
            noise_end: Ramp {
                start: 1.0,
                end: 1.0,
            },
        }
    }
}

impl Gates {
    pub(crate) fn validate(&self) -> Result<()> {
        self.temperature.validate().map_err(|error| {
            // An error of candle may carry a backtrace after its first line.
            let error = error.to_string();
            let cause = error.lines().next().unwrap_or_default();
            Error::Setting(format!("gates.temperature: {cause}"))
        })?;
        self.noise_end.validate_in("gates.noise_end")?;
        let logit = self.keep_logit;
        let fits = logit.is_finite() && logit.abs() <= 50.0;
        Ranges::of("gates").check("keep_logit", logit, fits, "in [-50, 50]")
    }
}
