//! The layers with weights that every part is made of.

use adavit_kernels::{AffineMap, MlpMaps};
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

    pub(crate) fn map(&self) -> AffineMap<'_> {
        AffineMap {
            weight: &self.weight,
            bias: self.bias.as_ref(),
        }
    }

    pub(crate) fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        adavit_kernels::linear(xs, &self.weight, self.bias.as_ref())
    }
}

/// fc2(gelu(fc1 x)), both with bias.
#[derive(Debug, Clone)]
pub(crate) struct Mlp {
    fc1: (Tensor, Tensor),
    fc2: (Tensor, Tensor),
}

impl Mlp {
    pub(crate) fn new(dim: usize, hidden: usize, vb: &VarBuilder) -> Result<Self> {
        Self::named(dim, hidden, [&vb.pp("fc1"), &vb.pp("fc2")])
    }

    /// As [`Self::new`] with other names for fc1 and fc2.
    pub(crate) fn named(dim: usize, hidden: usize, [fc1, fc2]: [&VarBuilder; 2]) -> Result<Self> {
        let layer = |n_in: usize, n_out: usize, vb: &VarBuilder| -> Result<_> {
            Ok((vb.get((n_out, n_in), "weight")?, vb.get(n_out, "bias")?))
        };
        Ok(Self {
            fc1: layer(dim, hidden, fc1)?,
            fc2: layer(hidden, dim, fc2)?,
        })
    }

    pub(crate) fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let maps = MlpMaps {
            fc1_weight: &self.fc1.0,
            fc1_bias: &self.fc1.1,
            fc2_weight: &self.fc2.0,
            fc2_bias: &self.fc2.1,
        };
        adavit_kernels::mlp(xs, &maps)
    }

    /// Width of fc1's output.
    pub(crate) fn hidden(&self) -> Result<usize> {
        self.fc1.1.dim(0)
    }

    /// As [`Self::forward`], with the outputs of fc1 multiplied by the gates of their groups.
    pub(crate) fn forward_gated(&self, xs: &Tensor, gates: &Tensor) -> Result<Tensor> {
        let hidden = adavit_kernels::linear(xs, &self.fc1.0, Some(&self.fc1.1))?;
        let hidden = adavit_kernels::gate_groups(&hidden, gates)?;
        adavit_kernels::gelu_linear(&hidden, &self.fc2.0, &self.fc2.1)
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
