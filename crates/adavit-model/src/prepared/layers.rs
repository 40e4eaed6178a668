//! The layers with weights that every part of a prepared model is made of.

use adavit_kernels::{PreparedLayerNorm, PreparedLinear};
use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use crate::config::ModelConfig;

/// A linear map with bias.
pub(super) fn linear(n_in: usize, n_out: usize, vb: &VarBuilder) -> Result<PreparedLinear> {
    let weight = vb.get((n_out, n_in), "weight")?;
    let bias = vb.get(n_out, "bias")?;
    PreparedLinear::new(&weight, Some(&bias), n_out)
}

/// A LayerNorm of the model's width.
pub(super) fn norm(config: &ModelConfig, vb: &VarBuilder) -> Result<PreparedLayerNorm> {
    let c = config.embed_dim;
    PreparedLayerNorm::new(
        &vb.get(c, "weight")?,
        &vb.get(c, "bias")?,
        config.layer_norm_eps,
    )
}

/// Query, key and value as one map, in groups of `group` outputs.
pub(super) fn qkv(config: &ModelConfig, group: usize, attn: &VarBuilder) -> Result<PreparedLinear> {
    let c = config.embed_dim;
    let names = ["query", "key", "value"];
    let weights = names.map(|name| attn.pp(name).get((c, c), "weight"));
    let weights = weights.into_iter().collect::<Result<Vec<_>>>()?;
    let bias = config.qkv_bias.then(|| {
        let biases = names.map(|name| attn.pp(name).get(c, "bias"));
        Tensor::cat(&biases.into_iter().collect::<Result<Vec<_>>>()?, 0)
    });
    PreparedLinear::new(
        &Tensor::cat(&weights, 0)?,
        bias.transpose()?.as_ref(),
        group,
    )
}
