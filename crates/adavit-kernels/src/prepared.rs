//! Inference on slices: weights packed once, outputs into buffers that the caller keeps, no graph.
//!
//! Every function takes the rows, heads or ranges that it is to compute; the others are neither
//! read nor written. Results have the same bits as those of the differentiable operations, and a
//! row's do not depend on which others are computed.

use candle_core::{DType, Result, Tensor, bail};
use rayon::prelude::*;

use crate::attention::{Channels, Head, forward_head};
use crate::norm::norm_row;
use crate::packed::{Packed, Part, Piece, Rows, Task, partial_product};
use crate::shared::{Shared, with_scratch};
use crate::simd::Level;
use crate::trace::operation;
use crate::{math, shape};

/// Rows of a task of a layer norm.
const NORM_ROWS: usize = 32;

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
    /// If the tensors are not f32 of these shapes, or `group` is not a multiple of 16 that divides O
    /// or O itself.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>, group: usize) -> Result<Self> {
        let (n_out, n_in) = weight.dims2()?;
        if group != n_out && (!group.is_multiple_of(Packed::PANEL / 2) || group == 0) {
            bail!("prepared linear: expected groups of a multiple of 16 outputs, found {group}");
        }
        let width = if group.is_multiple_of(Packed::PANEL) || group == n_out {
            Packed::PANEL
        } else {
            Packed::PANEL / 2
        };
        let bias = match bias {
            Some(bias) => {
                shape::expect("prepared linear bias", bias, &[n_out])?;
                floats(bias)?
            }
            None => vec![0.0; n_out],
        };
        Ok(Self {
            weight: Packed::transposed(&floats(weight)?, n_in, width),
            bias,
        })
    }

    /// Returns the number of outputs.
    pub fn n_out(&self) -> usize {
        self.weight.n()
    }

    /// Writes the outputs of `parts`: `xs` has rows of I values, `ys` of O.
    ///
    /// # Panics
    /// If `parts` do not fit, see [`Part`].
    pub fn write(&self, xs: &[f32], ys: &mut [f32], parts: &[Part], work: &mut Work) {
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
    pub fn write_gelu(&self, xs: &[f32], ys: &mut [f32], parts: &[Part], work: &mut Work) {
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
    pub fn add(&self, xs: &[f32], ys: &mut [f32], parts: &[Part], work: &mut Work) {
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
        (name, xs, parts, work): (&'static str, &[f32], &[Part], &mut Work),
        ys: &mut [f32],
        f: impl Fn(f32, f32) -> f32 + Sync,
    ) {
        let macs = parts.iter().map(Part::macs).sum();
        let _span = operation(name, macs);
        work.macs += macs as u64;
        partial_product(
            Level::current(),
            (xs, &self.weight),
            parts,
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

/// Returns the values of a tensor in f32.
fn floats(xs: &Tensor) -> Result<Vec<f32>> {
    xs.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
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

/// What attention computes of one image.
#[derive(Debug, Clone, Copy)]
pub struct ImageHeads<'a> {
    /// The rows of its tokens that attend to each other, ascending.
    pub rows: &'a [usize],
    /// The heads to compute, ascending.
    pub heads: &'a [usize],
}

/// Writes, for each image's rows and heads, softmax(q k^T / sqrt(D)) v to those rows and the head's
/// channels of `ys`. All four have rows of `num_heads * width` values.
///
/// # Panics
/// If rows of the images together, or heads of one, do not ascend or lie out of bounds.
pub fn attend(
    (q, k, v): (&[f32], &[f32], &[f32]),
    ys: &mut [f32],
    (num_heads, width): (usize, usize),
    images: &[ImageHeads],
    work: &mut Work,
) {
    let c = num_heads * width;
    assert!(
        q.len() == ys.len() && k.len() == ys.len() && v.len() == ys.len(),
        "attend: equal sizes"
    );
    let mut next = 0;
    let mut macs = 0;
    for image in images {
        for row in image.rows {
            assert!(
                *row >= next && *row < ys.len() / c,
                "attend: ascending rows"
            );
            next = row + 1;
        }
        assert!(
            image.heads.is_sorted_by(|a, b| a < b) && image.heads.iter().all(|h| *h < num_heads),
            "attend: ascending heads"
        );
        macs += 2 * image.rows.len().pow(2) * width * image.heads.len();
    }
    let _span = operation("attention", macs);
    work.macs += macs as u64;
    let (level, shared) = (Level::current(), Shared::new(ys));
    images.par_iter().for_each(|image| {
        image.heads.par_iter().for_each(|head| {
            let channels = Channels {
                start: head * width,
                stride: c,
            };
            let head = Head {
                inputs: channels,
                outputs: channels,
                width,
                tokens: image.rows,
            };
            with_scratch(head.scratch_len(), |scratch| {
                forward_head(level, head, (q, k, v), &shared, scratch);
            });
        });
    });
}
