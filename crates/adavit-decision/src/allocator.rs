//! The allocator of an elastic model: the budget of each image, from what it is predicted to gain.
//!
//! Behind the first block, the class token p of an image gives its predicted loss at each of K
//! budgets, the knots. The image gets the knot that minimises
//!
//! ```text
//! (W p + bias)_k + price * share_k,   k = 0 ... K - 1
//! ```
//!
//! where `share_k` is the mean share of the dense model's MACs that images had at knot k. The price
//! is loss per share: the higher, the less is spent. A negative price pays for what is spent, and
//! serves mean shares above that of the least predicted loss.
//!
//! Of equal sums the lower knot, which costs less, is chosen. An image with a prediction that is NaN
//! gets the largest budget.

use candle_core::{DType, Result, Tensor, bail};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use crate::budget::Budgets;

/// The first block that runs at an image's own budget. Blocks before it run at the budget of the
/// call, and the allocator reads what enters it.
pub const FIRST_ALLOCATED: usize = 1;

/// What an allocator chooses from, and what to ask it for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllocatorConfig {
    /// The budgets that an image may get, in rising order of budget and share: at least two.
    pub knots: Vec<Knot>,
    /// What images spent on average, in rising order of the share: at least one point.
    pub curve: Vec<Allocation>,
    /// The mean share of a call that asks for no budget, in (0, 1].
    pub budget: f64,
}

/// A budget that an image may get.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Knot {
    /// The budget that the networks are asked for.
    pub asked: f64,
    /// The mean MACs of images at it, over those of the dense model.
    pub share: f64,
}

/// What an allocator is asked for, and the mean MACs that images then have.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allocation {
    /// The budget of the blocks before the choice.
    pub first: f64,
    /// The price of a share.
    pub price: f64,
    /// The mean MACs, over those of the dense model.
    pub share: f64,
}

impl AllocatorConfig {
    /// Checks knots, curve and budget.
    ///
    /// # Errors
    /// If one of them is not as its field says.
    pub fn validate(&self) -> Result<()> {
        let budget = |x: f64| x > 0.0 && x <= 1.0;
        let share = |x: f64| x > 0.0 && x < 2.0;
        let rising = self.knots.windows(2).all(|pair| {
            let [low, high] = [pair[0], pair[1]];
            low.asked < high.asked && low.share < high.share
        });
        let each = |knot: &Knot| budget(knot.asked) && share(knot.share);
        if self.knots.len() < 2 || !rising || !self.knots.iter().all(each) {
            bail!(
                "allocator.knots: expected at least two of rising budgets in (0, 1] and rising \
                 shares above 0; fit the allocator again"
            );
        }
        let each = |point: &Allocation| {
            budget(point.first) && share(point.share) && point.price.is_finite()
        };
        let rising = self
            .curve
            .windows(2)
            .all(|pair| pair[0].share < pair[1].share);
        if self.curve.is_empty() || !rising || !self.curve.iter().all(each) {
            bail!(
                "allocator.curve: expected points of budgets in (0, 1], finite prices and rising \
                 shares above 0; fit the allocator again"
            );
        }
        if !budget(self.budget) {
            let found = self.budget;
            bail!("allocator.budget: expected a number in (0, 1], found {found}");
        }
        Ok(())
    }

    /// Returns what to ask for so that the mean MACs of images are `share` of the dense model's,
    /// linear between the points of the curve. Beyond its ends it is the end.
    pub fn asked_for(&self, share: f64) -> Budgets {
        let above = self.curve.iter().position(|point| point.share >= share);
        let last = self.curve.len().saturating_sub(1);
        let high = above.unwrap_or(last);
        let low = if above.is_some() {
            high.saturating_sub(1)
        } else {
            high
        };
        let [a, b] = [self.curve[low], self.curve[high]];
        let part = if low == high {
            0.0
        } else {
            (share - a.share) / (b.share - a.share)
        };
        Budgets::Allocated {
            first: a.first + part * (b.first - a.first),
            price: a.price + part * (b.price - a.price),
        }
    }

    /// Returns the knot of an image with these predicted losses, one for each knot.
    pub fn choose(&self, predicted: &[f32], price: f64) -> usize {
        choose(&self.knots, predicted, price)
    }
}

/// As [`AllocatorConfig::choose`].
pub fn choose(knots: &[Knot], predicted: &[f32], price: f64) -> usize {
    if predicted.iter().any(|loss| loss.is_nan()) {
        return knots.len().saturating_sub(1);
    }
    let (mut best, mut least) = (0, f64::INFINITY);
    for (index, (knot, loss)) in knots.iter().zip(predicted).enumerate() {
        let sum = f64::from(*loss) + price * knot.share;
        if sum < least {
            (best, least) = (index, sum);
        }
    }
    best
}

/// The allocator of a model whose operations are candle's.
#[derive(Debug, Clone)]
pub struct Allocator {
    config: AllocatorConfig,
    /// `(K, C)`.
    weight: Tensor,
    /// `(K,)`.
    bias: Tensor,
}

impl Allocator {
    /// Loads `weight` and `bias` from `vb`.
    ///
    /// # Errors
    /// If a tensor is missing or misshapen.
    pub fn new(config: &AllocatorConfig, embed_dim: usize, vb: &VarBuilder) -> Result<Self> {
        let knots = config.knots.len();
        Ok(Self {
            config: config.clone(),
            weight: vb.get((knots, embed_dim), "weight")?,
            bias: vb.get(knots, "bias")?,
        })
    }

    /// Returns the budget of each image. It has no gradient.
    ///
    /// # Shapes
    /// `class_token`: `(B, C)`, behind the first block.
    ///
    /// # Errors
    /// If it has another width.
    pub fn allocate(&self, class_token: &Tensor, price: f64) -> Result<Budgets> {
        let predicted = class_token.detach().matmul(&self.weight.detach().t()?)?;
        let predicted = predicted.broadcast_add(&self.bias.detach())?;
        let predicted: Vec<Vec<f32>> = predicted.to_dtype(DType::F32)?.to_vec2()?;
        let budget = |predicted: &Vec<f32>| {
            let knot = self.config.choose(predicted, price);
            self.config.knots[knot].asked
        };
        Ok(Budgets::Each(predicted.iter().map(budget).collect()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn config() -> AllocatorConfig {
        let knot = |asked: f64, share: f64| Knot { asked, share };
        let point = |first: f64, price: f64, share: f64| Allocation {
            first,
            price,
            share,
        };
        AllocatorConfig {
            knots: vec![knot(0.2, 0.25), knot(0.5, 0.5), knot(1.0, 1.0)],
            curve: vec![
                point(0.2, 4.0, 0.25),
                point(0.5, 2.0, 0.5),
                point(1.0, -2.0, 1.0),
            ],
            budget: 0.5,
        }
    }

    #[test]
    fn an_image_gets_the_least_sum_and_the_cheaper_of_equal_ones() {
        let config = config();
        assert_eq!(config.choose(&[1.0, 0.75, 0.5], 0.0), 2);
        // 1.0 + 0.25, 0.75 + 0.5 and 0.5 + 1.0.
        assert_eq!(config.choose(&[1.0, 0.75, 0.5], 1.0), 0);
        assert_eq!(config.choose(&[1.0, 0.5, 0.25], 1.0), 1);
        assert_eq!(config.choose(&[0.0, 0.0, 0.0], 0.0), 0);
        assert_eq!(config.choose(&[0.0, 0.1, 0.2], -1.0), 2);
        assert_eq!(config.choose(&[f32::INFINITY; 3], 1.0), 0);
    }

    #[test]
    fn an_unknown_prediction_gets_the_largest_budget() {
        let config = config();
        for at in 0..3 {
            let mut predicted = [0.0; 3];
            predicted[at] = f32::NAN;
            assert_eq!(config.choose(&predicted, 1e9), 2);
        }
    }

    #[test]
    fn a_higher_price_never_buys_more() {
        let config = config();
        for seed in 0..200 {
            let predicted = [0, 1, 2].map(|k| ((seed * 3 + k) as f32 * 1.7).sin());
            let mut before = usize::MAX;
            for step in -40..=40 {
                let knot = config.choose(&predicted, f64::from(step) * 0.25);
                assert!(knot <= before);
                before = knot;
            }
        }
    }

    #[test]
    fn the_curve_is_followed_backwards_and_ends_at_its_ends() {
        let config = config();
        for (share, expected) in [
            (0.1, (0.2, 4.0)),
            (0.25, (0.2, 4.0)),
            (0.375, (0.35, 3.0)),
            (0.75, (0.75, 0.0)),
            (1.5, (1.0, -2.0)),
        ] {
            let Budgets::Allocated { first, price } = config.asked_for(share) else {
                panic!("not allocated");
            };
            let (a, b) = expected;
            assert!((first - a).abs() < 1e-12 && (price - b).abs() < 1e-12);
        }
    }

    #[test]
    fn configurations_that_say_nothing_are_refused() {
        type Change = fn(&mut AllocatorConfig);
        config().validate().unwrap();
        let wrong: [(&str, Change); 6] = [
            ("knots", |c| c.knots.truncate(1)),
            ("knots", |c| c.knots[1].share = 0.25),
            ("knots", |c| c.knots[2].asked = 1.1),
            ("curve", |c| c.curve.clear()),
            ("curve", |c| c.curve[1].price = f64::NAN),
            ("budget", |c| c.budget = 0.0),
        ];
        for (part, change) in wrong {
            let mut config = config();
            change(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(&format!("allocator.{part}")), "{error}");
        }
    }

    #[test]
    fn budgets_are_those_of_the_predictions() -> Result<()> {
        let dev = Device::Cpu;
        let weight = Tensor::new(&[[1f32, 0.0], [0.0, 1.0], [0.0, 0.0]], &dev)?;
        let bias = Tensor::new(&[0f32, 0.0, 0.5], &dev)?;
        let tensors = [("weight".to_string(), weight), ("bias".to_string(), bias)];
        let vb = VarBuilder::from_tensors(tensors.into(), DType::F32, &dev);
        let allocator = Allocator::new(&config(), 2, &vb)?;
        let tokens = Tensor::new(&[[0f32, 1.0], [1.0, 0.0], [1.0, 1.0]], &dev)?;
        let found = allocator.allocate(&tokens, 0.1)?;
        assert_eq!(found, Budgets::Each(vec![0.2, 0.5, 1.0]));
        Ok(())
    }
}
