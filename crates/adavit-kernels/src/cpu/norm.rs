//! The layer norm of a row.

use crate::cpu::lanes;

/// Returns the mean of a row and 1 / sqrt(var + eps), from two passes.
#[inline(always)]
pub(crate) fn moments(xs: &[f32], eps: f32) -> (f32, f32) {
    let scale = (xs.len() as f32).recip();
    let mean = lanes::sum_of(
        xs,
        #[inline(always)]
        |x| x,
    ) * scale;
    let variance = lanes::sum_of(
        xs,
        #[inline(always)]
        |x| (x - mean) * (x - mean),
    ) * scale;
    (mean, (variance + eps).sqrt().recip())
}

/// Writes the normalised row, times the weight, plus the bias.
#[inline(always)]
pub(crate) fn norm_row(ys: &mut [f32], xs: &[f32], weight: &[f32], bias: &[f32], eps: f32) {
    let (mean, r) = moments(xs, eps);
    let affine = weight.iter().zip(bias);
    for ((y, x), (w, b)) in ys.iter_mut().zip(xs).zip(affine) {
        *y = (x - mean) * r * w + b;
    }
}
