//! Axes: the range of the data, and ticks whose labels differ.
//!
//! ```text
//! ticks: i m 10^e within the range,   m 1, 2 or 5, the smallest step that leaves room for the labels
//! ```
//! A label has the digits of the step, so no two labels of an axis are the same text.

/// Steps between the ticks of an axis, at most; whole numbers take less room.
const MOST_STEPS: f64 = 6.0;
const MOST_WHOLE_STEPS: f64 = 10.0;
/// Room on both sides of the data, over its width.
const MARGIN: f64 = 0.04;
/// Values nearer to each other than this, relative to their size, are one value.
const SAME: f64 = 1e-6;
/// Sizes below this are 0.
const ZERO: f64 = 1e-100;

/// What the values of an axis are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::report) enum Values {
    /// Any numbers.
    Real,
    /// Counts, as of epochs: ticks lie on whole numbers.
    Whole,
}

/// A range of values with its ticks.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::report) struct Axis {
    /// Where it begins.
    pub(in crate::report) low: f64,
    /// Where it ends, above `low`.
    pub(in crate::report) high: f64,
    /// From low to high.
    pub(in crate::report) ticks: Vec<Tick>,
}

/// A value that is marked on an axis.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::report) struct Tick {
    /// The value.
    pub(in crate::report) at: f64,
    /// The value as text.
    pub(in crate::report) label: String,
}

impl Axis {
    /// The axis of some values, a little wider than they are; from 0 to 1 without values.
    pub(in crate::report) fn of(values: impl Iterator<Item = f64>, kind: Values) -> Self {
        let Some((low, high)) = ends(values) else {
            return Self::between(0.0, 1.0, kind);
        };
        let size = low.abs().max(high.abs());
        let width = high - low;
        let margin = if width > (size * SAME).max(ZERO) {
            width * MARGIN
        } else if size > ZERO {
            size * 0.05
        } else {
            0.5
        };
        Self::between(low - margin, high + margin, kind)
    }

    /// The axis of bars: from 0 to a little above the highest.
    pub(in crate::report) fn from_zero(highest: f64, kind: Values) -> Self {
        Self::between(0.0, highest.max(ZERO) * (1.0 + MARGIN), kind)
    }

    fn between(low: f64, high: f64, kind: Values) -> Self {
        let most = match kind {
            Values::Real => MOST_STEPS,
            Values::Whole => MOST_WHOLE_STEPS,
        };
        let step = Step::of((high - low) / most, kind);
        let first = (low / step.value()).ceil() as i64;
        let last = (high / step.value()).floor() as i64;
        let top = low.abs().max(high.abs());
        let ticks = (first..=last).map(|count| Tick {
            at: step.times(count),
            label: step.label(count, top),
        });
        Self {
            low,
            high,
            ticks: ticks.collect(),
        }
    }

    /// Where a value lies, as a share of the way from `low` to `high`.
    pub(in crate::report) fn share(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }
}

/// The least and the greatest of the finite values.
pub(in crate::report) fn ends(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values
        .filter(|value| value.is_finite())
        .fold(None, |ends, value| {
            let (low, high) = ends.unwrap_or((value, value));
            Some((value.min(low), value.max(high)))
        })
}

/// The distance of two ticks, `mantissa` 10^`exponent`.
#[derive(Debug, Clone, Copy)]
struct Step {
    mantissa: i64,
    exponent: i32,
}

impl Step {
    /// The smallest step that is not below `least`.
    fn of(least: f64, kind: Values) -> Self {
        let exponent = least.log10().floor() as i32;
        let fits = |step: &Self| step.value() >= least * (1.0 - 1e-9);
        let mantissas = [1, 2, 5].into_iter();
        let steps = mantissas.map(|mantissa| Self { mantissa, exponent });
        let next = Self {
            mantissa: 1,
            exponent: exponent + 1,
        };
        let step = steps.into_iter().find(fits).unwrap_or(next);
        if kind == Values::Whole && step.exponent < 0 {
            return Self {
                mantissa: 1,
                exponent: 0,
            };
        }
        step
    }

    fn value(self) -> f64 {
        self.times(1)
    }

    /// `count` steps from 0. A division by a power of ten is exact where a product would not be.
    fn times(self, count: i64) -> f64 {
        let digits = (count * self.mantissa) as f64;
        if self.exponent < 0 {
            digits / 10f64.powi(-self.exponent)
        } else {
            digits * 10f64.powi(self.exponent)
        }
    }

    /// The label of the tick that lies `count` steps from 0, on an axis that reaches to `top`.
    fn label(self, count: i64, top: f64) -> String {
        let value = self.times(count);
        let readable = top < 1e7 && (self.exponent >= -4 || top >= 1e-2);
        if readable || count == 0 {
            let decimals = if readable { (-self.exponent).max(0) } else { 0 };
            return format!("{value:.*}", decimals as usize);
        }
        let digits = (count * self.mantissa).unsigned_abs().ilog10();
        format!("{value:.*e}", digits as usize)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(values: &[f64], kind: Values) -> Vec<String> {
        let axis = Axis::of(values.iter().copied(), kind);
        axis.ticks.into_iter().map(|tick| tick.label).collect()
    }

    #[test]
    fn labels_have_the_digits_of_their_step() {
        let real = |values: &[f64]| labels(values, Values::Real).join(" ");
        assert_eq!(real(&[0.928, 0.931]), "0.928 0.929 0.930 0.931");
        assert_eq!(real(&[0.9284, 0.9296]), "0.9285 0.9290 0.9295");
        assert_eq!(real(&[0.0, 1.0]), "0.0 0.2 0.4 0.6 0.8 1.0");
        assert_eq!(real(&[-40.0, 60.0]), "-40 -20 0 20 40 60");
        assert_eq!(real(&[2e-5, 6e-5]), "2e-5 3e-5 4e-5 5e-5 6e-5");
        assert_eq!(real(&[0.0, 3.2e9]), "0 1e9 2e9 3e9");
    }

    #[test]
    fn counts_have_whole_ticks() {
        assert_eq!(labels(&[1.0, 3.0], Values::Whole), ["1", "2", "3"]);
        assert_eq!(labels(&[1.0], Values::Whole), ["1"]);
        let epochs = labels(&[1.0, 50.0], Values::Whole);
        assert_eq!(epochs, ["0", "10", "20", "30", "40", "50"]);
    }

    #[test]
    fn the_range_is_that_of_the_data() {
        let axis = Axis::of([0.928, f64::NAN, 0.931].into_iter(), Values::Real);
        assert!(axis.low > 0.927 && axis.low <= 0.928, "{axis:?}");
        assert!(axis.high < 0.932 && axis.high >= 0.931, "{axis:?}");
        assert_eq!(Axis::of([].into_iter(), Values::Real).share(0.25), 0.25);
    }

    proptest! {
        #[test]
        fn tick_labels_differ_and_say_where_the_tick_lies(
            low in prop_oneof![-1e300..1e300, -1e3..1e3, 0.0..1.0],
            width in prop_oneof![Just(0.0), 0.0..1e-9, 0.0..1e-3, 0.0..1e9],
            whole in any::<bool>(),
        ) {
            let kind = if whole { Values::Whole } else { Values::Real };
            let axis = Axis::of([low, low + width].into_iter(), kind);
            prop_assert!(axis.low <= low && low + width <= axis.high);
            if !whole {
                prop_assert!((2..=7).contains(&axis.ticks.len()), "{axis:?}");
            }
            for pair in axis.ticks.windows(2) {
                prop_assert!(pair[0].label != pair[1].label, "{axis:?}");
                let step = pair[1].at - pair[0].at;
                let said: f64 = pair[0].label.parse().unwrap();
                prop_assert!((said - pair[0].at).abs() < 1e-3 * step, "{axis:?}");
            }
            let within = |tick: &Tick| axis.low <= tick.at && tick.at <= axis.high;
            prop_assert!(axis.ticks.iter().all(within), "{axis:?}");
        }
    }
}
