//! What binary and categorical gates have in common: the range of τ, the compute dtype, and ℓ + ε.

use std::ops::RangeInclusive;

use candle_core::{DType, Result, Tensor, bail};

/// Temperatures for which τ and 1/τ are normal `f32` numbers. The range leaves room for the
/// gradient, which is at most 1/(4τ) times the incoming one. Inside it nothing overflows, and an
/// infinite logit never becomes `inf * 0`.
const TAU_RANGE: RangeInclusive<f64> = 1e-30..=1e30;

/// Fails unless `tau` is a usable temperature.
pub(crate) fn check_tau(tau: f64) -> Result<()> {
    if !TAU_RANGE.contains(&tau) {
        let (min, max) = (TAU_RANGE.start(), TAU_RANGE.end());
        bail!("temperature must be in [{min:e}, {max:e}], found {tau:e}");
    }
    Ok(())
}

/// The dtype in which gates with logits of `dtype` are computed.
pub(crate) fn compute_dtype(dtype: DType) -> Result<DType> {
    match dtype {
        DType::F32 | DType::F64 => Ok(dtype),
        DType::F16 | DType::BF16 => Ok(DType::F32),
        _ => bail!("gates need f32, f64, f16 or bf16, found {dtype:?}"),
    }
}

/// `logits + noise` in the compute dtype; no gradient reaches the noise.
pub(crate) fn perturb(logits: &Tensor, noise: &Tensor) -> Result<Tensor> {
    let dtype = compute_dtype(logits.dtype())?;
    logits
        .to_dtype(dtype)?
        .add(&noise.detach().to_dtype(dtype)?)
}
