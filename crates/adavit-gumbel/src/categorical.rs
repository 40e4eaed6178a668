//! Categorical straight-through gates, which choose one of K classes over the last dimension.
//!
//! ```text
//! z = ℓ + ε,  ε ~ Gumbel(0, 1)
//! soft   y = softmax(z / τ)
//! hard   g = onehot(argmax z) forwards, the gradient of y backwards; P(g = k) = softmax(ℓ)[k]
//! ```
//!
//! The largest z wins at every τ, and the first one among equals.
//! A class with a logit of -∞ is never chosen; one with +∞ always is.
//! If one logit of a row is NaN, the whole row is NaN.
//!
//! # Shapes
//!
//! `logits`, `noise` and the gates are all `(..., K)`, with K > 0.
//!
//! Jang et al., 2017, arXiv 1611.01144; Maddison et al., 2017, arXiv 1611.00712.

use candle_core::{D, DType, Result, Tensor, bail};

use crate::gate::straight_through;
use crate::perturb::{check_tau, compute_dtype, perturb};

/// Returns softmax((ℓ + ε) / τ) over the last dimension.
///
/// # Errors
///
/// If `tau` is outside [1e-30, 1e30], the shapes differ, or there is no class.
///
/// # Example
///
/// ```
/// # use candle_core::{Device, Tensor};
/// let logits = Tensor::new(&[[0f64, 3f64.ln()]], &Device::Cpu)?;
/// let ys = adavit_gumbel::gumbel_softmax(&logits, &logits.zeros_like()?, 1.)?;
/// assert!((ys.to_vec2::<f64>()?[0][1] - 0.75).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn gumbel_softmax(logits: &Tensor, noise: &Tensor, tau: f64) -> Result<Tensor> {
    check_tau(tau)?;
    check_classes(logits)?;
    let zs = perturb(logits, noise)?;
    if zs.elem_count() == 0 {
        return Ok(logits.clone());
    }
    softmax(&finite(&zs)?, tau)?.to_dtype(logits.dtype())
}

/// Returns exact one-hot rows, with the gradient of [`gumbel_softmax`].
///
/// # Errors
///
/// As [`gumbel_softmax`].
///
/// # Example
///
/// ```
/// # use candle_core::{Device, Tensor};
/// let logits = Tensor::new(&[[1f32, 2., 2.]], &Device::Cpu)?;
/// let gates = adavit_gumbel::gumbel_softmax_hard(&logits, &logits.zeros_like()?, 5.)?;
/// assert_eq!(gates.to_vec2::<f32>()?, [[0., 1., 0.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn gumbel_softmax_hard(logits: &Tensor, noise: &Tensor, tau: f64) -> Result<Tensor> {
    check_tau(tau)?;
    check_classes(logits)?;
    let zs = perturb(logits, noise)?;
    if zs.elem_count() == 0 {
        return Ok(logits.clone());
    }
    let zs = finite(&zs)?;
    let hard = first_max_one_hot(&zs.detach())?;
    straight_through(&hard, &softmax(&zs, tau)?)?.to_dtype(logits.dtype())
}

/// Returns the one-hot rows of inference: 1 at the first largest logit, without gradient.
///
/// # Errors
///
/// If there is no class.
///
/// # Example
///
/// ```
/// # use candle_core::{Device, Tensor};
/// let logits = Tensor::new(&[[1f32, 3., 2.], [4., 0., 4.]], &Device::Cpu)?;
/// let gates = adavit_gumbel::argmax_one_hot(&logits)?;
/// assert_eq!(gates.to_vec2::<f32>()?, [[0., 1., 0.], [1., 0., 0.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn argmax_one_hot(logits: &Tensor) -> Result<Tensor> {
    check_classes(logits)?;
    let dtype = compute_dtype(logits.dtype())?;
    let logits = logits.detach();
    if logits.elem_count() == 0 {
        return Ok(logits);
    }
    let zs = finite(&logits.to_dtype(dtype)?)?;
    // Adds 0, or NaN to a row with a NaN: a comparison alone would hide it.
    let nan_or_zero = zs.sub(&zs)?.sum_keepdim(D::Minus1)?;
    first_max_one_hot(&zs)?
        .broadcast_add(&nan_or_zero)?
        .to_dtype(logits.dtype())
}

fn check_classes(logits: &Tensor) -> Result<()> {
    if logits.dim(D::Minus1)? == 0 {
        bail!(
            "the last dimension holds the classes and must not be 0, found {:?}",
            logits.dims()
        );
    }
    Ok(())
}

/// Replaces infinities by the largest finite numbers, since `inf - inf` is not a number.
/// They get no gradient; NaN stays.
fn finite(xs: &Tensor) -> Result<Tensor> {
    let max = match xs.dtype() {
        DType::F64 => f64::MAX,
        _ => f64::from(f32::MAX),
    };
    let (lowest, highest) = ((xs.zeros_like()? - max)?, (xs.zeros_like()? + max)?);
    let xs = xs.eq(f64::NEG_INFINITY)?.where_cond(&lowest, xs)?;
    xs.eq(f64::INFINITY)?.where_cond(&highest, &xs)
}

/// softmax(z / τ). The maximum is subtracted before the division, so that nothing overflows. It
/// carries no gradient, since softmax does not depend on it.
fn softmax(zs: &Tensor, tau: f64) -> Result<Tensor> {
    let max = zs.detach().max_keepdim(D::Minus1)?;
    let exp = (zs.broadcast_sub(&max)? / tau)?.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)
}

/// One-hot of the first maximum. It takes a minimum over indices, because the argmax of candle's
/// GPU kernels does not specify which of equal elements it returns.
fn first_max_one_hot(zs: &Tensor) -> Result<Tensor> {
    let k = zs.dim(D::Minus1)? as u32;
    let index = Tensor::arange(0, k, zs.device())?
        .broadcast_as(zs.shape())?
        .contiguous()?;
    let none = Tensor::full(k, zs.shape(), zs.device())?;
    let is_max = zs.broadcast_eq(&zs.max_keepdim(D::Minus1)?)?;
    let first = is_max.where_cond(&index, &none)?.min_keepdim(D::Minus1)?;
    index.broadcast_eq(&first)?.to_dtype(zs.dtype())
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};
    use proptest::prelude::*;

    use super::*;

    const DTYPES: [DType; 4] = [DType::F32, DType::F64, DType::BF16, DType::F16];

    fn rows(xs: &Tensor) -> Result<Vec<Vec<f64>>> {
        xs.to_dtype(DType::F64)?.to_vec2()
    }

    #[test]
    fn of_tied_logits_the_first_wins_alone() -> Result<()> {
        for dtype in DTYPES {
            let logits = [[2f32, 2., 2.], [0., 1., 1.], [-1., -3., -1.]];
            let logits = Tensor::new(&logits, &Device::Cpu)?.to_dtype(dtype)?;
            let want = [[1., 0., 0.], [0., 1., 0.], [1., 0., 0.]];
            let hard = gumbel_softmax_hard(&logits, &logits.zeros_like()?, 5.)?;
            assert_eq!(
                (hard.dtype(), rows(&hard)?),
                (dtype, want.map(Vec::from).to_vec())
            );
            let one_hot = argmax_one_hot(&logits)?;
            assert_eq!(
                (one_hot.dtype(), rows(&one_hot)?),
                (dtype, want.map(Vec::from).to_vec())
            );
        }
        Ok(())
    }

    #[test]
    fn infinite_logits_mask_or_force_a_class() -> Result<()> {
        let inf = f64::INFINITY;
        let logits = Tensor::new(
            &[[0., -inf, 0.], [5., inf, -inf], [-inf, -inf, -1e30]],
            &Device::Cpu,
        )?;
        for dtype in [DType::F32, DType::F64] {
            let logits = logits.to_dtype(dtype)?;
            let soft = gumbel_softmax(&logits, &logits.zeros_like()?, 1.)?;
            let want = [[0.5, 0., 0.5], [0., 1., 0.], [0., 0., 1.]];
            assert_eq!(rows(&soft)?, want.map(Vec::from));
        }
        Ok(())
    }

    #[test]
    fn extreme_logits_and_temperatures_give_numbers_forwards_and_backwards() -> Result<()> {
        let inf = f64::INFINITY;
        let logits = Tensor::new(
            &[
                [1e30, -1e30, 0., 1.],
                [inf, -inf, 0., 1e30],
                [-inf, -inf, -inf, -inf],
                [inf, inf, inf, inf],
            ],
            &Device::Cpu,
        )?;
        for dtype in [DType::F32, DType::F64] {
            let logits = Var::from_tensor(&logits.to_dtype(dtype)?)?;
            let noise = logits.zeros_like()?;
            let weights = Tensor::new(&[1f32, -2., 3., 0.5], &Device::Cpu)?.to_dtype(dtype)?;
            for tau in [1e-30, 1e-6, 1., 1e6, 1e30] {
                let soft = gumbel_softmax(&logits, &noise, tau)?;
                let hard = gumbel_softmax_hard(&logits, &noise, tau)?;
                for row in rows(&soft)?.iter().chain(&rows(&hard)?) {
                    assert!((row.iter().sum::<f64>() - 1.).abs() < 1e-6, "{row:?}");
                }
                for gates in [soft, hard] {
                    let grads = gates.broadcast_mul(&weights)?.sum_all()?.backward()?;
                    let grad = rows(grads.get(&logits).unwrap())?;
                    assert!(
                        grad.iter().flatten().all(|g| g.is_finite()),
                        "tau {tau}: {grad:?}"
                    );
                }
            }
        }
        Ok(())
    }

    #[test]
    fn a_nan_logit_makes_its_row_nan_and_no_other() -> Result<()> {
        let nan = f32::NAN;
        let logits = Tensor::new(&[[nan, 0., 1.], [0., nan, 1.], [0., 0., 1.]], &Device::Cpu)?;
        let noise = logits.zeros_like()?;
        for gates in [
            gumbel_softmax(&logits, &noise, 1.)?,
            gumbel_softmax_hard(&logits, &noise, 1.)?,
            argmax_one_hot(&logits)?,
        ] {
            let gates = rows(&gates)?;
            assert!(gates[..2].iter().flatten().all(|g| g.is_nan()), "{gates:?}");
            assert!(gates[2].iter().all(|g| g.is_finite()), "{gates:?}");
        }
        Ok(())
    }

    #[test]
    fn an_empty_batch_is_fine_and_no_class_is_an_error() -> Result<()> {
        let empty = Tensor::zeros((0, 3), DType::F32, &Device::Cpu)?;
        assert_eq!(gumbel_softmax(&empty, &empty, 1.)?.dims(), [0, 3]);
        assert_eq!(gumbel_softmax_hard(&empty, &empty, 1.)?.dims(), [0, 3]);
        assert_eq!(argmax_one_hot(&empty)?.dims(), [0, 3]);
        let none = Tensor::zeros((3, 0), DType::F32, &Device::Cpu)?;
        assert!(gumbel_softmax(&none, &none, 1.).is_err());
        assert!(gumbel_softmax_hard(&none, &none, 1.).is_err());
        let message = argmax_one_hot(&none).unwrap_err().to_string();
        assert!(message.contains("found [3, 0]"), "{message}");
        Ok(())
    }

    #[test]
    fn the_winner_does_not_depend_on_rounding_at_a_high_temperature() -> Result<()> {
        let logits = Tensor::new(&[[0f32, 1e-3]], &Device::Cpu)?;
        let hard = gumbel_softmax_hard(&logits, &logits.zeros_like()?, 1e9)?;
        assert_eq!(hard.to_vec2::<f32>()?, [[0., 1.]]);
        Ok(())
    }

    #[test]
    fn argmax_carries_no_gradient() -> Result<()> {
        let logits = Var::new(&[[1f32, 2.]], &Device::Cpu)?;
        let grads = argmax_one_hot(&logits)?.sum_all()?.backward()?;
        assert!(grads.get(&logits).is_none());
        Ok(())
    }

    proptest! {
        #[test]
        fn hard_rows_hold_a_single_one_and_zeros(
            logits in prop::collection::vec(prop::sample::select(vec![-2f32, 0., 0.5, 3.]), 12),
            noise in prop::collection::vec(-3f32..3., 12),
            tau in 0.01f64..20.,
        ) {
            let logits = Tensor::from_vec(logits, (3, 4), &Device::Cpu)?;
            let noise = Tensor::from_vec(noise, (3, 4), &Device::Cpu)?;
            for dtype in DTYPES {
                let logits = logits.to_dtype(dtype)?;
                let sampled = gumbel_softmax_hard(&logits, &noise, tau)?;
                for row in rows(&sampled)?.iter().chain(&rows(&argmax_one_hot(&logits)?)?) {
                    prop_assert_eq!(row.iter().filter(|&&g| g == 1.).count(), 1);
                    prop_assert_eq!(row.iter().sum::<f64>(), 1.);
                    prop_assert!(row.iter().all(|&g| g == 0. || g == 1.));
                }
            }
        }
    }
}
