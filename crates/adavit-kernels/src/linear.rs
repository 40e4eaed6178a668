//! Affine maps of the last dimension: y = x W^T + b, weight stored `(out, in)` as PyTorch does, and
//! the same followed by an exact GELU.
//!
//! Gradients: dx = dy W, dW = dy^T x, db = column sums of dy. The products choose their vector
//! instructions themselves; a level only applies to the rest.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp2, CustomOp3, D, Layout, Result, Shape, Tensor};

use crate::activation::{gelu_grad, gelu_into};
use crate::fused::{self, slice, tensor, values};
use crate::product::{Matrix, product};
use crate::simd::Level;
use crate::{composed, rows, shape};

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
    check(xs, weight, bias)?;
    let operands: Vec<&Tensor> = [xs, weight].into_iter().chain(bias).collect();
    if !fused::applies(&operands) || weight.elem_count() == 0 {
        return composed::linear(xs, weight, bias);
    }
    let (xs, weight) = (xs.contiguous()?, weight.contiguous()?);
    let op = Linear {
        level,
        gelu: false,
        inner: None,
    };
    match bias {
        Some(bias) => xs.apply_op3(&weight, &bias.contiguous()?, op),
        None => xs.apply_op2(&weight, op),
    }
}

/// Returns the exact GELU of `xs weight^T + bias`.
///
/// Where a gradient will be wanted the values before the GELU are kept for it.
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
    check(xs, weight, Some(bias))?;
    if !fused::applies(&[xs, weight, bias]) || weight.elem_count() == 0 {
        return composed::gelu(&composed::linear(xs, weight, Some(bias))?);
    }
    let tracked = [xs, weight, bias].iter().any(|operand| operand.track_op());
    let op = Linear {
        level,
        gelu: true,
        inner: tracked.then(OnceLock::new),
    };
    xs.contiguous()?
        .apply_op3(&weight.contiguous()?, &bias.contiguous()?, op)
}

fn check(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<()> {
    let (n_out, _) = weight.dims2()?;
    shape::expect("linear weight", weight, &[n_out, xs.dim(D::Minus1)?])?;
    match bias {
        Some(bias) => shape::expect("linear bias", bias, &[n_out]),
        None => Ok(()),
    }
}

struct Linear {
    level: Level,
    gelu: bool,
    /// The values before the GELU, filled by the forward pass.
    inner: Option<OnceLock<Vec<f32>>>,
}

/// Returns `xs weight`, by all threads.
fn multiply(xs: &[f32], weight: Matrix) -> Vec<f32> {
    let (n_in, n_out) = weight.size();
    let mut ys = vec![0.0; xs.len() / n_in * n_out];
    let xs = Matrix::new(xs, n_in);
    product(&mut ys, xs, weight);
    ys
}

impl Linear {
    fn forward(&self, xs: &[f32], weight: &[f32], bias: Option<&[f32]>, n_in: usize) -> Vec<f32> {
        // The bias comes after the product, so that all threads touch fresh memory first.
        let mut inner = multiply(xs, Matrix::new(weight, n_in).t());
        if let Some(bias) = bias {
            rows::for_each_row(
                self.level,
                &mut inner,
                bias.len(),
                #[inline(always)]
                |row| rows::add_to(row, bias),
            );
        }
        if !self.gelu {
            return inner;
        }
        let ys = rows::map(
            self.level,
            &inner,
            1,
            #[inline(always)]
            |_, ys, xs| gelu_into(ys, xs),
        );
        if let Some(kept) = &self.inner {
            // A second forward of the same operation has the same values.
            let _ = kept.set(inner);
        }
        ys
    }

    fn backward(
        &self,
        (xs, weight): (&Tensor, &Tensor),
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Vec<f32>)> {
        let (n_out, n_in) = weight.dims2()?;
        let grad = grad.contiguous()?;
        let outer = values(&grad)?;
        let inner = self.inner.as_ref().and_then(OnceLock::get);
        let inner = inner.map(|inner| gelu_grad(self.level, inner, &outer));
        let grad: &[f32] = inner.as_deref().unwrap_or(&outer);
        let (x_values, w_values) = (values(xs)?, values(weight)?);
        let dx = xs.track_op().then(|| {
            let weight = Matrix::new(&w_values, n_in);
            tensor(multiply(grad, weight), xs)
        });
        let dw = weight.track_op().then(|| {
            let transposed = Matrix::new(grad, n_out).t();
            let xs = Matrix::new(&x_values, n_in);
            let mut dw = vec![0.0; n_out * n_in];
            product(&mut dw, transposed, xs);
            tensor(dw, weight)
        });
        Ok((
            dx.transpose()?,
            dw.transpose()?,
            rows::column_sums(self.level, grad, n_out),
        ))
    }
}

/// Returns the shape `(.., O)` of the output for inputs `(.., I)`.
fn output_shape(layout: &Layout, n_out: usize) -> Shape {
    let mut dims = layout.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = n_out;
    }
    Shape::from(dims)
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
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
        Ok((CpuStorage::F32(ys), output_shape(layout, n_out)))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dw, _) = self.backward((xs, weight), grad)?;
        Ok((dx, dw))
    }
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        if self.gelu {
            "linear_gelu"
        } else {
            "linear_bias"
        }
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
        Ok((CpuStorage::F32(ys), output_shape(layout, n_out)))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dx, dw, db) = self.backward((xs, weight), grad)?;
        Ok((dx, dw, Some(tensor(db, bias)?)))
    }
}
