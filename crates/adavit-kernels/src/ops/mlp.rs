//! The MLP of a block as one operation: y = gelu(x W1^T + b1) W2^T + b2.
//!
//! The forward saves the hidden values before the GELU; the backward frees them as soon as it has used
//! them. With h = x W1^T + b1, a = gelu(h): dW2 = dy^T a, dh = (dy W2) gelu'(h),
//! dW1 = dh^T x, dx = dh W1.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use crate::args::MlpMaps;
use crate::cpu::affine::{affine_product, gelu_product, plain_product};
use crate::cpu::gelu::{gelu_and_derivative, gelu_values};
use crate::cpu::packed::{Packed, product};
use crate::cpu::rows;
use crate::cpu::simd::Level;
use crate::cpu::transposed::{Rowed, transposed_product};
use crate::ops::fused::{self, slice, tensor, values};
use crate::ops::saved::Saved;
use crate::ops::tap::{TapGradients, tap};
use crate::trace::operation;
use crate::{composed, shape};

/// Returns `gelu(xs fc1^T + b1) fc2^T + b2`, with the exact GELU.
///
/// # Shapes
/// `xs`: `(.., C)`, `fc1`: `(R, C)` and `(R,)`, `fc2`: `(O, R)` and `(O,)` -> `(.., O)`.
pub fn mlp(xs: &Tensor, maps: &MlpMaps) -> Result<Tensor> {
    mlp_at(Level::current(), xs, maps)
}

pub(crate) fn mlp_at(level: Level, xs: &Tensor, maps: &MlpMaps) -> Result<Tensor> {
    let MlpMaps {
        fc1_weight,
        fc1_bias,
        fc2_weight,
        fc2_bias,
    } = maps;
    shape::affine_map(xs, fc1_weight, Some(fc1_bias))?;
    let (hidden, n_out) = (fc1_bias.dims1()?, fc2_weight.dim(0)?);
    shape::expect("mlp fc2 weight", fc2_weight, &[n_out, hidden])?;
    shape::expect("mlp fc2 bias", fc2_bias, &[n_out])?;
    let operands = [xs, fc1_weight, fc1_bias, fc2_weight, fc2_bias];
    let empty = operands.iter().any(|xs| xs.elem_count() == 0);
    if !fused::applies(&operands) || empty {
        let hidden = composed::linear(xs, fc1_weight, Some(fc1_bias))?;
        return composed::linear(&composed::gelu(&hidden)?, fc2_weight, Some(fc2_bias));
    }
    let layers = [
        fc1_weight.contiguous()?,
        fc1_bias.contiguous()?,
        fc2_weight.contiguous()?,
        fc2_bias.contiguous()?,
    ];
    let gradients = TapGradients::default();
    let bundle = tap(&layers.each_ref(), &gradients)?;
    let tracked = operands.iter().any(|xs| xs.track_op());
    let op = Mlp {
        level,
        layers: layers.map(|tensor| tensor.detach()),
        hidden: Saved::new(tracked),
        gradients,
    };
    xs.contiguous()?.apply_op2(&bundle, op)
}

struct Mlp {
    level: Level,
    /// Weight and bias of the first layer, then of the second.
    layers: [Tensor; 4],
    /// h.
    hidden: Saved<Vec<f32>>,
    gradients: TapGradients,
}

impl Mlp {
    /// Returns x W1^T + b1.
    fn hidden(&self, xs: &[f32]) -> Result<Vec<f32>> {
        let [weight, bias, ..] = &self.layers;
        let weight = Packed::transposed(&values(weight)?, weight.dim(1)?);
        Ok(affine_product(self.level, xs, &weight, &values(bias)?))
    }

    /// Returns gelu(x W1^T + b1), without keeping what is before the GELU.
    fn activations(&self, xs: &[f32]) -> Result<Vec<f32>> {
        let [weight, bias, ..] = &self.layers;
        let weight = Packed::transposed(&values(weight)?, weight.dim(1)?);
        Ok(gelu_product(self.level, xs, &weight, &values(bias)?))
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
        let ys = affine_product(self.level, &activations, &weight, &values(bias)?);
        Ok((CpuStorage::F32(ys), fused::output_shape(layout, n_out)))
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
        let dy = Rowed {
            values: &grad,
            width: n_out,
        };
        let hidden = Rowed {
            values: &activations,
            width: hidden_size,
        };
        let dw2 = transposed_product(self.level, dy, hidden);
        // The activations are no longer needed: dh takes their memory.
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
        let rows_of_dh = Rowed {
            values: &dh,
            width: hidden_size,
        };
        let inputs = Rowed {
            values: &inputs,
            width: n_in,
        };
        let dw1 = transposed_product(self.level, rows_of_dh, inputs);
        self.gradients.store(vec![
            Some(tensor(dw1, fc1)?),
            Some(tensor(rows::column_sums(self.level, &dh, hidden_size), b1)?),
            Some(tensor(dw2, fc2)?),
            Some(tensor(rows::column_sums(self.level, &grad, n_out), b2)?),
        ]);
        let dx = if xs.track_op() {
            let weight = Packed::rows(&values(fc1)?, n_in);
            let dx = plain_product(self.level, &dh, &weight);
            Some(tensor(dx, xs)?)
        } else {
            None
        };
        Ok((dx, Some(bundle.zeros_like()?)))
    }
}
