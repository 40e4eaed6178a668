//! The settings of a model for any budget.

use adavit_data::rng::{Stream, rng, unit};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::ranges::Ranges;

/// An elastic model, whose decision networks take a budget: the table `elastic`. Each image of the
/// adaptive stage is trained with a budget of its own,
///
/// ```text
/// smallest + (1 - smallest) u^power,   u uniform in [0, 1)
/// ```
///
/// where u is keyed by (seed, epoch, sample).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Elastic {
    /// The smallest budget, in (0, 1); if absent, 0.03 above what an image costs with every gate off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smallest: Option<f64>,
    /// Above 1, small budgets are more frequent; below 1, large ones.
    pub power: f64,
    /// An allocator is fitted at the end, which gives each image a budget of its own.
    pub allocator: bool,
}

impl Default for Elastic {
    fn default() -> Self {
        Self {
            smallest: None,
            power: 1.0,
            allocator: true,
        }
    }
}

/// What the budget of an image is drawn for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BudgetKey {
    pub(crate) seed: u64,
    pub(crate) epoch: u64,
    pub(crate) sample: u64,
}

impl Elastic {
    /// Returns the budget of an image, of those from `smallest` on.
    pub(crate) fn draw(&self, smallest: f64, key: BudgetKey) -> f64 {
        let mut rng = rng(key.seed, Stream::Budget, key.epoch, key.sample);
        smallest + (1.0 - smallest) * unit(&mut rng).powf(self.power)
    }

    /// Checks the settings for a model that costs `floor` of the dense model's MACs with every gate
    /// off.
    pub(crate) fn validate(&self, floor: f64) -> Result<()> {
        let ranges = Ranges::of("elastic");
        let power = self.power;
        let fits = power.is_finite() && power > 0.0 && power <= 100.0;
        ranges.check("power", power, fits, "in (0, 100]")?;
        let Some(smallest) = self.smallest else {
            return Ok(());
        };
        let expected = format!("in [{floor:.4}, 1), from what an image costs with every gate off");
        let fits = smallest >= floor && smallest < 1.0;
        ranges.check("smallest", smallest, fits, &expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budgets(elastic: Elastic, epoch: u64) -> Vec<f64> {
        let key = |sample| BudgetKey {
            seed: 3,
            epoch,
            sample,
        };
        (0..2000)
            .map(|sample| elastic.draw(0.2, key(sample)))
            .collect()
    }

    #[test]
    fn budgets_are_keyed_and_fill_their_range() {
        let of_epoch = budgets(Elastic::default(), 0);
        assert!(of_epoch.iter().all(|budget| (0.2..1.0).contains(budget)));
        let mean = of_epoch.iter().sum::<f64>() / 2000.0;
        // Five standard deviations, 0.8 / sqrt(12 * 2000) each.
        assert!((mean - 0.6).abs() < 0.026, "{mean}");
        assert_eq!(of_epoch, budgets(Elastic::default(), 0));
        assert_ne!(of_epoch, budgets(Elastic::default(), 1));
        let low = Elastic {
            power: 3.0,
            ..Elastic::default()
        };
        let pairs = budgets(low, 0).into_iter().zip(of_epoch);
        assert!(pairs.into_iter().all(|(low, even)| low <= even));
    }
}
