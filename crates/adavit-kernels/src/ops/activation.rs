//! The exact GELU, y = x / 2 (1 + erf(x / sqrt 2)) (Hendrycks and Gimpel 2016, arXiv 1606.08415), erf,
//! tanh, and softmax over the last dimension.

use std::f32::consts::FRAC_2_SQRT_PI;
use std::marker::PhantomData;

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};

use crate::composed;
use crate::cpu::rows::Pass;
use crate::cpu::simd::Level;
use crate::cpu::{lanes, math};
use crate::ops::fused::{self, slice, tensor, values};
use crate::trace::operation;

/// Returns the exact (erf) GELU, elementwise.
pub fn gelu(xs: &Tensor) -> Result<Tensor> {
    gelu_at(Level::current(), xs)
}

pub(crate) fn gelu_at(level: Level, xs: &Tensor) -> Result<Tensor> {
    if fused::applies(&[xs]) {
        return xs.contiguous()?.apply_op1(Elementwise::<Gelu>::new(level));
    }
    composed::gelu(xs)
}

/// Returns the error function, elementwise.
pub fn erf(xs: &Tensor) -> Result<Tensor> {
    erf_at(Level::current(), xs)
}

pub(crate) fn erf_at(level: Level, xs: &Tensor) -> Result<Tensor> {
    if fused::applies(&[xs]) {
        return xs.contiguous()?.apply_op1(Elementwise::<Erf>::new(level));
    }
    composed::erf(xs)
}

/// Returns the hyperbolic tangent, elementwise.
pub fn tanh(xs: &Tensor) -> Result<Tensor> {
    tanh_at(Level::current(), xs)
}

pub(crate) fn tanh_at(level: Level, xs: &Tensor) -> Result<Tensor> {
    if fused::applies(&[xs]) {
        return xs.contiguous()?.apply_op1(Elementwise::<Tanh>::new(level));
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

/// A function of one number, and its derivative.
trait Function {
    const NAME: &'static str;
    const BACKWARD: &'static str;

    fn value(x: f32) -> f32;

    /// Returns the derivative at x, where the value is y.
    fn derivative(x: f32, y: f32) -> f32;
}

struct Gelu;

impl Function for Gelu {
    const NAME: &'static str = "gelu";
    const BACKWARD: &'static str = "gelu backward";

    #[inline(always)]
    fn value(x: f32) -> f32 {
        math::gelu(x)
    }

    #[inline(always)]
    fn derivative(x: f32, _: f32) -> f32 {
        math::gelu_derivative(x)
    }
}

struct Erf;

impl Function for Erf {
    const NAME: &'static str = "erf";
    const BACKWARD: &'static str = "erf backward";

    #[inline(always)]
    fn value(x: f32) -> f32 {
        math::erf(x)
    }

    #[inline(always)]
    fn derivative(x: f32, _: f32) -> f32 {
        FRAC_2_SQRT_PI * math::exp(-x * x)
    }
}

struct Tanh;

impl Function for Tanh {
    const NAME: &'static str = "tanh";
    const BACKWARD: &'static str = "tanh backward";

    #[inline(always)]
    fn value(x: f32) -> f32 {
        math::tanh(x)
    }

    #[inline(always)]
    fn derivative(_: f32, y: f32) -> f32 {
        1.0 - y * y
    }
}

/// A function applied to every element.
struct Elementwise<F> {
    level: Level,
    function: PhantomData<F>,
}

impl<F: Function> Elementwise<F> {
    fn new(level: Level) -> Self {
        Self {
            level,
            function: PhantomData,
        }
    }
}

impl<F: Function + Send + Sync> CustomOp1 for Elementwise<F> {
    fn name(&self) -> &'static str {
        F::NAME
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let _span = operation(F::NAME, 0);
        let ys = Pass::elementwise(self.level).map(
            slice(storage, layout)?,
            #[inline(always)]
            |_, ys, xs| {
                for (y, x) in ys.iter_mut().zip(xs) {
                    *y = F::value(*x);
                }
            },
        );
        Ok((CpuStorage::F32(ys), layout.shape().clone()))
    }

    fn bwd(&self, xs: &Tensor, ys: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let _span = operation(F::BACKWARD, 0);
        let grad = grad.contiguous()?;
        let (x_values, y_values) = (values(xs)?, values(ys)?);
        let ds = Pass::elementwise(self.level).map2(
            &x_values,
            &values(&grad)?,
            #[inline(always)]
            |first, ds, xs, grad| {
                let inputs = xs.iter().zip(&y_values[first..]).zip(grad);
                for (d, ((x, y), g)) in ds.iter_mut().zip(inputs) {
                    *d = g * F::derivative(*x, *y);
                }
            },
        );
        Ok(Some(tensor(ds, xs)?))
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
        let ys = Pass::rows(self.level, len).map(
            slice(storage, layout)?,
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
        let ds = Pass::rows(self.level, len).map2(
            &values(ys)?,
            &values(&grad)?,
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
