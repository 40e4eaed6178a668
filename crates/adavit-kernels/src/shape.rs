//! Checks of shapes, and their errors.

use candle_core::{D, Result, Tensor, bail};

use crate::args::{AffineMap, AttentionMaps};

pub(crate) fn expect(what: &str, xs: &Tensor, dims: &[usize]) -> Result<()> {
    if xs.dims() != dims {
        bail!("{what}: expected shape {dims:?}, found {:?}", xs.dims());
    }
    Ok(())
}

pub(crate) fn same(what: &str, a: &Tensor, b: &Tensor) -> Result<()> {
    expect(what, b, a.dims())
}

pub(crate) fn divides(what: &str, part: usize, whole: usize) -> Result<()> {
    if part == 0 || !whole.is_multiple_of(part) {
        bail!("{what}: expected a divisor of {whole}, found {part}");
    }
    Ok(())
}

/// Checks an affine map of the last dimension of `xs`.
pub(crate) fn affine_map(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<()> {
    let (n_out, _) = weight.dims2()?;
    expect("linear weight", weight, &[n_out, xs.dim(D::Minus1)?])?;
    match bias {
        Some(bias) => expect("linear bias", bias, &[n_out]),
        None => Ok(()),
    }
}

pub(crate) fn attention(
    q: &Tensor,
    k: &Tensor,
    num_heads: usize,
    tokens: Option<&Tensor>,
) -> Result<()> {
    let (b, n, c) = q.dims3()?;
    same("attention", q, k)?;
    divides("attention heads", num_heads, c)?;
    if let Some(tokens) = tokens {
        expect("attention token gates", tokens, &[b, n])?;
    }
    Ok(())
}

/// Checks the maps of multi-head attention of `xs`, `(B, N, I)`.
pub(crate) fn attention_maps(xs: &Tensor, maps: &AttentionMaps, num_heads: usize) -> Result<()> {
    let (c, _) = maps.query.weight.dims2()?;
    for map in [maps.query, maps.key, maps.value] {
        expect("attention map", map.weight, &[c, xs.dim(D::Minus1)?])?;
        if let Some(bias) = map.bias {
            expect("attention map bias", bias, &[c])?;
        }
    }
    let AffineMap { weight, bias } = maps.proj;
    expect("attention proj", weight, &[weight.dim(0)?, c])?;
    if let Some(bias) = bias {
        expect("attention proj bias", bias, &[weight.dim(0)?])?;
    }
    divides("attention heads", num_heads, c)
}
