//! RandAugment by timm's string: a few operations of one magnitude, drawn for each picture.
//!
//! Cubuk et al. 2019 (arXiv 1909.13719), as timm's `rand_augment_transform` defines it: each of `n` drawn
//! operations is applied with probability `p`.

use std::fmt;
use std::str::FromStr;

use rand::RngCore;

use crate::augmentation::distributions::{normal, uniform};
use crate::augmentation::levels::FULL;
use crate::augmentation::operation_sets::Set;
use crate::augmentation::ops::op::Op;
use crate::error::{Error, Result};
use crate::rng::unit;

/// From here on the deviation of the magnitude means "uniform", as in timm.
const UNIFORM_STD: f64 = 100.0;

/// RandAugment, as in `rand-m9-n2-mstd0.5-inc1`.
///
/// Sections are separated by `-`, in any order after `rand`:
///
/// | section | default | meaning |
/// | --- | --- | --- |
/// | `m` | 10 | magnitude |
/// | `n` | 2 | operations per picture |
/// | `p` | 0.5 | probability that a drawn operation is applied |
/// | `mstd` | 0 | standard deviation of the magnitude; above 100, it is uniform in [0, m] |
/// | `mmax` | 10 | largest magnitude after the noise |
/// | `inc` | 0 | 1: operations that grow with the magnitude |
/// | `t` | all, equally often | `tweights`, `t3a` or `t3aw`: a set of operations |
///
/// ```
/// use adavit_data::RandAugment;
/// let augment: RandAugment = "rand-m9-mstd0.5-inc1".parse()?;
/// assert_eq!(augment.to_string(), "rand-m9-n2-p0.5-mstd0.5-inc1");
/// # Ok::<(), adavit_data::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RandAugment {
    magnitude: u32,
    magnitude_std: f64,
    magnitude_max: u32,
    layers: u32,
    probability: f64,
    set: Set,
}

impl Default for RandAugment {
    /// What `rand` alone means.
    fn default() -> Self {
        Self {
            magnitude: 10,
            magnitude_std: 0.0,
            magnitude_max: 10,
            layers: 2,
            probability: 0.5,
            set: Set::All,
        }
    }
}

impl RandAugment {
    /// Draws the operations for a picture of `(height, width)`.
    pub fn draw(&self, size: (usize, usize), rng: &mut impl RngCore) -> Vec<Op> {
        let kinds = self.set.draw(self.layers as usize, rng);
        let ops = kinds.into_iter().filter_map(|kind| {
            // Each draws the same numbers, whether it is applied or not.
            let skipped = unit(rng) >= self.probability;
            let op = kind.op(self.draw_magnitude(rng), size, rng);
            (!skipped).then_some(op)
        });
        ops.collect()
    }

    fn draw_magnitude(&self, rng: &mut impl RngCore) -> f64 {
        let magnitude = f64::from(self.magnitude);
        let drawn = if self.magnitude_std > UNIFORM_STD {
            uniform(rng, 0.0, magnitude)
        } else if self.magnitude_std > 0.0 {
            magnitude + self.magnitude_std * normal(rng)
        } else {
            magnitude
        };
        drawn.clamp(0.0, f64::from(self.magnitude_max))
    }
}

impl FromStr for RandAugment {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut sections = text.split('-');
        if sections.next() != Some("rand") {
            return Err(wrong(text, "the text must start with \"rand\""));
        }
        let mut augment = Self::default();
        let mut named_set = None;
        for section in sections {
            match augment.read(section) {
                Ok(None) => {}
                Ok(Some(set)) => named_set = Some(set),
                Err(reason) => return Err(wrong(text, &reason)),
            }
        }
        // As in timm, a named set has its own operations, whatever `inc` says.
        augment.set = named_set.unwrap_or(augment.set);
        let most = augment.set.weights().len();
        if augment.set.without_replacement() && augment.layers as usize > most {
            return Err(wrong(
                text,
                &format!(
                    "n: expected at most {most} with these weights, since no operation is drawn \
                     twice, found {}",
                    augment.layers
                ),
            ));
        }
        Ok(augment)
    }
}

impl RandAugment {
    /// Reads one section; returns the set that it names, if it does.
    fn read(&mut self, section: &str) -> Result<Option<Set>, String> {
        if let Some(name) = section.strip_prefix('t') {
            return Set::named(name).map(Some);
        }
        let digits = section
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(section.len());
        let (key, value) = section.split_at(digits);
        match key {
            "m" => self.magnitude = whole(key, value, 0, 1_000)?,
            "n" => self.layers = whole(key, value, 0, 100)?,
            "mmax" => self.magnitude_max = whole(key, value, 1, 1_000)?,
            "p" => self.probability = number(key, value, 1.0)?,
            "mstd" => self.magnitude_std = number(key, value, f64::MAX)?,
            "inc" if whole(key, value, 0, 1)? == 1 => self.set = Set::Increasing,
            "inc" => self.set = Set::All,
            "w" => {
                return Err(format!(
                    "{section:?} is of an old timm and has another meaning today; write \"tweights\""
                ));
            }
            _ => {
                return Err(format!(
                    "expected a section m, n, p, mstd, mmax, inc or t with its value, found {section:?}"
                ));
            }
        }
        Ok(None)
    }
}

fn whole(key: &str, value: &str, least: u32, most: u32) -> Result<u32, String> {
    let number = value.parse().ok().filter(|n| (least..=most).contains(n));
    number.ok_or_else(|| {
        format!("{key}: expected a whole number from {least} to {most}, found {value:?}")
    })
}

fn number(key: &str, value: &str, most: f64) -> Result<f64, String> {
    let number = value.parse().ok().filter(|x| (0.0..=most).contains(x));
    number.ok_or_else(|| {
        let range = if most == 1.0 {
            "in [0, 1]"
        } else {
            "of 0 or more"
        };
        format!("{key}: expected a number {range}, found {value:?}")
    })
}

fn wrong(text: &str, reason: &str) -> Error {
    Error::Setting(format!(
        "augment.auto_augment: {reason}, in {text:?}; an example is \"rand-m9-mstd0.5-inc1\""
    ))
}

/// The text that [`FromStr`] reads, with `n` and `p` always.
impl fmt::Display for RandAugment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            magnitude,
            magnitude_std,
            magnitude_max,
            layers,
            probability,
            set,
        } = self;
        write!(f, "rand-m{magnitude}-n{layers}-p{probability}")?;
        if *magnitude_std > 0.0 {
            write!(f, "-mstd{magnitude_std}")?;
        }
        if f64::from(*magnitude_max) != FULL {
            write!(f, "-mmax{magnitude_max}")?;
        }
        f.write_str(match set {
            Set::All => "",
            Set::Increasing => "-inc1",
            Set::Weights => "-tweights",
            Set::ThreeAugment => "-t3a",
            Set::WeightedThreeAugment => "-t3aw",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Stream, rng};

    fn parsed(text: &str) -> RandAugment {
        text.parse().unwrap()
    }

    fn refused(text: &str) -> String {
        text.parse::<RandAugment>().unwrap_err().to_string()
    }

    #[test]
    fn sections_come_in_any_order_and_print_in_one() {
        for (text, printed) in [
            ("rand", "rand-m10-n2-p0.5"),
            ("rand-inc1-mstd0.5-m9", "rand-m9-n2-p0.5-mstd0.5-inc1"),
            ("rand-n3-p1-mmax30-m12", "rand-m12-n3-p1-mmax30"),
            ("rand-t3a-inc1-inc0", "rand-m10-n2-p0.5-t3a"),
            ("rand-tweights-mstd101", "rand-m10-n2-p0.5-mstd101-tweights"),
            ("rand-t3aw", "rand-m10-n2-p0.5-t3aw"),
        ] {
            assert_eq!(parsed(text).to_string(), printed);
            assert_eq!(parsed(printed), parsed(text));
        }
    }

    #[test]
    fn a_wrong_text_is_refused_with_what_was_expected() {
        for (text, part) in [
            ("", "must start with \"rand\""),
            ("random-m9", "must start with \"rand\""),
            ("rand-", "found \"\""),
            (
                "rand-m",
                "m: expected a whole number from 0 to 1000, found \"\"",
            ),
            ("rand-m9.5", "found \"9.5\""),
            ("rand-p1.5", "p: expected a number in [0, 1], found \"1.5\""),
            ("rand-mstd1e999", "mstd: expected a number of 0 or more"),
            ("rand-mmax0", "from 1 to 1000"),
            ("rand-inc2", "inc: expected a whole number from 0 to 1"),
            ("rand-w0", "write \"tweights\""),
            (
                "rand-tbest",
                "expected \"tweights\", \"t3a\" or \"t3aw\", found \"tbest\"",
            ),
            ("rand-x3", "found \"x3\""),
            ("rand-tweights-n16", "at most 15"),
        ] {
            let error = refused(text);
            assert!(error.contains(part), "{text}: {error}");
            assert!(error.contains("augment.auto_augment"), "{error}");
        }
    }

    #[test]
    fn operations_are_applied_with_their_probability_and_equally_often() {
        const N: usize = 15_000;
        let augment = parsed("rand-m9-n2-p0.5");
        let mut rng = rng(1, Stream::Augment, 0, 0);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..N {
            for op in augment.draw((8, 8), &mut rng) {
                let name = format!("{op:?}");
                let name = name.split('(').next().unwrap_or_default().to_owned();
                *counts.entry(name).or_insert(0_usize) += 1;
            }
        }
        // Two draws of probability 1/2 among 15: 1,000 each, within five standard deviations of 31.
        assert_eq!(counts.len(), 15);
        for (name, count) in counts {
            assert!(count.abs_diff(1_000) < 155, "{name}: {count}");
        }
    }

    #[test]
    fn the_magnitude_has_the_deviation_and_the_limits_of_the_text() {
        let mut rng = rng(2, Stream::Augment, 0, 0);
        let mut draws = |text| -> Vec<f64> {
            let augment = parsed(text);
            (0..4_000)
                .map(|_| augment.draw_magnitude(&mut rng))
                .collect()
        };
        assert!(draws("rand-m7").iter().all(|&m| m == 7.0));
        assert!(draws("rand-m12").iter().all(|&m| m == 10.0));
        let noisy = draws("rand-m5-mstd0.5");
        let mean = noisy.iter().sum::<f64>() / 4_000.0;
        let variance = noisy.iter().map(|m| (m - 5.0).powi(2)).sum::<f64>() / 4_000.0;
        // Four standard deviations: 0.5 / sqrt(4000) and 0.25 sqrt(2 / 4000).
        assert!((mean - 5.0).abs() < 0.032, "{mean}");
        assert!((variance - 0.25).abs() < 0.023, "{variance}");
        let uniform = draws("rand-m10-mstd101");
        let mean = uniform.iter().sum::<f64>() / 4_000.0;
        assert!((mean - 5.0).abs() < 0.19, "{mean}");
        assert!(
            draws("rand-m9-mstd5")
                .iter()
                .all(|m| (0.0..=10.0).contains(m))
        );
    }
}
