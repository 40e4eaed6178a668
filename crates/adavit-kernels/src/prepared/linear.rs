//! Affine maps at inference.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use crate::cpu::packed::{Packed, PartialProduct, Piece};
use crate::cpu::parts::{PartList, ProductParts, Rows};
use crate::cpu::simd::Level;
use crate::cpu::{lanes, math};
use crate::prepared::weights::{biases, floats};
use crate::prepared::workspace::Workspace;
use crate::shape;
use crate::trace::operation;

/// Rows of a task of a small map.
const SMALL_ROWS: usize = 128;

/// An affine map y = x W^T + b with its weight packed for inference.
#[derive(Debug, Clone)]
pub struct PreparedLinear {
    weight: Packed,
    bias: Vec<f32>,
}

impl PreparedLinear {
    /// Packs `weight`, `(O, I)`, whose outputs may be computed in groups of `group`.
    ///
    /// # Errors
    /// If the tensors have other shapes, or `group` does not divide O.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>, group: usize) -> Result<Self> {
        let (n_out, n_in) = weight.dims2()?;
        shape::divides("prepared linear: groups of outputs", group, n_out)?;
        Ok(Self {
            weight: Packed::grouped(&floats(weight)?, n_in, group),
            bias: biases(bias, n_out)?,
        })
    }

    /// Returns the number of outputs.
    pub fn n_out(&self) -> usize {
        self.weight.n()
    }

    /// Writes the outputs of `parts`: `xs` has rows of I values, `ys` of O.
    ///
    /// # Panics
    /// If `parts` do not fit, see [`ProductParts::push`].
    pub fn write(&self, xs: &[f32], ys: &mut [f32], parts: &ProductParts, work: &mut Workspace) {
        let call = Call {
            name: "linear",
            xs,
            parts,
            work,
        };
        self.run(
            call,
            ys,
            #[inline(always)]
            |_, y| y,
        );
    }

    /// Writes the exact GELU of the outputs, as [`Self::write`].
    ///
    /// # Panics
    /// If `parts` do not fit.
    pub fn write_gelu(
        &self,
        xs: &[f32],
        ys: &mut [f32],
        parts: &ProductParts,
        work: &mut Workspace,
    ) {
        let call = Call {
            name: "linear_gelu",
            xs,
            parts,
            work,
        };
        self.run(
            call,
            ys,
            #[inline(always)]
            |_, y| math::gelu(y),
        );
    }

    /// Adds the outputs to `ys`, as [`Self::write`].
    ///
    /// # Panics
    /// If `parts` do not fit.
    pub fn add(&self, xs: &[f32], ys: &mut [f32], parts: &ProductParts, work: &mut Workspace) {
        let call = Call {
            name: "linear + residual",
            xs,
            parts,
            work,
        };
        self.run(
            call,
            ys,
            #[inline(always)]
            |x, y| x + y,
        );
    }

    /// Replaces y by `f(y, output)`.
    fn run(&self, call: Call, ys: &mut [f32], f: impl Fn(f32, f32) -> f32 + Sync) {
        let Call {
            name,
            xs,
            parts,
            work,
        } = call;
        let macs = parts.macs();
        let _span = operation(name, macs);
        work.count(macs as u64);
        let product = PartialProduct {
            level: Level::current(),
            xs,
            b: &self.weight,
            parts: PartList::Many(parts),
        };
        product.run(
            [ys],
            #[inline(always)]
            |at: Piece, [ys]: [&mut [f32]; 1], sums: &[f32]| {
                let bias = &self.bias[at.column..];
                for ((y, sum), b) in ys.iter_mut().zip(sums).zip(bias) {
                    *y = f(*y, sum + b);
                }
            },
            &mut work.tasks,
        );
    }
}

/// One use of a [`PreparedLinear`].
struct Call<'a> {
    name: &'static str,
    xs: &'a [f32],
    parts: &'a ProductParts,
    work: &'a mut Workspace,
}

/// An affine map with few outputs. Each output is one sum of products over a row; no weight is packed.
#[derive(Debug, Clone)]
pub struct SmallLinear {
    /// `(O, I)`.
    weight: Vec<f32>,
    bias: Vec<f32>,
    n_in: usize,
}

impl SmallLinear {
    /// Takes `weight`, `(O, I)`, and `bias`, `(O,)`.
    ///
    /// # Errors
    /// If the tensors have other shapes.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        let (n_out, n_in) = weight.dims2()?;
        Ok(Self {
            weight: floats(weight)?,
            bias: biases(bias, n_out)?,
            n_in,
        })
    }

    /// Returns the number of outputs.
    pub fn n_out(&self) -> usize {
        self.bias.len()
    }

    /// Writes the outputs of some rows of `xs`, rows of I values, one after the other to `ys`.
    ///
    /// # Panics
    /// If a row lies out of bounds, or `ys` has not O values for each.
    pub fn write(&self, xs: &[f32], ys: &mut [f32], rows: Rows, work: &mut Workspace) {
        let n_out = self.bias.len();
        let macs = rows.len() * self.weight.len();
        let _span = operation("decisions", macs);
        work.count(macs as u64);
        assert_eq!(ys.len(), rows.len() * n_out, "small linear: outputs");
        let level = Level::current();
        ys.par_chunks_mut((n_out * SMALL_ROWS).max(1))
            .enumerate()
            .for_each(|(task, ys)| {
                level.run(
                    #[inline(always)]
                    || {
                        for (index, ys) in ys.chunks_exact_mut(n_out).enumerate() {
                            let row = rows.at(task * SMALL_ROWS + index);
                            let xs = &xs[row * self.n_in..][..self.n_in];
                            let maps = self.weight.chunks_exact(self.n_in).zip(&self.bias);
                            for (y, (weight, bias)) in ys.iter_mut().zip(maps) {
                                *y = lanes::dot(xs, weight) + bias;
                            }
                        }
                    },
                );
            });
    }
}
