//! Whole affine maps of slices, on packed weights.

use crate::cpu::math;
use crate::cpu::packed::{Packed, product};
use crate::cpu::simd::Level;

#[inline(always)]
fn affine(ys: &mut [f32], sums: &[f32], bias: &[f32]) {
    for ((y, sum), b) in ys.iter_mut().zip(sums).zip(bias) {
        *y = sum + b;
    }
}

/// Returns x B for rows of k values.
pub(crate) fn plain_product(level: Level, xs: &[f32], b: &Packed) -> Vec<f32> {
    let mut ys = vec![0.0; xs.len() / b.k() * b.n()];
    product(
        level,
        xs,
        b,
        [&mut ys],
        #[inline(always)]
        |_, [ys], sums| ys.copy_from_slice(sums),
    );
    ys
}

/// Returns x B + bias.
pub(crate) fn affine_product(level: Level, xs: &[f32], b: &Packed, bias: &[f32]) -> Vec<f32> {
    let mut ys = vec![0.0; xs.len() / b.k() * b.n()];
    product(
        level,
        xs,
        b,
        [&mut ys],
        #[inline(always)]
        |at, [ys], sums| affine(ys, sums, &bias[at.column..]),
    );
    ys
}

/// Returns gelu(x B + bias).
pub(crate) fn gelu_product(level: Level, xs: &[f32], b: &Packed, bias: &[f32]) -> Vec<f32> {
    let mut ys = vec![0.0; xs.len() / b.k() * b.n()];
    product(
        level,
        xs,
        b,
        [&mut ys],
        #[inline(always)]
        |at, [ys], sums| {
            for ((y, sum), b) in ys.iter_mut().zip(sums).zip(&bias[at.column..]) {
                *y = math::gelu(sum + b);
            }
        },
    );
    ys
}
