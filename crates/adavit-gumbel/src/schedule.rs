//! Schedules of the temperature, with p the progress of training in [0, 1].
//!
//! ```text
//! constant      τ(p) = τ
//! exponential   τ(p) = start^(1-p) · end^p
//! cosine        τ(p) = start · w + end · (1 - w),  w = (1 + cos πp) / 2
//! ```
//!
//! Each gives `start` at 0 and `end` at 1 exactly.

use std::f64::consts::PI;

use candle_core::Result;
use serde::{Deserialize, Serialize};

use crate::perturb::check_tau;

/// How the temperature of the gates changes during training.
///
/// In a configuration file: `schedule = "cosine"`, `start = 5.0`, `end = 0.5`.
///
/// # Example
///
/// ```
/// use adavit_gumbel::Temperature;
///
/// let schedule = Temperature::Exponential { start: 4., end: 1. };
/// schedule.validate()?;
/// assert_eq!([0., 0.5, 1.].map(|p| schedule.at(p)), [4., 2., 1.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "schedule", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Temperature {
    /// The same temperature throughout.
    Constant {
        /// The temperature.
        tau: f64,
    },
    /// From `start` to `end` by a constant factor per step.
    Exponential {
        /// Temperature at the beginning.
        start: f64,
        /// Temperature at the end.
        end: f64,
    },
    /// From `start` to `end` along half a cosine: slow, fast, slow.
    Cosine {
        /// Temperature at the beginning.
        start: f64,
        /// Temperature at the end.
        end: f64,
    },
}

impl Temperature {
    /// Returns the temperature at `progress`, which is clamped to [0, 1].
    pub fn at(&self, progress: f64) -> f64 {
        let p = progress.clamp(0., 1.);
        match *self {
            Self::Constant { tau } => tau,
            Self::Exponential { start, end } => start.powf(1. - p) * end.powf(p),
            Self::Cosine { start, end } => {
                let w = f64::midpoint(1., (PI * p).cos());
                start * w + end * (1. - w)
            }
        }
    }

    /// Checks that every temperature of the schedule is one that gates accept.
    ///
    /// # Errors
    ///
    /// If a temperature is outside [1e-30, 1e30].
    pub fn validate(&self) -> Result<()> {
        match *self {
            Self::Constant { tau } => check_tau(tau),
            Self::Exponential { start, end } | Self::Cosine { start, end } => {
                check_tau(start)?;
                check_tau(end)
            }
        }
    }
}

impl Default for Temperature {
    /// Constant 5, the temperature of the published models (Meng et al., 2022).
    fn default() -> Self {
        Self::Constant { tau: 5. }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn schedules_hit_both_end_points_exactly_and_clamp_beyond() {
        let (start, end) = (5., 0.3);
        for schedule in [
            Temperature::Exponential { start, end },
            Temperature::Cosine { start, end },
        ] {
            assert_eq!((schedule.at(0.), schedule.at(1.)), (start, end));
            assert_eq!((schedule.at(-2.), schedule.at(7.)), (start, end));
        }
        assert_eq!(Temperature::default().at(0.3), 5.);
    }

    #[test]
    fn schedules_are_halfway_in_their_own_sense_at_one_half() {
        let (start, end) = (8., 2.);
        let exponential = Temperature::Exponential { start, end }.at(0.5);
        let cosine = Temperature::Cosine { start, end }.at(0.5);
        assert!((exponential - 4.).abs() < 1e-12);
        assert!((cosine - 5.).abs() < 1e-12);
    }

    #[test]
    fn schedules_read_as_they_are_documented() {
        let read = |text: &str| toml::from_str::<Temperature>(text);
        let cosine = Temperature::Cosine {
            start: 5.,
            end: 0.5,
        };
        assert_eq!(
            read("schedule = \"cosine\"\nstart = 5.0\nend = 0.5"),
            Ok(cosine)
        );
        assert_eq!(
            read("schedule = \"constant\"\ntau = 5.0"),
            Ok(Temperature::default())
        );
        assert_eq!(read(&toml::to_string(&cosine).unwrap()), Ok(cosine));
    }

    #[test]
    fn unknown_schedules_and_fields_are_refused() {
        let read = |text: &str| toml::from_str::<Temperature>(text);
        assert!(read("schedule = \"linear\"\nstart = 5.0\nend = 0.5").is_err());
        assert!(read("schedule = \"constant\"\ntau = 5.0\nend = 0.5").is_err());
        assert!(read("schedule = \"cosine\"\nstart = 5.0").is_err());
    }

    #[test]
    fn temperatures_that_gates_refuse_are_refused() {
        for tau in [0., -1., f64::NAN, f64::INFINITY] {
            assert!(Temperature::Constant { tau }.validate().is_err());
            assert!(
                Temperature::Exponential {
                    start: 1.,
                    end: tau
                }
                .validate()
                .is_err()
            );
            assert!(
                Temperature::Cosine {
                    start: tau,
                    end: 1.
                }
                .validate()
                .is_err()
            );
        }
        assert!(Temperature::default().validate().is_ok());
    }

    proptest! {
        #[test]
        fn falling_schedules_never_rise_and_stay_between_their_ends(
            end in 0.01f64..2., drop in 0f64..10., p in 0f64..1., step in 0f64..1.,
        ) {
            let start = end + drop;
            // Monotone up to the rounding of pow and cos.
            let slack = 1e-14 * start;
            for schedule in [Temperature::Exponential { start, end }, Temperature::Cosine { start, end }] {
                let (now, later) = (schedule.at(p), schedule.at(p + step));
                prop_assert!(later <= now + slack);
                prop_assert!(later >= end - slack && now <= start + slack);
            }
        }
    }
}
