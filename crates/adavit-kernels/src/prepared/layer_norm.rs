//! Layer norms at inference.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use crate::cpu::norm::norm_row;
use crate::cpu::parts::Rows;
use crate::cpu::shared::Shared;
use crate::cpu::simd::Level;
use crate::prepared::weights::floats;
use crate::shape;
use crate::trace::operation;

/// Rows of a task.
const ROWS: usize = 32;

/// A layer norm with its weights as slices.
#[derive(Debug, Clone)]
pub struct PreparedLayerNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
}

impl PreparedLayerNorm {
    /// Takes `weight` and `bias`, both `(C,)`.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn new(weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Self> {
        shape::same("prepared layer norm", weight, bias)?;
        Ok(Self {
            weight: floats(weight)?,
            bias: floats(bias)?,
            eps: eps as f32,
        })
    }

    /// Writes the normalised `rows` of `xs`, rows of C values, to the same rows of `ys`.
    ///
    /// # Panics
    /// If a row lies out of bounds, or listed rows do not ascend.
    pub fn write(&self, xs: &[f32], ys: &mut [f32], rows: Rows) {
        let _span = operation("layer_norm", 0);
        let (c, level) = (self.weight.len(), Level::current());
        rows.check(xs.len() / c.max(1));
        let shared = Shared::new(ys);
        let tasks = rows.len().div_ceil(ROWS);
        (0..tasks).into_par_iter().for_each(|task| {
            let some = task * ROWS..((task + 1) * ROWS).min(rows.len());
            level.run(
                #[inline(always)]
                || {
                    for index in some.clone() {
                        let place = rows.at(index) * c;
                        // SAFETY: rows ascend, so no two are the same.
                        let ys = unsafe { shared.range(place, c) };
                        norm_row(ys, &xs[place..][..c], &self.weight, &self.bias, self.eps);
                    }
                },
            );
        });
    }
}
