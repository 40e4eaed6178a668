//! The exact GELU of slices, and its derivative.

use crate::cpu::math;
use crate::cpu::rows::{Pass, map_into};
use crate::cpu::simd::Level;

/// Returns the GELU of every element.
pub(crate) fn gelu_values(level: Level, xs: &[f32]) -> Vec<f32> {
    Pass::elementwise(level).map(
        xs,
        #[inline(always)]
        |_, ys, xs| {
            for (y, x) in ys.iter_mut().zip(xs) {
                *y = math::gelu(*x);
            }
        },
    )
}

/// Returns the GELU of every element and its derivative.
pub(crate) fn gelu_and_derivative(level: Level, xs: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let mut derivatives = vec![0.0; xs.len()];
    let ys = map_into(
        level,
        xs,
        &mut derivatives,
        #[inline(always)]
        |ys, ds, xs| {
            for ((y, d), x) in ys.iter_mut().zip(ds).zip(xs) {
                (*y, *d) = math::gelu_and_derivative(*x);
            }
        },
    );
    (ys, derivatives)
}

/// Returns the gradient of the input of a GELU.
pub(crate) fn gelu_grad(level: Level, xs: &[f32], grad: &[f32]) -> Vec<f32> {
    Pass::elementwise(level).map2(
        xs,
        grad,
        #[inline(always)]
        |_, ds, xs, grad| {
            for ((d, x), g) in ds.iter_mut().zip(xs).zip(grad) {
                *d = g * math::gelu_derivative(*x);
            }
        },
    )
}
