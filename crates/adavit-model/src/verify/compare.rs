//! Differences between what was computed and what was recorded.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde::Serialize;

use crate::error::{Error, Result};

/// Relative differences are over at least this.
const SMALLEST: f64 = 1e-6;

/// How far one quantity, such as the logits, is from what was recorded.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TensorComparison {
    /// What was compared: gates, gate logits, hidden, logits, losses or gradients.
    pub kind: &'static str,
    /// Its tensors.
    pub tensors: usize,
    /// Their elements.
    pub elements: usize,
    /// The largest absolute difference.
    pub max_abs: f64,
    /// The largest difference over the recorded element's absolute value; 1e-6 where that is less.
    pub max_rel: f64,
    /// The largest difference over what is allowed there: above 1 it fails.
    pub of_tolerance: f64,
    /// The tensor with that difference.
    pub worst: String,
    /// Whether every element is within its tolerance.
    pub passed: bool,
}

/// What may differ, and by how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantity {
    Gates,
    GateLogits,
    Hidden,
    Logits,
    Losses,
    Gradients,
}

/// Differences below `absolute + relative * |recorded|` pass, where the recorded value is the
/// element's own or the largest of its tensor.
struct Tolerance {
    absolute: f64,
    relative: f64,
    of_largest: bool,
}

impl Quantity {
    fn name(self) -> &'static str {
        match self {
            Self::Gates => "gates",
            Self::GateLogits => "gate logits",
            Self::Hidden => "hidden",
            Self::Logits => "logits",
            Self::Losses => "losses",
            Self::Gradients => "gradients",
        }
    }

    fn tolerance(self) -> Tolerance {
        let (absolute, relative, of_largest) = match self {
            // 0 against 1: anything else than equality is above.
            Self::Gates => (1e-9, 0.0, false),
            Self::GateLogits => (2e-5, 1e-5, true),
            Self::Hidden | Self::Logits => (2e-5, 1e-5, false),
            Self::Losses => (1e-5, 0.0, false),
            Self::Gradients => (1e-6, 1e-4, true),
        };
        Tolerance {
            absolute,
            relative,
            of_largest,
        }
    }
}

/// Collects comparisons, one of each quantity.
#[derive(Debug)]
pub(super) struct Comparer {
    /// The recording, for errors.
    path: PathBuf,
    comparisons: Vec<TensorComparison>,
}

impl Comparer {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            comparisons: Vec::new(),
        }
    }

    fn unfit(&self, message: String) -> Error {
        Error::Recording {
            path: self.path.clone(),
            message,
        }
    }

    pub(super) fn finish(self) -> Vec<TensorComparison> {
        self.comparisons
    }

    /// Compares a tensor, which has to be there in both or in neither.
    pub(super) fn compare_optional(
        &mut self,
        quantity: Quantity,
        name: &str,
        found: Option<&Tensor>,
        recorded: Option<&Tensor>,
    ) -> Result<()> {
        match (found, recorded) {
            (Some(found), Some(recorded)) => self.compare(quantity, name, found, recorded),
            (None, None) => Ok(()),
            (found, _) => {
                let whose = if found.is_some() {
                    "model"
                } else {
                    "recording"
                };
                Err(self.unfit(format!(
                    "{name}: only the {whose} has it; the recording's config is not that of its \
                     numbers"
                )))
            }
        }
    }

    pub(super) fn compare(
        &mut self,
        quantity: Quantity,
        name: &str,
        found: &Tensor,
        recorded: &Tensor,
    ) -> Result<()> {
        if found.dims() != recorded.dims() {
            return Err(self.unfit(format!(
                "{name}: expected the recorded shape {:?}, found {:?}",
                recorded.dims(),
                found.dims()
            )));
        }
        let (found, recorded) = (numbers(found)?, numbers(recorded)?);
        let tolerance = quantity.tolerance();
        let largest = recorded.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        let comparison = self.of(quantity);
        comparison.tensors += 1;
        comparison.elements += recorded.len();
        for (found, recorded) in found.into_iter().zip(recorded) {
            let difference = (found - recorded).abs();
            let scale = if tolerance.of_largest {
                largest
            } else {
                recorded.abs()
            };
            let allowed = tolerance.absolute + tolerance.relative * scale;
            // What is not a number is as far away as can be, on whichever side it is.
            let difference = if difference.is_nan() {
                f64::MAX
            } else {
                difference
            };
            let of_tolerance = difference / allowed;
            comparison.max_abs = comparison.max_abs.max(difference);
            let relative = difference / recorded.abs().max(SMALLEST);
            comparison.max_rel = comparison.max_rel.max(relative);
            if of_tolerance > comparison.of_tolerance || comparison.worst.is_empty() {
                comparison.of_tolerance = of_tolerance;
                comparison.worst = name.to_string();
            }
        }
        comparison.passed = comparison.of_tolerance <= 1.0;
        Ok(())
    }

    fn of(&mut self, quantity: Quantity) -> &mut TensorComparison {
        let place = self
            .comparisons
            .iter()
            .position(|c| c.kind == quantity.name());
        let place = place.unwrap_or_else(|| {
            self.comparisons.push(TensorComparison {
                kind: quantity.name(),
                tensors: 0,
                elements: 0,
                max_abs: 0.0,
                max_rel: 0.0,
                of_tolerance: 0.0,
                worst: String::new(),
                passed: true,
            });
            self.comparisons.len() - 1
        });
        &mut self.comparisons[place]
    }
}

fn numbers(xs: &Tensor) -> Result<Vec<f64>> {
    let xs = xs.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    Ok(xs.flatten_all()?.to_vec1()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(quantity: Quantity, found: &[f64], recorded: &[f64]) -> TensorComparison {
        let tensor = |xs: &[f64]| Tensor::new(xs, &Device::Cpu).unwrap();
        let mut comparer = Comparer::new(Path::new("recording"));
        let (found, recorded) = (tensor(found), tensor(recorded));
        comparer.compare(quantity, "x", &found, &recorded).unwrap();
        comparer.finish().remove(0)
    }

    #[test]
    fn tolerances_are_of_the_element_or_of_the_largest() {
        assert!(compared(Quantity::Logits, &[1.000_029, 100.0], &[1.0, 100.0]).passed);
        assert!(!compared(Quantity::Logits, &[1.000_031, 100.0], &[1.0, 100.0]).passed);
        assert!(compared(Quantity::Gradients, &[1.009, 100.0], &[1.0, 100.0]).passed);
        assert!(!compared(Quantity::Gradients, &[1.011, 100.0], &[1.0, 100.0]).passed);
        assert!(!compared(Quantity::Gates, &[1.0, 0.0], &[1.0, 1.0]).passed);
    }

    #[test]
    fn what_is_not_a_number_fails() {
        for (found, recorded) in [(f64::NAN, 0.0), (0.0, f64::NAN), (f64::INFINITY, 0.0)] {
            assert!(!compared(Quantity::Logits, &[found], &[recorded]).passed);
        }
    }
}
