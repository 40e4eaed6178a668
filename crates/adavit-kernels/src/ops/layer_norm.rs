//! Layer normalisation: y = (x - mean) / sqrt(var + eps) * weight + bias, over the last dimension.
//!
//! Ba, Kiros, Hinton 2016 (arXiv 1607.06450). candle's own has no backward. With r = 1 / sqrt(var +
//! eps), n = (x - mean) r and h = dy * weight the gradients are dx = r (h - mean(h) - n mean(h n)),
//! dweight = sum of dy n and dbias = sum of dy; mean and r are computed again, in cache.

use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::composed;
use crate::cpu::norm::{moments, norm_row};
use crate::cpu::rows::{Pass, rows_per_task};
use crate::cpu::simd::Level;
use crate::cpu::{lanes, rows};
use crate::ops::fused::{self, slice, tensor, values};
use crate::shape;
use crate::trace::operation;

/// Returns the normalised tensor, of the shape of `xs`.
///
/// # Shapes
/// `xs`: `(.., C)`; `weight`, `bias`: `(C,)`.
pub fn layer_norm(xs: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    layer_norm_at(Level::current(), xs, weight, bias, eps)
}

pub(crate) fn layer_norm_at(
    level: Level,
    xs: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<Tensor> {
    let c = xs.dim(D::Minus1)?;
    shape::expect("layer_norm weight", weight, &[c])?;
    shape::expect("layer_norm bias", bias, &[c])?;
    if fused::applies(&[xs, weight, bias]) && c > 0 {
        let (weight, bias) = (weight.contiguous()?, bias.contiguous()?);
        let eps = eps as f32;
        let op = LayerNorm { level, eps };
        return xs.contiguous()?.apply_op3(&weight, &bias, op);
    }
    composed::layer_norm(xs, weight, bias, eps)
}

struct LayerNorm {
    level: Level,
    eps: f32,
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn cpu_fwd(
        &self,
        xs: &CpuStorage,
        layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let _span = operation("layer_norm", 0);
        let (weight, bias) = (slice(weight, weight_layout)?, slice(bias, bias_layout)?);
        let c = weight.len();
        let ys = Pass::rows(self.level, c).map(
            slice(xs, layout)?,
            #[inline(always)]
            |_, ys, xs| {
                for (ys, xs) in ys.chunks_exact_mut(c).zip(xs.chunks_exact(c)) {
                    norm_row(ys, xs, weight, bias, self.eps);
                }
            },
        );
        Ok((CpuStorage::F32(ys), layout.shape().clone()))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let _span = operation("layer_norm backward", 0);
        let grad = grad.contiguous()?;
        let (dx, mut sums) = self.gradients(&values(xs)?, &values(weight)?, &values(&grad)?);
        let bias_sums = sums.split_off(weight.elem_count());
        let (dw, db) = (tensor(sums, weight)?, tensor(bias_sums, bias)?);
        Ok((Some(tensor(dx, xs)?), Some(dw), Some(db)))
    }
}

impl LayerNorm {
    /// Returns dx, and dweight followed by dbias.
    fn gradients(&self, xs: &[f32], weight: &[f32], grad: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let c = weight.len();
        let step = rows_per_task(c) * c;
        let mut dx = vec![0.0; xs.len()];
        let parts = dx
            .par_chunks_mut(step)
            .zip(xs.par_chunks(step))
            .zip(grad.par_chunks(step))
            .map(|((dx, xs), grad)| {
                let mut sums = vec![0.0; 2 * c];
                let task = Task {
                    xs,
                    weight,
                    grad,
                    eps: self.eps,
                };
                self.level.run(
                    #[inline(always)]
                    || task.gradients(dx, &mut sums),
                );
                sums
            })
            .collect();
        (dx, rows::total(parts, 2 * c))
    }
}

/// Some rows of the backward.
struct Task<'a> {
    xs: &'a [f32],
    weight: &'a [f32],
    grad: &'a [f32],
    eps: f32,
}

impl Task<'_> {
    /// Writes dx, and adds dweight and dbias to the two halves of `sums`.
    #[inline(always)]
    fn gradients(&self, dx: &mut [f32], sums: &mut [f32]) {
        let weight = self.weight;
        let c = weight.len();
        let scale = (c as f32).recip();
        let (dw, db) = sums.split_at_mut(c);
        let inputs = self.xs.chunks_exact(c).zip(self.grad.chunks_exact(c));
        for (dx, (xs, grad)) in dx.chunks_exact_mut(c).zip(inputs) {
            let (mean, r) = moments(xs, self.eps);
            // dx holds n until it is overwritten.
            for (n, x) in dx.iter_mut().zip(xs) {
                *n = (x - mean) * r;
            }
            let mean_h = lanes::dot(grad, weight) * scale;
            for (((n, g), dw), db) in dx.iter().zip(grad).zip(dw.iter_mut()).zip(db.iter_mut()) {
                *dw += g * n;
                *db += g;
            }
            let mean_hn = lanes::dot3(grad, weight, dx) * scale;
            for ((d, g), w) in dx.iter_mut().zip(grad).zip(weight) {
                *d = r * (g * w - mean_h - *d * mean_hn);
            }
        }
    }
}
