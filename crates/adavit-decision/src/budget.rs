//! Budgets as an input of the decision networks.
//!
//! A network that takes the budget b of its image, a share of the dense model's MACs in (0, 1],
//! adds U f(b) to its logits. f are hat functions at F = 4 budgets, times a gain:
//!
//! ```text
//! f_j(b) = 8 max(0, 1 - |b - j/4| / (1/4)),   j = 0, 1, 2, 3
//! ```
//!
//! So the shift of a gate is linear between the budgets 0, 1/4, 1/2, 3/4 and 1, and each weight
//! learns from images of its own budgets. f(1) = 0: at budget 1 the logits are those of the network
//! without a budget. The gain makes the shift learn about as fast as W p: an optimizer of the kind
//! of Adam moves each weight by the same step, and p has C numbers of about 1, f two.
//!
//! U has no bias, and is 0 in a model that has not learnt to use it.

use candle_core::{Device, Result, Tensor, bail};

/// F, the number of features of a budget.
pub const BUDGET_FEATURES: usize = 4;

/// What the features are multiplied by.
const GAIN: f64 = 8.0;

/// Returns f(b). A budget below 0 counts as 0, one above 1 as 1.
pub fn budget_features(budget: f64) -> [f64; BUDGET_FEATURES] {
    let step = 1.0 / BUDGET_FEATURES as f64;
    let budget = budget.clamp(0.0, 1.0);
    std::array::from_fn(|knot| {
        let distance = (budget - knot as f64 * step).abs();
        GAIN * (1.0 - distance / step).max(0.0)
    })
}

/// The budgets of the images of a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Budgets {
    /// One for every image.
    Same(f64),
    /// One for each image, in the order of the batch.
    Each(Vec<f64>),
    /// The image's own from the second block on, by the model's [allocator](crate::AllocatorConfig).
    Allocated {
        /// The budget of the first block, the same for every image.
        first: f64,
        /// The price of a share of the dense model's MACs, in loss.
        price: f64,
    },
}

impl Budgets {
    /// Checks that there is a budget in (0, 1] for each of `batch` images, and a finite price.
    ///
    /// # Errors
    /// If there is not.
    pub fn check(&self, batch: usize) -> Result<()> {
        let budgets = match self {
            Self::Allocated { price, .. } if !price.is_finite() => {
                bail!("price: expected a finite number, found {price}")
            }
            Self::Same(budget) | Self::Allocated { first: budget, .. } => {
                std::slice::from_ref(budget)
            }
            Self::Each(budgets) if budgets.len() == batch => budgets.as_slice(),
            Self::Each(budgets) => {
                let found = budgets.len();
                bail!("budget: expected one, or one for each of {batch} images, found {found}")
            }
        };
        match budgets.iter().find(|b| !(**b > 0.0 && **b <= 1.0)) {
            Some(budget) => bail!("budget: expected a number in (0, 1], found {budget}"),
            None => Ok(()),
        }
    }

    /// Returns the budget of an image; of one that is allocated, that of the first block.
    ///
    /// # Panics
    /// If there is none: see [`Self::check`].
    pub fn of(&self, image: usize) -> f64 {
        match self {
            Self::Same(budget) | Self::Allocated { first: budget, .. } => *budget,
            Self::Each(budgets) => budgets[image],
        }
    }

    /// Returns the price that budgets are allocated by, if they are.
    pub fn price(&self) -> Option<f64> {
        match self {
            Self::Same(_) | Self::Each(_) => None,
            Self::Allocated { price, .. } => Some(*price),
        }
    }

    /// Returns the features of `batch` images, `(batch, F)` in f64.
    ///
    /// # Errors
    /// As for [`Self::check`].
    pub fn features(&self, batch: usize) -> Result<Tensor> {
        self.check(batch)?;
        let features: Vec<f64> = (0..batch)
            .flat_map(|image| budget_features(self.of(image)))
            .collect();
        Tensor::from_vec(features, (batch, BUDGET_FEATURES), &Device::Cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_linear_between_their_budgets_and_end_at_zero() {
        assert_eq!(budget_features(0.25), [0.0, GAIN, 0.0, 0.0]);
        assert_eq!(budget_features(1.0), [0.0; 4]);
        assert_eq!(budget_features(0.875), [0.0, 0.0, 0.0, 0.5 * GAIN]);
        assert_eq!(budget_features(-3.0), budget_features(0.0));
        // Below the last knot they sum to the gain.
        for budget in [0.0, 0.1, 0.3, 0.6, 0.75] {
            let sum: f64 = budget_features(budget).iter().sum();
            assert!((sum - GAIN).abs() < 1e-12);
        }
    }

    #[test]
    fn budgets_that_no_image_can_have_are_refused() {
        for (budgets, part) in [
            (Budgets::Same(0.0), "in (0, 1]"),
            (Budgets::Same(f64::NAN), "in (0, 1]"),
            (Budgets::Each(vec![0.5, 1.1]), "in (0, 1]"),
            (Budgets::Each(vec![0.5]), "each of 2 images"),
            (
                Budgets::Allocated {
                    first: 1.5,
                    price: 0.0,
                },
                "in (0, 1]",
            ),
            (
                Budgets::Allocated {
                    first: 0.5,
                    price: f64::INFINITY,
                },
                "a finite number",
            ),
        ] {
            let error = budgets.features(2).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        assert!(Budgets::Each(vec![0.5, 1.0]).check(2).is_ok());
    }
}
