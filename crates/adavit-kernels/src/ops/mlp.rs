//! The MLP of a block as one operation: y = gelu(x W1^T + b1) W2^T + b2.
//!
//! One copy of the hidden activations is kept for the gradient, before the GELU, and it is freed as
//! soon as that is known. With h = x W1^T + b1, a = gelu(h): dW2 = dy^T a, dh = (dy W2) gelu'(h),
//! dW1 = dh^T x, dx = dh W1.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use crate::cpu::packed::{Packed, product};
use crate::cpu::rows;
use crate::cpu::simd::Level;
use crate::cpu::transposed::transposed_product;
use crate::ops::activation::{gelu_and_derivative, gelu_values};
use crate::ops::fused::{self, slice, tensor, values};
use crate::ops::kept::Kept;
use crate::ops::linear;
use crate::ops::tap::{Gradients, tap};
use crate::trace::operation;
use crate::{composed, shape};

/// A layer of the MLP: weight `(out, in)` and bias `(out,)`.
type Layer<'a> = (&'a Tensor, &'a Tensor);

/// Returns `gelu(xs fc1^T + b1) fc2^T + b2`, with the exact GELU; each layer is (weight, bias).
///
/// # Shapes
/// `xs`: `(.., C)`, `fc1`: `(R, C)` and `(R,)`, `fc2`: `(O, R)` and `(O,)` -> `(.., O)`.
pub fn mlp(xs: &Tensor, fc1: (&Tensor, &Tensor), fc2: (&Tensor, &Tensor)) -> Result<Tensor> {
    mlp_at(Level::current(), xs, fc1, fc2)
}

pub(crate) fn mlp_at(level: Level, xs: &Tensor, fc1: Layer, fc2: Layer) -> Result<Tensor> {
    linear::check(xs, fc1.0, Some(fc1.1))?;
    let hidden = fc1.1.dims1()?;
    shape::expect("mlp fc2 weight", fc2.0, &[fc2.0.dim(0)?, hidden])?;
    shape::expect("mlp fc2 bias", fc2.1, &[fc2.0.dim(0)?])?;
    let operands = [xs, fc1.0, fc1.1, fc2.0, fc2.1];
    let empty = operands.iter().any(|xs| xs.elem_count() == 0);
    if !fused::applies(&operands) || empty {
        let hidden = composed::linear(xs, fc1.0, Some(fc1.1))?;
        return composed::linear(&composed::gelu(&hidden)?, fc2.0, Some(fc2.1));
    }
    let layers = [
        fc1.0.contiguous()?,
        fc1.1.contiguous()?,
        fc2.0.contiguous()?,
        fc2.1.contiguous()?,
    ];
    let gradients = Gradients::default();
    let bundle = tap(&layers.each_ref(), &gradients)?;
    let tracked = operands.iter().any(|xs| xs.track_op());
    let op = Mlp {
        level,
        layers: layers.map(|tensor| tensor.detach()),
        hidden: Kept::new(tracked),
        gradients,
    };
    xs.contiguous()?.apply_op2(&bundle, op)
}

struct Mlp {
    level: Level,
    /// Weight and bias of the first layer, then of the second.
    layers: [Tensor; 4],
    /// h.
    hidden: Kept<Vec<f32>>,
    gradients: Gradients,
}

impl Mlp {
    /// Returns x W1^T + b1.
    fn hidden(&self, xs: &[f32]) -> Result<Vec<f32>> {
        let [weight, bias, ..] = &self.layers;
        let weight = Packed::transposed(&values(weight)?, weight.dim(1)?);
        Ok(linear::affine_product(
            self.level,
            xs,
            &weight,
            &values(bias)?,
        ))
    }

    /// Returns gelu(x W1^T + b1), without keeping what is before the GELU.
    fn activations(&self, xs: &[f32]) -> Result<Vec<f32>> {
        let [weight, bias, ..] = &self.layers;
        let weight = Packed::transposed(&values(weight)?, weight.dim(1)?);
        Ok(linear::gelu_product(
            self.level,
            xs,
            &weight,
            &values(bias)?,
        ))
    }

    fn macs(&self, elements: usize) -> Result<usize> {
        let [fc1, _, fc2, _] = &self.layers;
        let (hidden, n_in) = fc1.dims2()?;
        Ok(elements / n_in * hidden * (n_in + fc2.dim(0)?))
    }
}

impl CustomOp2 for Mlp {
    fn name(&self) -> &'static str {
        "mlp"
    }

    fn cpu_fwd(
        &self,
        xs: &CpuStorage,
        layout: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let xs = slice(xs, layout)?;
        let _span = operation("mlp", self.macs(xs.len())?);
        let activations = if self.hidden.is_wanted() {
            let hidden = self.hidden(xs)?;
            let activations = gelu_values(self.level, &hidden);
            self.hidden.put(hidden);
            activations
        } else {
            self.activations(xs)?
        };
        let [.., weight, bias] = &self.layers;
        let (n_out, n_in) = weight.dims2()?;
        let weight = Packed::transposed(&values(weight)?, n_in);
        let ys = linear::affine_product(self.level, &activations, &weight, &values(bias)?);
        Ok((CpuStorage::F32(ys), linear::output_shape(layout, n_out)))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        bundle: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let _span = operation("mlp backward", 2 * self.macs(xs.elem_count())?);
        let grad = grad.contiguous()?;
        let (inputs, grad) = (values(xs)?, values(&grad)?);
        let [fc1, b1, fc2, b2] = &self.layers;
        let (hidden_size, n_in) = fc1.dims2()?;
        let n_out = fc2.dim(0)?;
        let hidden = match self.hidden.take() {
            Some(hidden) => hidden,
            None => self.hidden(&inputs)?,
        };
        let (activations, derivatives) = gelu_and_derivative(self.level, &hidden);
        drop(hidden);
        let dw2 = transposed_product(self.level, (&grad, n_out), (&activations, hidden_size));
        // The activations are done with, and their room takes dh.
        let mut dh = activations;
        product(
            self.level,
            &grad,
            &Packed::rows(&values(fc2)?, hidden_size),
            [&mut dh],
            #[inline(always)]
            |at, [dh], sums| {
                let derivatives = &derivatives[at.row * hidden_size + at.column..];
                for ((dh, sum), d) in dh.iter_mut().zip(sums).zip(derivatives) {
                    *dh = sum * d;
                }
            },
        );
        drop(derivatives);
        let dw1 = transposed_product(self.level, (&dh, hidden_size), (&inputs, n_in));
        self.gradients.leave(vec![
            Some(tensor(dw1, fc1)?),
            Some(tensor(rows::column_sums(self.level, &dh, hidden_size), b1)?),
            Some(tensor(dw2, fc2)?),
            Some(tensor(rows::column_sums(self.level, &grad, n_out), b2)?),
        ]);
        let dx = if xs.track_op() {
            let weight = Packed::rows(&values(fc1)?, n_in);
            let dx = linear::plain_product(self.level, &dh, &weight);
            Some(tensor(dx, xs)?)
        } else {
            None
        };
        Ok((dx, Some(bundle.zeros_like()?)))
    }
}
