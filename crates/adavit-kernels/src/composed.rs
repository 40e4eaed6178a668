//! Every operation of this crate, composed of candle's differentiable operations.
//!
//! CUDA, Metal and f64 take this path, and tests and benches use it as the reference. Shapes, gates
//! and gradients are those of the operation of the same name at the crate's root. Nothing here checks
//! shapes.

use candle_core::{D, DType, Result, Tensor};

use crate::args::{AffineMap, AttentionMaps, HeadGate, Qkv, Window};

/// Returns the layer norm.
pub fn layer_norm(xs: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let centred = xs.broadcast_sub(&xs.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    centred
        .broadcast_div(&(variance + eps)?.sqrt()?)?
        .broadcast_mul(weight)?
        .broadcast_add(bias)
}

/// Returns the affine map.
pub fn linear(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (n_out, n_in) = weight.dims2()?;
    let mut dims = xs.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = n_out;
    }
    let rows = xs.contiguous()?.reshape(((), n_in))?;
    let ys = rows.matmul(&weight.t()?)?;
    let ys = match bias {
        Some(bias) => ys.broadcast_add(bias)?,
        None => ys,
    };
    ys.reshape(dims)
}

/// Returns the exact GELU.
pub fn gelu(xs: &Tensor) -> Result<Tensor> {
    let erf = (xs * std::f64::consts::FRAC_1_SQRT_2)?.erf()?;
    (xs * 0.5)? * (erf + 1.0)?
}

/// Returns the softmax over the last dimension.
pub fn softmax(xs: &Tensor) -> Result<Tensor> {
    // candle's maximum fails for an empty batch.
    if xs.elem_count() == 0 {
        return Ok(xs.clone());
    }
    candle_nn::ops::softmax(xs, D::Minus1)
}

/// Returns the tokens times their gates.
pub fn gate_tokens(xs: &Tensor, tokens: &Tensor) -> Result<Tensor> {
    xs.broadcast_mul(&tokens.unsqueeze(2)?)
}

/// Returns the groups of channels times their gates.
pub fn gate_groups(xs: &Tensor, gates: &Tensor) -> Result<Tensor> {
    let (b, n, c) = xs.dims3()?;
    let groups = gates.dim(1)?;
    xs.reshape((b, n, groups, c / groups))?
        .broadcast_mul(&gates.reshape((b, 1, groups, 1))?)?
        .reshape((b, n, c))
}

/// Returns `xs + gates * ys`.
pub fn gated_residual(xs: &Tensor, ys: &Tensor, gates: &Tensor) -> Result<Tensor> {
    let gates = match gates.rank() {
        1 => gates.reshape(((), 1, 1))?,
        _ => gates.unsqueeze(2)?,
    };
    xs + ys.broadcast_mul(&gates)?
}

/// `(B, N, C)` to `(B, H, N, D)`.
fn split_heads(xs: &Tensor, num_heads: usize) -> Result<Tensor> {
    let (b, n, c) = xs.dims3()?;
    xs.reshape((b, n, num_heads, c / num_heads))?
        .transpose(1, 2)?
        .contiguous()
}

/// 0 where a pair may attend, hugely negative where not, `(B, 1, N, N)`; no gradient.
fn pair_bias(tokens: &Tensor) -> Result<Tensor> {
    let n = tokens.dim(1)?;
    let tokens = tokens.detach();
    let pairs = tokens.unsqueeze(2)?.broadcast_mul(&tokens.unsqueeze(1)?)?;
    let own = Tensor::eye(n, tokens.dtype(), tokens.device())?.unsqueeze(0)?;
    let allowed = pairs.broadcast_maximum(&own)?.unsqueeze(1)?;
    let huge = match tokens.dtype() {
        DType::F16 => 6e4,
        _ => 1e30,
    };
    allowed.affine(huge, -huge)
}

fn attention_probabilities(
    q: &Tensor,
    k: &Tensor,
    num_heads: usize,
    tokens: Option<&Tensor>,
) -> Result<Tensor> {
    let (q, k) = (split_heads(q, num_heads)?, split_heads(k, num_heads)?);
    let scale = (q.dim(D::Minus1)? as f64).sqrt().recip();
    let scores = (q * scale)?.matmul(&k.t()?)?;
    match tokens {
        Some(tokens) => softmax(&scores.broadcast_add(&pair_bias(tokens)?)?),
        None => softmax(&scores),
    }
}

/// Returns the attended values.
pub fn attention(
    qkv: Qkv,
    num_heads: usize,
    tokens: Option<&Tensor>,
    heads: HeadGate,
) -> Result<Tensor> {
    let Qkv { q, k, v } = qkv;
    if let HeadGate::Full(gates) = heads {
        let gated = Qkv {
            q: &gate_groups(q, gates)?,
            k: &gate_groups(k, gates)?,
            v: &gate_groups(v, gates)?,
        };
        let ys = attention(gated, num_heads, tokens, HeadGate::All)?;
        return gate_groups(&ys, gates);
    }
    let (b, n, c) = q.dims3()?;
    let ys = attention_probabilities(q, k, num_heads, tokens)?
        .matmul(&split_heads(v, num_heads)?)?
        .transpose(1, 2)?
        .reshape((b, n, c))?;
    match heads {
        HeadGate::Partial(gates) => v + gate_groups(&(ys - v)?, gates)?,
        _ => Ok(ys),
    }
}

/// Returns the projected attention of the mapped inputs.
pub fn multi_head_attention(
    xs: &Tensor,
    maps: &AttentionMaps,
    num_heads: usize,
    tokens: Option<&Tensor>,
    heads: HeadGate,
) -> Result<Tensor> {
    let map = |map: AffineMap| linear(xs, map.weight, map.bias);
    let qkv = Qkv {
        q: &map(maps.query)?,
        k: &map(maps.key)?,
        v: &map(maps.value)?,
    };
    let ys = attention(qkv, num_heads, tokens, heads)?;
    linear(&ys, maps.proj.weight, maps.proj.bias)
}

/// Returns the class token's attention rows.
pub fn class_attention(
    q: &Tensor,
    k: &Tensor,
    num_heads: usize,
    tokens: Option<&Tensor>,
) -> Result<Tensor> {
    let q = split_heads(&q.narrow(1, 0, 1)?, num_heads)?;
    let k = split_heads(k, num_heads)?;
    let scale = (q.dim(D::Minus1)? as f64).sqrt().recip();
    let scores = (q * scale)?.matmul(&k.t()?)?;
    let scores = match tokens {
        Some(tokens) => scores.broadcast_add(&pair_bias(tokens)?.narrow(2, 0, 1)?)?,
        None => scores,
    };
    softmax(&scores)?.squeeze(2)
}

/// Returns the mean cross entropy.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let log_probabilities = candle_nn::ops::log_softmax(logits, D::Minus1)?;
    (targets * log_probabilities)?
        .sum(D::Minus1)?
        .mean_all()?
        .neg()
}

/// Returns the patches of each image.
pub fn patchify(xs: &Tensor, patch_size: usize) -> Result<Tensor> {
    let (b, c, h, w) = xs.dims4()?;
    let p = patch_size;
    xs.reshape((b, c, h / p, p, w / p, p))?
        .permute((0, 2, 4, 1, 3, 5))?
        .reshape((b, (h / p) * (w / p), c * p * p))
}

/// Returns the windows of each image. Rows, then columns, of the padded image are selected by index,
/// since the gradient of candle's `unfold` is wrong.
pub fn im2col(xs: &Tensor, window: Window) -> Result<Tensor> {
    let (b, c, h, w) = xs.dims4()?;
    let (rows, columns) = (window.count(h)?, window.count(w)?);
    let k = window.kernel_size;
    let select = |xs: &Tensor, count: usize, dim: usize| {
        let xs = xs.pad_with_zeros(dim, window.padding, window.padding)?;
        let at = (0..count * k).map(|i| (i / k * window.stride + i % k) as u32);
        let at = Tensor::from_iter(at, xs.device())?;
        xs.contiguous()?.index_select(&at, dim)
    };
    select(&select(xs, rows, 2)?, columns, 3)?
        .reshape((b, c, rows, k, columns, k))?
        .permute((0, 2, 4, 1, 3, 5))?
        .reshape((b, rows * columns, c * k * k))
}

/// Returns the error function.
pub fn erf(xs: &Tensor) -> Result<Tensor> {
    xs.erf()
}

/// Returns the hyperbolic tangent.
pub fn tanh(xs: &Tensor) -> Result<Tensor> {
    xs.tanh()
}
