//! Factors that change while training: of the learning rate, and of the weights of losses.
//!
//! ```text
//! factor(s) = w + (1 - w) s / W                              s < W     linear warm-up
//!             m + (1 - m) (1 + cos(pi s / S)) / 2        W <= s < S    cosine
//!             m                                          S <= s
//! ```
//! s optimizer steps done, W `warmup_steps`, S `total_steps`, w `warmup_factor`, m `min_factor`.
//! The cosine counts the warm-up, as timm's scheduler does by default: where the warm-up ends, the
//! factor is not 1 but already on the cosine. (Loshchilov & Hutter, SGDR, 2017, arXiv 1608.03983.)

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::ranges::Ranges;

/// The factor of the learning rate at each step: linear warm-up, then a cosine.
///
/// ```
/// # use adavit_train::LrSchedule;
/// let schedule = LrSchedule { warmup_steps: 10, total_steps: 100, min_factor: 0.01, warmup_factor: 0.0 };
/// assert_eq!(schedule.factor(5), 0.5);
/// assert_eq!(schedule.factor(100), 0.01);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LrSchedule {
    /// Steps of linear warm-up; they count in `total_steps`.
    pub warmup_steps: u64,
    /// Steps until the factor is `min_factor`, where it stays.
    pub total_steps: u64,
    /// The factor at the end, in [0, 1].
    pub min_factor: f64,
    /// The factor of the first warm-up step, in [0, 1].
    pub warmup_factor: f64,
}

impl LrSchedule {
    /// Checks that both factors are in [0, 1].
    pub fn validate(&self) -> Result<()> {
        Ranges::of("").ratios([
            ("min_factor", self.min_factor),
            ("warmup_factor", self.warmup_factor),
        ])
    }

    /// Returns the factor for the step that follows `step` finished ones.
    pub fn factor(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            let done = step as f64 / self.warmup_steps as f64;
            self.warmup_factor + (1.0 - self.warmup_factor) * done
        } else if step < self.total_steps {
            let done = step as f64 / self.total_steps as f64;
            self.min_factor + (1.0 - self.min_factor) * 0.5 * (1.0 + (PI * done).cos())
        } else {
            self.min_factor
        }
    }
}

/// A linear ramp from 0 to 1 in the progress of training, for the weight of a budget loss.
///
/// ```
/// # use adavit_train::Ramp;
/// let ramp = Ramp { start: 0.2, end: 0.6 };
/// assert_eq!(ramp.factor(0.1), 0.0);
/// assert_eq!(ramp.factor(0.9), 1.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ramp {
    /// The progress, in [0, 1], up to which the factor is 0.
    pub start: f64,
    /// The progress, in [0, 1], from which on the factor is 1; equal to `start` gives a step.
    pub end: f64,
}

impl Ramp {
    /// Checks that both ends are in [0, 1] and in order.
    pub fn validate(&self) -> Result<()> {
        self.validate_in("ramp")
    }

    /// As [`Self::validate`], for the settings of the table `table`.
    pub(crate) fn validate_in(&self, table: &str) -> Result<()> {
        let ranges = Ranges::of(table);
        ranges.ratios([("start", self.start), ("end", self.end)])?;
        if self.start > self.end {
            let expected = format!("at most its end, {}", self.end);
            return Err(ranges.unexpected("start", &expected, self.start));
        }
        Ok(())
    }

    /// Returns the factor at `progress`, the finished share of training in [0, 1].
    pub fn factor(&self, progress: f64) -> f64 {
        if progress >= self.end {
            1.0
        } else if progress <= self.start {
            0.0
        } else {
            (progress - self.start) / (self.end - self.start)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: LrSchedule = LrSchedule {
        warmup_steps: 20,
        total_steps: 100,
        min_factor: 0.1,
        warmup_factor: 0.2,
    };

    #[test]
    fn warm_up_starts_at_its_factor_and_is_linear() {
        assert_eq!(SCHEDULE.factor(0), 0.2);
        assert!((SCHEDULE.factor(10) - 0.6).abs() < 1e-15);
        assert!(SCHEDULE.factor(19) < 1.0);
    }

    #[test]
    fn the_cosine_counts_the_warm_up_and_ends_at_the_minimum() {
        let at_20 = 0.1 + 0.9 * 0.5 * (1.0 + (0.2 * PI).cos());
        assert!((SCHEDULE.factor(20) - at_20).abs() < 1e-15);
        assert!((SCHEDULE.factor(50) - 0.55).abs() < 1e-15);
        assert!(SCHEDULE.factor(99) > 0.1);
        assert_eq!(SCHEDULE.factor(100), 0.1);
        assert_eq!(SCHEDULE.factor(u64::MAX), 0.1);
    }

    #[test]
    fn without_warm_up_the_first_factor_is_one() {
        let schedule = LrSchedule {
            warmup_steps: 0,
            ..SCHEDULE
        };
        assert_eq!(schedule.factor(0), 1.0);
    }

    #[test]
    fn no_steps_at_all_give_the_minimum() {
        let schedule = LrSchedule {
            warmup_steps: 0,
            total_steps: 0,
            ..SCHEDULE
        };
        assert_eq!(schedule.factor(0), 0.1);
    }

    #[test]
    fn a_ramp_is_linear_between_its_ends() {
        let ramp = Ramp {
            start: 0.25,
            end: 0.75,
        };
        let factors = [0.0, 0.25, 0.375, 0.5, 0.75, 1.0].map(|progress| ramp.factor(progress));
        assert_eq!(factors, [0.0, 0.0, 0.25, 0.5, 1.0, 1.0]);
    }

    #[test]
    fn a_ramp_without_length_is_a_step() {
        assert_eq!(
            Ramp {
                start: 0.5,
                end: 0.5
            }
            .factor(0.49),
            0.0
        );
        assert_eq!(
            Ramp {
                start: 0.5,
                end: 0.5
            }
            .factor(0.5),
            1.0
        );
        assert_eq!(
            Ramp {
                start: 0.0,
                end: 0.0
            }
            .factor(0.0),
            1.0
        );
    }

    #[test]
    fn factors_out_of_range_and_reversed_ramps_are_refused() {
        assert!(SCHEDULE.validate().is_ok());
        assert!(
            LrSchedule {
                min_factor: 1.5,
                ..SCHEDULE
            }
            .validate()
            .is_err()
        );
        assert!(
            LrSchedule {
                warmup_factor: f64::NAN,
                ..SCHEDULE
            }
            .validate()
            .is_err()
        );
        assert!(
            Ramp {
                start: 0.2,
                end: 0.2
            }
            .validate()
            .is_ok()
        );
        assert!(
            Ramp {
                start: 0.6,
                end: 0.2
            }
            .validate()
            .is_err()
        );
        assert!(
            Ramp {
                start: -0.1,
                end: 0.2
            }
            .validate()
            .is_err()
        );
    }
}
