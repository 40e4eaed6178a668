//! Is one model better than another on the same images? The paired bootstrap over images.
//!
//! ```text
//! d_i = right_i(model) - right_i(other), the mean over common seeds
//! resample the n images with replacement; the interval holds 95 % of the means of d
//! ```
//!
//! Images of equal d are drawn together: the number of times that each value is drawn is multinomial.
//!
//! Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentiles).

use adavit_data::rng::{Stream, rng};
use rand::RngCore;
use rand_distr::{Binomial, Distribution};
use serde::{Deserialize, Serialize};

use crate::sweep::config::SweepConfig;
use crate::sweep::names;
use crate::sweep::point::{ModelKind, Point};

/// Resamples of the images.
const RESAMPLES: usize = 100_000;

/// What the interval shows about the first model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The whole interval is above 0.
    #[serde(alias = "above")]
    Better,
    /// The interval includes 0: the test images cannot tell the two models apart.
    #[serde(alias = "equal")]
    NotSignificant,
    /// The whole interval is below 0.
    #[serde(alias = "below")]
    Worse,
}

impl Verdict {
    /// The word for it in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::NotSignificant => "not significant",
            Self::Worse => "worse",
        }
    }
}

/// The difference of the accuracies of two models. The interval covers the choice of the test images,
/// not the choice of the seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairedComparison {
    /// The model.
    pub model: String,
    /// What it is compared with.
    pub against: String,
    /// What the other model is.
    pub kind: ModelKind,
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
    /// What the interval shows.
    pub verdict: Verdict,
}

/// The names of the two models in tables.
#[derive(Debug, Clone, Copy)]
struct Titles<'a> {
    model: &'a str,
    against: &'a str,
}

/// Every comparison whose points are measured.
pub(super) fn comparisons(config: &SweepConfig, points: &[Point]) -> Vec<PairedComparison> {
    let find = |name: &str| points.iter().find(|point| point.name == name);
    let mut found = Vec::new();
    let mut add = |budget: f64, pairs: &[(String, String)], model: &str, against: &str| {
        let pairs: Vec<(&Point, &Point)> = pairs
            .iter()
            .filter_map(|(model, other)| Some((find(model)?, find(other)?)))
            .collect();
        found.extend(compare(&pairs, budget, Titles { model, against }));
    };
    let first = config.seeds[0];
    for budget in config.budgets.iter().copied() {
        let model = |seed| names::adaptive(budget, seed);
        let with = |other: &dyn Fn(u64) -> String| -> Vec<(String, String)> {
            let seeds = config.seeds.iter();
            seeds.map(|seed| (model(*seed), other(*seed))).collect()
        };
        add(budget, &with(&names::dense), "adaptive", "dense");
        for rival in &config.rivals {
            for tuned in [false, true] {
                let other = |seed| names::rival(*rival, tuned, budget, seed);
                let title = rival.kind(tuned).title();
                add(budget, &with(&other), "adaptive", title);
            }
        }
        for smaller in config.smaller_models.iter().filter(|m| m.budget == budget) {
            let pair = (model(first), names::smaller(&smaller.name));
            add(budget, &[pair], "adaptive", &smaller.name);
        }
        for variant in config.variants.iter().filter(|v| v.budget == budget) {
            let (against, title) = match &variant.against {
                Some(other) => (names::variant(other), other.as_str()),
                None => (model(first), "adaptive"),
            };
            let pair = (names::variant(&variant.name), against);
            add(budget, &[pair], &variant.name, title);
        }
    }
    found
}

/// Compares the models of each pair, one pair for each seed.
fn compare(pairs: &[(&Point, &Point)], budget: f64, titles: Titles) -> Option<PairedComparison> {
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
    Some(PairedComparison {
        model: titles.model.into(),
        against: titles.against.into(),
        kind: other.kind,
        budget,
        seeds: pairs.len(),
        macs_ratio: pairs.iter().map(|(a, b)| a.macs / b.macs).sum::<f64>() / pairs.len() as f64,
        difference: differences.iter().sum::<f64>() / n as f64,
        low,
        high,
        verdict: if low > 0.0 {
            Verdict::Better
        } else if high < 0.0 {
            Verdict::Worse
        } else {
            Verdict::NotSignificant
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

    const ADAPTIVE_AND_DENSE: Titles = Titles {
        model: "adaptive",
        against: "dense",
    };

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
        Point::made("model", ModelKind::Adaptive, &digits)
    }

    #[test]
    fn the_difference_is_the_models_over_the_others_in_the_mean_of_the_seeds() {
        let names = ADAPTIVE_AND_DENSE;
        let (mut a, b) = (model(80), model(60));
        a.macs = 0.25 * b.macs;
        let found = compare(&[(&a, &b)], 0.5, names).unwrap();
        assert!((found.difference - 0.2).abs() < 1e-12);
        assert_eq!((found.macs_ratio, found.seeds), (0.25, 1));
        assert_eq!(found.verdict, Verdict::Better);
        assert_eq!(found.model, names.model);
        assert_eq!(found.against, names.against);
        let found = compare(&[(&b, &a)], 0.5, names).unwrap();
        assert!((found.difference + 0.2).abs() < 1e-12);
        assert_eq!((found.macs_ratio, found.verdict), (4.0, Verdict::Worse));
        // Two images of a hundred are chance.
        let close = model(62);
        let found = compare(&[(&close, &b)], 0.5, names).unwrap();
        assert!((found.difference - 0.02).abs() < 1e-12);
        assert_eq!(found.verdict, Verdict::NotSignificant);
        assert!(found.low <= 0.0 && found.high > 0.02);

        let found = compare(&[(&a, &b), (&close, &b)], 0.5, names).unwrap();
        assert!((found.difference - 0.11).abs() < 1e-12);
        assert_eq!((found.macs_ratio, found.seeds), (0.625, 2));
        // There is no comparison on other images, or without a pair.
        let other = Point::made("model", ModelKind::Adaptive, "10");
        assert_eq!(compare(&[(&a, &other)], 0.5, names), None);
        assert_eq!(compare(&[], 0.5, names), None);
    }

    #[test]
    fn a_model_of_several_draws_has_their_share_of_each_image() {
        let mut random = Point::made("random", ModelKind::Random, "1111");
        (random.draws, random.right) = (4, "4201".into());
        let dense = Point::made("dense", ModelKind::Dense, "1100");
        let found = compare(&[(&random, &dense)], 0.5, ADAPTIVE_AND_DENSE).unwrap();
        assert!((found.difference - (7.0 / 16.0 - 0.5)).abs() < 1e-12);
    }

    #[test]
    fn older_verdicts_are_read() {
        let read = |text: &str| serde_json::from_str::<Verdict>(text).unwrap();
        assert_eq!(read("\"above\""), Verdict::Better);
        assert_eq!(read("\"equal\""), Verdict::NotSignificant);
        assert_eq!(read("\"below\""), Verdict::Worse);
        for verdict in [Verdict::Better, Verdict::NotSignificant, Verdict::Worse] {
            assert_eq!(read(&serde_json::to_string(&verdict).unwrap()), verdict);
        }
    }

    #[test]
    fn no_difference_is_not_significant() {
        let same = model(50);
        let found = compare(&[(&same, &same)], 0.5, ADAPTIVE_AND_DENSE).unwrap();
        assert_eq!((found.low, found.difference, found.high), (0.0, 0.0, 0.0));
        assert_eq!(found.verdict, Verdict::NotSignificant);
    }
}
