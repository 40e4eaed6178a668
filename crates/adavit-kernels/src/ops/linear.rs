//! Affine maps of the last dimension: y = x W^T + b, weight stored `(out, in)` as in PyTorch. An exact
//! GELU may come before or after the map.
//!
//! Gradients: dx = dy W, dW = dy^T x, db = column sums of dy. x W^T and dy W run on packed weights,
//! with bias and GELU on each tile while it is in cache.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

use crate::cpu::affine::{affine_product, gelu_product, plain_product};
use crate::cpu::gelu::{gelu_and_derivative, gelu_grad, gelu_values};
use crate::cpu::packed::{Packed, product};
use crate::cpu::rows;
use crate::cpu::simd::Level;
use crate::cpu::transposed::{Rowed, transposed_product};
use crate::ops::fused::{self, slice, tensor, values};
use crate::trace::operation;
use crate::{composed, shape};

/// Returns `xs weight^T + bias`.
///
/// # Shapes
/// `xs`: `(.., I)`, `weight`: `(O, I)`, `bias`: `(O,)` -> `(.., O)`.
pub fn linear(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    linear_at(Level::current(), xs, weight, bias)
}

pub(crate) fn linear_at(
    level: Level,
    xs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    shape::affine_map(xs, weight, bias)?;
    let operands: Vec<&Tensor> = [xs, weight].into_iter().chain(bias).collect();
    if !fused::applies(&operands) || weight.elem_count() == 0 {
        return composed::linear(xs, weight, bias);
    }
    let (xs, weight) = (xs.contiguous()?, weight.contiguous()?);
    let op = Linear {
        level,
        gelu: Gelu::None,
    };
    match bias {
        Some(bias) => xs.apply_op3(&weight, &bias.contiguous()?, op),
        None => xs.apply_op2(&weight, op),
    }
}

/// Returns the exact GELU of `xs weight^T + bias`.
///
/// Where an operand is tracked, the values before the GELU are kept for the gradient.
///
/// # Shapes
/// `xs`: `(.., I)`, `weight`: `(O, I)`, `bias`: `(O,)` -> `(.., O)`.
pub fn linear_gelu(xs: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    linear_gelu_at(Level::current(), xs, weight, bias)
}

pub(crate) fn linear_gelu_at(
    level: Level,
    xs: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
) -> Result<Tensor> {
    shape::affine_map(xs, weight, Some(bias))?;
    if !fused::applies(&[xs, weight, bias]) || weight.elem_count() == 0 {
        return composed::gelu(&composed::linear(xs, weight, Some(bias))?);
    }
    let gelu = if [xs, weight, bias].iter().any(|xs| xs.track_op()) {
        Gelu::AfterKept(OnceLock::new())
    } else {
        Gelu::After
    };
    let op = Linear { level, gelu };
    xs.contiguous()?
        .apply_op3(&weight.contiguous()?, &bias.contiguous()?, op)
}

/// Returns `gelu(xs) weight^T + bias`, with the exact GELU.
///
/// The gradient computes the GELU again: only `xs` is kept.
///
/// # Shapes
/// `xs`: `(.., I)`, `weight`: `(O, I)`, `bias`: `(O,)` -> `(.., O)`.
pub fn gelu_linear(xs: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    gelu_linear_at(Level::current(), xs, weight, bias)
}

pub(crate) fn gelu_linear_at(
    level: Level,
    xs: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
) -> Result<Tensor> {
    shape::affine_map(xs, weight, Some(bias))?;
    if !fused::applies(&[xs, weight, bias]) || weight.elem_count() == 0 {
        return composed::linear(&composed::gelu(xs)?, weight, Some(bias));
    }
    let op = Linear {
        level,
        gelu: Gelu::Before,
    };
    xs.contiguous()?
        .apply_op3(&weight.contiguous()?, &bias.contiguous()?, op)
}

/// Where an affine map has a GELU.
enum Gelu {
    None,
    After,
    /// As `After`, with the values before the GELU, filled by the forward pass.
    AfterKept(OnceLock<Vec<f32>>),
    Before,
}

struct Linear {
    level: Level,
    gelu: Gelu,
}

/// What the backward finds; `None` for an operand that is not tracked.
struct Gradients {
    xs: Option<Tensor>,
    weight: Option<Tensor>,
    bias: Vec<f32>,
}

impl Linear {
    fn forward(&self, xs: &[f32], weight: &[f32], bias: Option<&[f32]>, n_in: usize) -> Vec<f32> {
        let packed = Packed::transposed(weight, n_in);
        let _span = operation(self.label(), xs.len() * packed.n());
        let zeros = bias.is_none().then(|| vec![0.0; packed.n()]);
        let bias = bias.or(zeros.as_deref()).unwrap_or_default();
        match &self.gelu {
            Gelu::None => affine_product(self.level, xs, &packed, bias),
            Gelu::Before => affine_product(self.level, &gelu_values(self.level, xs), &packed, bias),
            Gelu::After => gelu_product(self.level, xs, &packed, bias),
            Gelu::AfterKept(kept) => {
                let inner = affine_product(self.level, xs, &packed, bias);
                let ys = gelu_values(self.level, &inner);
                // A second forward of the same operation has the same values.
                let _ = kept.set(inner);
                ys
            }
        }
    }

    fn backward(&self, xs: &Tensor, weight: &Tensor, grad: &Tensor) -> Result<Gradients> {
        let (n_out, n_in) = weight.dims2()?;
        let needed = usize::from(xs.track_op()) + usize::from(weight.track_op());
        let _span = operation(self.backward_label(), xs.elem_count() * n_out * needed);
        let grad = grad.contiguous()?;
        let outer = values(&grad)?;
        let inner = match &self.gelu {
            Gelu::AfterKept(inner) => inner.get(),
            _ => None,
        };
        let inner = inner.map(|inner| gelu_grad(self.level, inner, &outer));
        let grad: &[f32] = inner.as_deref().unwrap_or(&outer);
        let (x_values, w_values) = (values(xs)?, values(weight)?);
        let before = match self.gelu {
            Gelu::Before => Some(gelu_and_derivative(self.level, &x_values)),
            _ => None,
        };
        let (activations, derivatives) = match &before {
            Some((activations, derivatives)) => (&activations[..], Some(&derivatives[..])),
            None => (&*x_values, None),
        };
        let dx = xs.track_op().then(|| {
            let weight = Packed::rows(&w_values, n_in);
            tensor(self.input_gradient(grad, &weight, derivatives), xs)
        });
        let dw = weight.track_op().then(|| {
            let dw = transposed_product(
                self.level,
                Rowed {
                    values: grad,
                    width: n_out,
                },
                Rowed {
                    values: activations,
                    width: n_in,
                },
            );
            tensor(dw, weight)
        });
        let db = rows::column_sums(self.level, grad, n_out);
        Ok(Gradients {
            xs: dx.transpose()?,
            weight: dw.transpose()?,
            bias: db,
        })
    }

    /// Returns dy W, times the derivatives of what came before, if something did.
    fn input_gradient(
        &self,
        grad: &[f32],
        weight: &Packed,
        derivatives: Option<&[f32]>,
    ) -> Vec<f32> {
        let n_in = weight.n();
        let Some(derivatives) = derivatives else {
            return plain_product(self.level, grad, weight);
        };
        let mut dx = vec![0.0; grad.len() / weight.k() * n_in];
        product(
            self.level,
            grad,
            weight,
            [&mut dx],
            #[inline(always)]
            |at, [dx], sums| {
                let derivatives = &derivatives[at.row * n_in + at.column..];
                for ((dx, sum), d) in dx.iter_mut().zip(sums).zip(derivatives) {
                    *dx = sum * d;
                }
            },
        );
        dx
    }

    fn label(&self) -> &'static str {
        match self.gelu {
            Gelu::None => "linear",
            Gelu::After | Gelu::AfterKept(_) => "linear_gelu",
            Gelu::Before => "gelu_linear",
        }
    }

    fn backward_label(&self) -> &'static str {
        match self.gelu {
            Gelu::None => "linear backward",
            Gelu::After | Gelu::AfterKept(_) => "linear_gelu backward",
            Gelu::Before => "gelu_linear backward",
        }
    }
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        self.label()
    }

    fn cpu_fwd(
        &self,
        xs: &CpuStorage,
        layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (n_out, n_in) = weight_layout.shape().dims2()?;
        let (xs, weight) = (slice(xs, layout)?, slice(weight, weight_layout)?);
        let ys = self.forward(xs, weight, None, n_in);
        Ok((CpuStorage::F32(ys), fused::output_shape(layout, n_out)))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let found = self.backward(xs, weight, grad)?;
        Ok((found.xs, found.weight))
    }
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        self.label()
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
        let (n_out, n_in) = weight_layout.shape().dims2()?;
        let (xs, weight) = (slice(xs, layout)?, slice(weight, weight_layout)?);
        let bias = slice(bias, bias_layout)?;
        let ys = self.forward(xs, weight, Some(bias), n_in);
        Ok((CpuStorage::F32(ys), fused::output_shape(layout, n_out)))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let found = self.backward(xs, weight, grad)?;
        Ok((found.xs, found.weight, Some(tensor(found.bias, bias)?)))
    }
}
