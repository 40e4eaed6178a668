//! Shape checks with the words of an error.

use candle_core::{Result, Tensor, bail};

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
