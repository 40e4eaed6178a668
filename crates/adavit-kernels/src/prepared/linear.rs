//! Inference on slices: weights packed once, outputs into buffers that the caller keeps, no graph.
//!
//! Every function takes the rows, heads or ranges that it is to compute; the others are neither
//! read nor written. Results have the same bits as those of the differentiable operations, and a
//! row's do not depend on which others are computed.

use std::ops::Range;

use candle_core::{DType, Result, Tensor};
use rayon::prelude::*;

use crate::cpu::head::{Channels, Head, forward_head};
use crate::cpu::packed::{Packed, Piece, Task, partial_product};
use crate::cpu::parts::{PartList, Parts, Rows};
use crate::cpu::shared::{Shared, with_scratch};
use crate::cpu::simd::Level;
use crate::cpu::{lanes, math};
use crate::ops::layer_norm::norm_row;
use crate::shape;
use crate::trace::operation;

/// Rows of a task of a layer norm.
const NORM_ROWS: usize = 32;

/// Rows of a task of a small map.
const SMALL_ROWS: usize = 128;

/// Room that operations reuse, and the count of their multiply-adds.
#[derive(Debug, Default)]
pub struct Work {
    tasks: Vec<Task>,
    macs: u64,
}

impl Work {
    /// Returns the multiply-adds since the last call and counts from 0 again.
    pub fn take_macs(&mut self) -> u64 {
        std::mem::take(&mut self.macs)
    }

    /// Counts multiply-adds that were done for the same model by other operations.
    pub fn count(&mut self, macs: u64) {
        self.macs += macs;
    }
}

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
    /// If `parts` do not fit, see [`Parts::push`].
    pub fn write(&self, xs: &[f32], ys: &mut [f32], parts: &Parts, work: &mut Work) {
        self.run(
            ("linear", xs, parts, work),
            ys,
            #[inline(always)]
            |_, y| y,
        );
    }

    /// Writes the exact GELU of the outputs, as [`Self::write`].
    ///
    /// # Panics
    /// If `parts` do not fit.
    pub fn write_gelu(&self, xs: &[f32], ys: &mut [f32], parts: &Parts, work: &mut Work) {
        self.run(
            ("linear_gelu", xs, parts, work),
            ys,
            #[inline(always)]
            |_, y| math::gelu(y),
        );
    }

    /// Adds the outputs to `ys`, as [`Self::write`].
    ///
    /// # Panics
    /// If `parts` do not fit.
    pub fn add(&self, xs: &[f32], ys: &mut [f32], parts: &Parts, work: &mut Work) {
        self.run(
            ("linear + residual", xs, parts, work),
            ys,
            #[inline(always)]
            |x, y| x + y,
        );
    }

    /// Replaces y by `f(y, output)`.
    fn run(
        &self,
        (name, xs, parts, work): (&'static str, &[f32], &Parts, &mut Work),
        ys: &mut [f32],
        f: impl Fn(f32, f32) -> f32 + Sync,
    ) {
        let macs = parts.macs();
        let _span = operation(name, macs);
        work.macs += macs as u64;
        partial_product(
            Level::current(),
            (xs, &self.weight),
            PartList::Many(parts),
            [ys],
            (
                #[inline(always)]
                |at: Piece, [ys]: [&mut [f32]; 1], sums: &[f32]| {
                    let bias = &self.bias[at.column..];
                    for ((y, sum), b) in ys.iter_mut().zip(sums).zip(bias) {
                        *y = f(*y, sum + b);
                    }
                },
                &mut work.tasks,
            ),
        );
    }
}

/// Returns the bias of `n_out` outputs, zeros where there is none.
pub(crate) fn biases(bias: Option<&Tensor>, n_out: usize) -> Result<Vec<f32>> {
    match bias {
        Some(bias) => {
            shape::expect("prepared bias", bias, &[n_out])?;
            floats(bias)
        }
        None => Ok(vec![0.0; n_out]),
    }
}

/// Returns the values of a tensor in f32.
pub(crate) fn floats(xs: &Tensor) -> Result<Vec<f32>> {
    xs.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

/// An affine map with few outputs: one sum of products each, over the rows as they are.
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
    pub fn write(&self, xs: &[f32], ys: &mut [f32], rows: Rows, work: &mut Work) {
        let n_out = self.bias.len();
        let macs = rows.len() * self.weight.len();
        let _span = operation("decisions", macs);
        work.macs += macs as u64;
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

/// A layer norm with its weights at hand.
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
        let tasks = rows.len().div_ceil(NORM_ROWS);
        (0..tasks).into_par_iter().for_each(|task| {
            let some = task * NORM_ROWS..((task + 1) * NORM_ROWS).min(rows.len());
            level.run(
                #[inline(always)]
                || {
                    for index in some.clone() {
                        let place = rows.at(index) * c;
                        // SAFETY: rows ascend, so no two are the same.
                        let ys = unsafe { shared.range(place, c) };
                        norm_row(ys, &xs[place..][..c], (&self.weight, &self.bias), self.eps);
                    }
                },
            );
        });
    }
}

/// What attention computes of one image, as ranges of the lists of [`Images`].
#[derive(Debug, Clone, Default)]
pub struct ImageHeads {
    /// Of the rows of its tokens that attend to each other.
    pub rows: Range<usize>,
    /// Of the heads to compute.
    pub heads: Range<usize>,
    /// Of the heads whose values pass through.
    pub passing: Range<usize>,
}

/// What attention computes of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Images<'a> {
    /// Row numbers; those of an image ascend, and follow those of the image before.
    pub rows: &'a [usize],
    /// Head numbers; those of an image's two ranges differ.
    pub heads: &'a [usize],
    /// One entry per image.
    pub images: &'a [ImageHeads],
}

impl Images<'_> {
    /// Checks that no two places of the output are the same; returns the multiply-adds.
    fn check(&self, rows: usize, (num_heads, width): (usize, usize)) -> usize {
        let (mut next, mut macs) = (0, 0);
        for image in self.images {
            for row in &self.rows[image.rows.clone()] {
                assert!(*row >= next && *row < rows, "attend: ascending rows");
                next = row + 1;
            }
            let heads = || {
                let (computed, passing) = (image.heads.clone(), image.passing.clone());
                self.heads[computed].iter().chain(&self.heads[passing])
            };
            for (index, head) in heads().enumerate() {
                let again = heads().take(index).any(|before| before == head);
                assert!(*head < num_heads && !again, "attend: different heads");
            }
            macs += 2 * image.rows.len().pow(2) * width * image.heads.len();
        }
        macs
    }
}

/// Writes, for each image's rows and heads, softmax(q k^T / sqrt(D)) v to those rows and the head's
/// channels of `ys`, rows of `H D` values; for its passing heads it writes v. `qkv` has rows of q, k
/// and v side by side.
///
/// # Panics
/// If rows of the images together do not ascend, two heads of an image are the same, or something
/// lies out of bounds.
pub fn attend(
    qkv: &[f32],
    ys: &mut [f32],
    (num_heads, width): (usize, usize),
    images: Images,
    work: &mut Work,
) {
    let c = num_heads * width;
    assert_eq!(
        qkv.len(),
        3 * ys.len(),
        "attend: q, k and v for each output"
    );
    let macs = images.check(ys.len() / c.max(1), (num_heads, width));
    let _span = operation("attention", macs);
    work.macs += macs as u64;
    let (level, shared) = (Level::current(), Shared::new(ys));
    let (k, v) = (&qkv[c.min(qkv.len())..], &qkv[(2 * c).min(qkv.len())..]);
    images.images.par_iter().for_each(|image| {
        let tokens = &images.rows[image.rows.clone()];
        let head = |number: usize| Head {
            inputs: Channels {
                start: number * width,
                stride: 3 * c,
            },
            outputs: Channels {
                start: number * width,
                stride: c,
            },
            width,
            tokens,
        };
        for number in &images.heads[image.passing.clone()] {
            for (from, to) in head(*number).places() {
                // SAFETY: rows ascend and heads differ, so the places of all tasks are apart.
                let ys = unsafe { shared.range(to, width) };
                ys.copy_from_slice(&v[from..][..width]);
            }
        }
        let heads = &images.heads[image.heads.clone()];
        heads.par_iter().for_each(|number| {
            let head = head(*number);
            with_scratch(head.scratch_len(), |scratch| {
                forward_head(level, head, (qkv, k, v), &shared, scratch);
            });
        });
    });
}
