//! Is one model better than another on the same images? The paired bootstrap over images.
//!
//! ```text
//! d_i = right_i(model) - right_i(other), the mean over common seeds
//! resample the n images with replacement; the interval holds 95 % of the means of d
//! ```
//!
//! Images of equal d are drawn together: how often each value comes in a resample is multinomial.
//!
//! Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentiles).

use adavit_data::rng::{Stream, rng};
use rand::RngCore;
use rand_distr::{Binomial, Distribution};
use serde::{Deserialize, Serialize};

use crate::sweep::config::SweepConfig;
use crate::sweep::names;
use crate::sweep::point::{Kind, Point};

/// Resamples of the images.
const RESAMPLES: usize = 100_000;

/// What the interval says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The whole interval is above 0.
    Above,
    /// The interval has 0 in it: the test images do not tell them apart.
    Equal,
    /// The whole interval is below 0.
    Below,
}

impl Verdict {
    /// The word for it in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Above => "above",
            Self::Equal => "equal",
            Self::Below => "below",
        }
    }
}

/// The difference of the accuracies of two models. The interval is over test images, of these trained
/// models; what another seed would give is not in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The model.
    pub model: String,
    /// What it is compared with.
    pub against: String,
    /// What kind that is.
    pub kind: Kind,
    /// The model's budget, and the other's, where it has one.
    pub budget: f64,
    /// How many seeds both have in common.
    pub seeds: usize,
    /// Multiply-adds of the model over those of the other.
    pub macs_ratio: f64,
    /// Mean difference of the accuracies.
    pub difference: f64,
    /// The lower end of the 95 % interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// What that says.
    pub verdict: Verdict,
}

/// Every comparison whose points are there.
pub(super) fn comparisons(config: &SweepConfig, points: &[Point]) -> Vec<Comparison> {
    let find = |name: &str| points.iter().find(|point| point.name == name);
    let mut found = Vec::new();
    let mut add = |budget: f64, pairs: &[(String, String)], names: (&str, &str)| {
        let pairs: Vec<(&Point, &Point)> = pairs
            .iter()
            .filter_map(|(model, other)| Some((find(model)?, find(other)?)))
            .collect();
        found.extend(compare(&pairs, budget, names));
    };
    let first = config.seeds[0];
    for budget in config.budgets.iter().copied() {
        let model = |seed| names::adaptive(budget, seed);
        let with = |other: &dyn Fn(u64) -> String| -> Vec<(String, String)> {
            let seeds = config.seeds.iter();
            seeds.map(|seed| (model(*seed), other(*seed))).collect()
        };
        add(budget, &with(&names::dense), ("adaptive", "plain"));
        for rival in &config.rivals {
            for tuned in [false, true] {
                let other = |seed| names::rival(*rival, tuned, budget, seed);
                let title = rival.kind(tuned).title();
                add(budget, &with(&other), ("adaptive", title));
            }
        }
        for smaller in config.smaller_models.iter().filter(|m| m.budget == budget) {
            let pair = (model(first), names::smaller(&smaller.name));
            add(budget, &[pair], ("adaptive", &smaller.name));
        }
        for variant in config.variants.iter().filter(|v| v.budget == budget) {
            let (against, title) = match &variant.against {
                Some(other) => (names::variant(other), other.as_str()),
                None => (model(first), "adaptive"),
            };
            add(
                budget,
                &[(names::variant(&variant.name), against)],
                (&variant.name, title),
            );
        }
    }
    found
}

/// Compares the models of each pair, one pair for each seed.
fn compare(
    pairs: &[(&Point, &Point)],
    budget: f64,
    (model, against): (&str, &str),
) -> Option<Comparison> {
    let (first, other) = pairs.first()?;
    let n = first.right.len();
    if n == 0
        || pairs
            .iter()
            .any(|(a, b)| a.right.len() != n || b.right.len() != n)
    {
        return None;
    }
    let mut differences = vec![0.0; n];
    for (a, b) in pairs {
        for (difference, (a, b)) in differences.iter_mut().zip(a.shares().zip(b.shares())) {
            *difference += (a - b) / pairs.len() as f64;
        }
    }
    let (low, high) = interval(&differences);
    Some(Comparison {
        model: model.into(),
        against: against.into(),
        kind: other.kind,
        budget,
        seeds: pairs.len(),
        macs_ratio: pairs.iter().map(|(a, b)| a.macs / b.macs).sum::<f64>() / pairs.len() as f64,
        difference: differences.iter().sum::<f64>() / n as f64,
        low,
        high,
        verdict: if low > 0.0 {
            Verdict::Above
        } else if high < 0.0 {
            Verdict::Below
        } else {
            Verdict::Equal
        },
    })
}

/// The 2.5th and the 97.5th percentile of the resampled means.
fn interval(differences: &[f64]) -> (f64, f64) {
    let n = differences.len() as u64;
    let mut sorted = differences.to_vec();
    sorted.sort_by(f64::total_cmp);
    let values: Vec<(f64, u64)> = sorted
        .chunk_by(|a, b| a == b)
        .map(|same| (same[0], same.len() as u64))
        .collect();
    let mut rng = rng(0, Stream::Bootstrap, n, 0);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| resampled_sum(&values, n, &mut rng) / n as f64)
        .collect();
    means.sort_by(f64::total_cmp);
    let at = |percent: f64| means[((RESAMPLES - 1) as f64 * percent).round() as usize];
    (at(0.025), at(0.975))
}

/// The sum over a resample of `n` images, of which `values` has each value and how many have it.
fn resampled_sum(values: &[(f64, u64)], n: u64, rng: &mut impl RngCore) -> f64 {
    let (mut images, mut draws, mut sum) = (n, n, 0.0);
    for &(value, count) in values {
        // What is left of the draws falls on what is left of the images.
        let drawn = Binomial::new(draws, count as f64 / images as f64)
            .expect("a count is at most the number of images left")
            .sample(rng);
        sum += value * drawn as f64;
        images -= count;
        draws -= drawn;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_that_of_the_normal_approximation() {
        // 300 images gained and 200 lost of 10,000.
        let mut differences = vec![0.0; 10_000];
        differences[..300].fill(1.0);
        differences[300..500].fill(-1.0);
        let (low, high) = interval(&differences);
        let deviation = (0.05f64 - 0.01 * 0.01).sqrt() / 100.0;
        // The ends of an interval of 100,000 resamples vary by a hundredth of a deviation.
        assert!((low - (0.01 - 1.96 * deviation)).abs() < 0.04 * deviation);
        assert!((high - (0.01 + 1.96 * deviation)).abs() < 0.04 * deviation);
    }

    /// A model that is right for the first `right` of 100 images.
    fn model(right: usize) -> Point {
        let digits = "1".repeat(right) + &"0".repeat(100 - right);
        Point::made("model", Kind::Adaptive, &digits)
    }

    #[test]
    fn the_difference_is_the_models_over_the_others_in_the_mean_of_the_seeds() {
        let names = ("adaptive", "plain");
        let (mut a, b) = (model(80), model(60));
        a.macs = 0.25 * b.macs;
        let found = compare(&[(&a, &b)], 0.5, names).unwrap();
        assert!((found.difference - 0.2).abs() < 1e-12);
        assert_eq!((found.macs_ratio, found.seeds), (0.25, 1));
        assert_eq!(found.verdict, Verdict::Above);
        assert_eq!((found.model.as_str(), found.against.as_str()), names);
        let found = compare(&[(&b, &a)], 0.5, names).unwrap();
        assert!((found.difference + 0.2).abs() < 1e-12);
        assert_eq!((found.macs_ratio, found.verdict), (4.0, Verdict::Below));
        // Two images of a hundred are chance.
        let close = model(62);
        let found = compare(&[(&close, &b)], 0.5, names).unwrap();
        assert!((found.difference - 0.02).abs() < 1e-12);
        assert_eq!(found.verdict, Verdict::Equal);
        assert!(found.low <= 0.0 && found.high > 0.02);

        let found = compare(&[(&a, &b), (&close, &b)], 0.5, names).unwrap();
        assert!((found.difference - 0.11).abs() < 1e-12);
        assert_eq!((found.macs_ratio, found.seeds), (0.625, 2));
        // Nothing is said of other images, or of none.
        let other = Point::made("model", Kind::Adaptive, "10");
        assert_eq!(compare(&[(&a, &other)], 0.5, names), None);
        assert_eq!(compare(&[], 0.5, names), None);
    }

    #[test]
    fn a_model_of_several_draws_has_their_share_of_each_image() {
        let mut random = Point::made("random", Kind::Random, "1111");
        (random.draws, random.right) = (4, "4201".into());
        let plain = Point::made("plain", Kind::Dense, "1100");
        let found = compare(&[(&random, &plain)], 0.5, ("random policy", "plain")).unwrap();
        assert!((found.difference - (7.0 / 16.0 - 0.5)).abs() < 1e-12);
    }

    #[test]
    fn no_difference_is_equal() {
        let same = model(50);
        let found = compare(&[(&same, &same)], 0.5, ("a", "b")).unwrap();
        assert_eq!((found.low, found.difference, found.high), (0.0, 0.0, 0.0));
        assert_eq!(found.verdict, Verdict::Equal);
    }
}
