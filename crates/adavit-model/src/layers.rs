//! The two layers with weights that every part is made of.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

/// y = x W^T + b.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    pub(crate) fn new(n_in: usize, n_out: usize, bias: bool, vb: &VarBuilder) -> Result<Self> {
        Ok(Self {
            weight: vb.get((n_out, n_in), "weight")?,
            bias: bias.then(|| vb.get(n_out, "bias")).transpose()?,
        })
    }

    pub(crate) fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        adavit_kernels::linear(xs, &self.weight, self.bias.as_ref())
    }

    /// The exact GELU of the affine map.
    pub(crate) fn forward_gelu(&self, xs: &Tensor) -> Result<Tensor> {
        match &self.bias {
            Some(bias) => adavit_kernels::linear_gelu(xs, &self.weight, bias),
            None => adavit_kernels::gelu(&self.forward(xs)?),
        }
    }
}

/// Layer normalisation with gradients, which candle's own has not.
#[derive(Debug, Clone)]
pub(crate) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    pub(crate) fn new(dim: usize, eps: f64, vb: &VarBuilder) -> Result<Self> {
        Ok(Self {
            weight: vb.get(dim, "weight")?,
            bias: vb.get(dim, "bias")?,
            eps,
        })
    }

    pub(crate) fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        adavit_kernels::layer_norm(xs, &self.weight, &self.bias, self.eps)
    }
}
