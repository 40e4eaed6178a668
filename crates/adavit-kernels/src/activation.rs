//! GELU, exact: y = x / 2 (1 + erf(x / sqrt 2)), Hendrycks and Gimpel 2016 (arXiv 1606.08415);
//! erf; tanh; and softmax over the last dimension.

use std::f32::consts::FRAC_2_SQRT_PI;

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};

use crate::fused::{self, slice, tensor, values};
use crate::simd::Level;
use crate::trace::operation;
use crate::{composed, lanes, math, rows};

/// Returns the exact (erf) GELU, elementwise.
pub fn gelu(xs: &Tensor) -> Result<Tensor> {
    gelu_at(Level::current(), xs)
}

pub(crate) fn gelu_at(level: Level, xs: &Tensor) -> Result<Tensor> {
    if fused::applies(&[xs]) {
        return xs.contiguous()?.apply_op1(Gelu { level });
    }
    composed::gelu(xs)
}

/// Returns the error function, elementwise.
pub fn erf(xs: &Tensor) -> Result<Tensor> {
    erf_at(Level::current(), xs)
}

pub(crate) fn erf_at(level: Level, xs: &Tensor) -> Result<Tensor> {
    if fused::applies(&[xs]) {
        return xs.contiguous()?.apply_op1(Erf { level });
    }
    composed::erf(xs)
}

/// Returns the hyperbolic tangent, elementwise.
pub fn tanh(xs: &Tensor) -> Result<Tensor> {
    tanh_at(Level::current(), xs)
}

pub(crate) fn tanh_at(level: Level, xs: &Tensor) -> Result<Tensor> {
    if fused::applies(&[xs]) {
        return xs.contiguous()?.apply_op1(Tanh { level });
    }
    composed::tanh(xs)
}

/// Returns the softmax over the last dimension.
pub fn softmax(xs: &Tensor) -> Result<Tensor> {
    softmax_at(Level::current(), xs)
}

pub(crate) fn softmax_at(level: Level, xs: &Tensor) -> Result<Tensor> {
    if fused::applies(&[xs]) && xs.dim(D::Minus1)? > 0 {
        return xs.contiguous()?.apply_op1(Softmax { level });
    }
    composed::softmax(xs)
}

struct Gelu {
    level: Level,
}

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let _span = operation("gelu", 0);
        let ys = rows::map(
            self.level,
            slice(storage, layout)?,
            1,
            #[inline(always)]
            |_, ys, xs| gelu_into(ys, xs),
        );
        Ok((CpuStorage::F32(ys), layout.shape().clone()))
    }

    fn bwd(&self, xs: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let _span = operation("gelu backward", 0);
        let grad = grad.contiguous()?;
        let ds = gelu_grad(self.level, &values(xs)?, &values(&grad)?);
        Ok(Some(tensor(ds, xs)?))
    }
}

/// Writes the GELU of every element.
#[inline(always)]
pub(crate) fn gelu_into(ys: &mut [f32], xs: &[f32]) {
    for (y, x) in ys.iter_mut().zip(xs) {
        *y = math::gelu(*x);
    }
}

/// Returns the GELU of every element.
pub(crate) fn gelu_values(level: Level, xs: &[f32]) -> Vec<f32> {
    rows::map(
        level,
        xs,
        1,
        #[inline(always)]
        |_, ys, xs| gelu_into(ys, xs),
    )
}

/// Returns the GELU of every element and its derivative.
pub(crate) fn gelu_and_derivative(level: Level, xs: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let mut derivatives = vec![0.0; xs.len()];
    let ys = rows::map_into(
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
    rows::map2(
        level,
        (xs, grad),
        1,
        #[inline(always)]
        |_, ds, xs, grad| {
            for ((d, x), g) in ds.iter_mut().zip(xs).zip(grad) {
                *d = g * math::gelu_derivative(*x);
            }
        },
    )
}

struct Erf {
    level: Level,
}

impl CustomOp1 for Erf {
    fn name(&self) -> &'static str {
        "erf"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let _span = operation("erf", 0);
        let ys = rows::map(
            self.level,
            slice(storage, layout)?,
            1,
            #[inline(always)]
            |_, ys, xs| {
                for (y, x) in ys.iter_mut().zip(xs) {
                    *y = math::erf(*x);
                }
            },
        );
        Ok((CpuStorage::F32(ys), layout.shape().clone()))
    }

    fn bwd(&self, xs: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let _span = operation("erf backward", 0);
        let grad = grad.contiguous()?;
        let ds = rows::map2(
            self.level,
            (&values(xs)?, &values(&grad)?),
            1,
            #[inline(always)]
            |_, ds, xs, grad| {
                for ((d, x), g) in ds.iter_mut().zip(xs).zip(grad) {
                    *d = g * (FRAC_2_SQRT_PI * math::exp(-x * x));
                }
            },
        );
        Ok(Some(tensor(ds, xs)?))
    }
}

struct Tanh {
    level: Level,
}

impl CustomOp1 for Tanh {
    fn name(&self) -> &'static str {
        "tanh"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let _span = operation("tanh", 0);
        let ys = rows::map(
            self.level,
            slice(storage, layout)?,
            1,
            #[inline(always)]
            |_, ys, xs| {
                for (y, x) in ys.iter_mut().zip(xs) {
                    *y = math::tanh(*x);
                }
            },
        );
        Ok((CpuStorage::F32(ys), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, ys: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let _span = operation("tanh backward", 0);
        let grad = grad.contiguous()?;
        let ds = rows::map2(
            self.level,
            (&values(ys)?, &values(&grad)?),
            1,
            #[inline(always)]
            |_, ds, ys, grad| {
                for ((d, y), g) in ds.iter_mut().zip(ys).zip(grad) {
                    *d = g * (1.0 - y * y);
                }
            },
        );
        Ok(Some(tensor(ds, ys)?))
    }
}

struct Softmax {
    level: Level,
}

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let _span = operation("softmax", 0);
        let len = layout.shape().dim(D::Minus1)?;
        let ys = rows::map(
            self.level,
            slice(storage, layout)?,
            len,
            #[inline(always)]
            |_, ys, xs| {
                ys.copy_from_slice(xs);
                for row in ys.chunks_exact_mut(len) {
                    let sum = lanes::exp_row(row);
                    for y in row {
                        *y /= sum;
                    }
                }
            },
        );
        Ok((CpuStorage::F32(ys), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, ys: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let _span = operation("softmax backward", 0);
        let grad = grad.contiguous()?;
        let len = ys.dim(D::Minus1)?;
        let ds = rows::map2(
            self.level,
            (&values(ys)?, &values(&grad)?),
            len,
            #[inline(always)]
            |_, ds, ys, grad| {
                let inputs = ys.chunks_exact(len).zip(grad.chunks_exact(len));
                for (ds, (ys, grad)) in ds.chunks_exact_mut(len).zip(inputs) {
                    let mean = lanes::dot(ys, grad);
                    for ((d, y), g) in ds.iter_mut().zip(ys).zip(grad) {
                        *d = y * (g - mean);
                    }
                }
            },
        );
        Ok(Some(tensor(ds, ys)?))
    }
}
