//! Binary straight-through gates.
//!
//! ```text
//! training    y = σ((ℓ + ε) / τ),  ε ~ Logistic(0, 1)
//!             g = 1[y > t] forwards;  ∂g/∂ℓ := ∂y/∂ℓ = y (1 - y) / τ backwards
//! inference   g = 1[σ(ℓ) > t], without noise or temperature
//! keep rate   P(g = 1 in training) = σ(ℓ - τ ln(t / (1 - t)))
//! ```
//!
//! The keep rate depends on τ unless t = 1/2, so usage measured in training is not usage at
//! inference.
//!
//! # Shapes
//!
//! `logits`, `noise` and the gates all have the same shape, which may be any.
//! The result has the dtype of the logits. The threshold is rounded to that dtype too.
//!
//! Meng et al., AdaViT, CVPR 2022, arXiv 2111.15668; the relaxation is from Jang et al., 2017,
//! arXiv 1611.01144 and Maddison et al., 2017, arXiv 1611.00712.

use candle_core::{Result, Tensor, bail};
use candle_nn::ops::sigmoid;

use crate::perturb::{check_tau, compute_dtype, perturb};

/// Returns the relaxed gate σ((ℓ + ε) / τ), in [0, 1].
///
/// # Errors
///
/// If `tau` is outside [1e-30, 1e30], or the shapes differ.
///
/// # Example
///
/// ```
/// # use candle_core::{Device, Tensor};
/// let logits = Tensor::new(&[0f64, 3.], &Device::Cpu)?;
/// let noise = Tensor::new(&[0f64, -3.], &Device::Cpu)?;
/// let gates = adavit_gumbel::soft_gate(&logits, &noise, 5.)?;
/// assert_eq!(gates.to_vec1::<f64>()?, [0.5, 0.5]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn soft_gate(logits: &Tensor, noise: &Tensor, tau: f64) -> Result<Tensor> {
    check_tau(tau)?;
    let scaled = (perturb(logits, noise)? / tau)?;
    sigmoid(&scaled)?.to_dtype(logits.dtype())
}

/// Returns gates that are exactly 0 or 1, with the gradient of [`soft_gate`].
///
/// A gate is 1 where the soft gate is above `threshold`, and NaN where the logit is.
///
/// # Errors
///
/// As [`soft_gate`], or if `threshold` is outside (0, 1).
///
/// # Example
///
/// ```
/// # use candle_core::{Device, Tensor};
/// let logits = Tensor::new(&[-1f32, 1.], &Device::Cpu)?;
/// let gates = adavit_gumbel::hard_gate(&logits, &logits.zeros_like()?, 5., 0.5)?;
/// assert_eq!(gates.to_vec1::<f32>()?, [0., 1.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn hard_gate(logits: &Tensor, noise: &Tensor, tau: f64, threshold: f64) -> Result<Tensor> {
    check_threshold(threshold)?;
    let soft = soft_gate(logits, noise, tau)?;
    let value = soft.detach();
    let hard = value.gt(threshold)?.to_dtype(value.dtype())?;
    straight_through(&hard, &soft)
}

/// Returns the gates of inference, without gradient: 1 where σ(ℓ) is above `threshold`, 0 elsewhere.
///
/// NaN logits stay NaN.
///
/// # Errors
///
/// If `threshold` is outside (0, 1).
///
/// # Example
///
/// ```
/// # use candle_core::{Device, Tensor};
/// let logits = Tensor::new(&[0.40f32, 0.41], &Device::Cpu)?; // σ = 0.5987 and 0.6011
/// let gates = adavit_gumbel::threshold_gate(&logits, 0.6)?;
/// assert_eq!(gates.to_vec1::<f32>()?, [0., 1.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn threshold_gate(logits: &Tensor, threshold: f64) -> Result<Tensor> {
    check_threshold(threshold)?;
    let (dtype, inner) = (logits.dtype(), compute_dtype(logits.dtype())?);
    let value = sigmoid(&logits.detach().to_dtype(inner)?)?.to_dtype(dtype)?;
    let hard = value.gt(threshold)?.to_dtype(dtype)?;
    // Adds 0, or NaN where the logit is: a comparison alone would hide it.
    hard.add(&value.sub(&value)?)
}

/// Returns whether the gate of one logit is on at inference, as [`threshold_gate`] does for tensors
/// of f32. A NaN is off.
///
/// # Example
///
/// ```
/// assert!(adavit_gumbel::is_on(0.5, 0.6));
/// assert!(!adavit_gumbel::is_on(0.4, 0.6));
/// ```
pub fn is_on(logit: f32, threshold: f64) -> bool {
    let value = 1. / (1. + (-logit).exp());
    value > threshold as f32
}

/// Returns the probability that a [`hard_gate`] with logistic noise is 1: σ(ℓ - τ ln(t / (1 - t))).
///
/// # Example
///
/// ```
/// // The logit at which inference with threshold 0.6 switches is kept 16 % of the time.
/// let p = adavit_gumbel::keep_probability(1.5f64.ln(), 5., 0.6);
/// assert!((p - 0.16495).abs() < 1e-5);
/// ```
pub fn keep_probability(logit: f64, tau: f64, threshold: f64) -> f64 {
    let cut = tau * (threshold.ln() - (-threshold).ln_1p());
    1. / (1. + (cut - logit).exp())
}

/// Returns the value of `hard` with the gradient of `soft`, which must be in [0, 1].
///
/// `soft - soft` is exactly 0, so the sum is exact; `(hard - soft) + soft` would not be.
pub(crate) fn straight_through(hard: &Tensor, soft: &Tensor) -> Result<Tensor> {
    hard.add(&soft.sub(&soft.detach())?)
}

fn check_threshold(threshold: f64) -> Result<()> {
    if !(threshold > 0. && threshold < 1.) {
        bail!("threshold must be in (0, 1), found {threshold}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};
    use proptest::prelude::*;

    use super::*;

    const EXTREMES: [f64; 7] = [f64::NEG_INFINITY, -1e30, -1., 0., 1., 1e30, f64::INFINITY];
    const TAUS: [f64; 6] = [1e-30, 1e-6, 0.5, 5., 1e6, 1e30];

    fn noiseless(dtype: DType, values: &[f64]) -> Result<(Tensor, Tensor)> {
        let logits = Tensor::new(values, &Device::Cpu)?.to_dtype(dtype)?;
        let noise = logits.zeros_like()?;
        Ok((logits, noise))
    }

    fn values(xs: &Tensor) -> Result<Vec<f64>> {
        xs.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
    }

    #[test]
    fn extreme_logits_and_temperatures_give_numbers_forwards_and_backwards() -> Result<()> {
        for dtype in [DType::F32, DType::F64] {
            let (logits, noise) = noiseless(dtype, &EXTREMES)?;
            let logits = Var::from_tensor(&logits)?;
            for tau in TAUS {
                let soft = soft_gate(&logits, &noise, tau)?;
                let hard = hard_gate(&logits, &noise, tau, 0.4)?;
                assert!(values(&soft)?.iter().all(|y| (0. ..=1.).contains(y)));
                assert!(values(&hard)?.iter().all(|&g| g == 0. || g == 1.));
                for gates in [soft, hard] {
                    let grads = gates.sum_all()?.backward()?;
                    let grad = values(grads.get(&logits).unwrap())?;
                    assert!(grad.iter().all(|g| g.is_finite()), "tau {tau}: {grad:?}");
                }
            }
            let gates = values(&threshold_gate(&logits, 0.6)?)?;
            assert_eq!(gates, [0., 0., 0., 0., 1., 1., 1.]);
        }
        Ok(())
    }

    #[test]
    fn nan_logits_give_nan_gates_and_leave_the_others_alone() -> Result<()> {
        for dtype in [DType::F32, DType::F64, DType::BF16, DType::F16] {
            let (logits, noise) = noiseless(dtype, &[-1., f64::NAN, 1.])?;
            for gates in [
                hard_gate(&logits, &noise, 1., 0.5)?,
                threshold_gate(&logits, 0.5)?,
            ] {
                let gates = values(&gates)?;
                assert!(gates[1].is_nan());
                assert_eq!((gates[0], gates[2]), (0., 1.));
            }
        }
        Ok(())
    }

    #[test]
    fn every_float_dtype_comes_back_as_itself_and_keeps_its_gradient() -> Result<()> {
        for dtype in [DType::F32, DType::F64, DType::BF16, DType::F16] {
            let (logits, _) = noiseless(dtype, &[-2., 0.25, 2.])?;
            let noise = Tensor::new(&[0.5f32, 0.25, -0.5], &Device::Cpu)?;
            let logits = Var::from_tensor(&logits)?;
            let soft = soft_gate(&logits, &noise, 2.)?;
            let hard = hard_gate(&logits, &noise, 2., 0.5)?;
            assert_eq!((soft.dtype(), hard.dtype()), (dtype, dtype));
            assert_eq!(threshold_gate(&logits, 0.5)?.dtype(), dtype);
            assert_eq!(values(&hard)?, [0., 1., 1.]);

            let grads = hard.sum_all()?.backward()?;
            let grad = grads.get(&logits).unwrap();
            assert_eq!(grad.dtype(), dtype);
            // y(1-y)/τ at (ℓ+ε)/τ = -0.75, 0.25, 0.75; bf16 has 8 bits, hence 2^-8.
            for (g, want) in values(grad)?.iter().zip([0.108_947, 0.123_067, 0.108_947]) {
                assert!((g / want - 1.).abs() < 4e-3, "{dtype:?}: {g} for {want}");
            }
        }
        Ok(())
    }

    #[test]
    fn integer_logits_are_refused() -> Result<()> {
        let logits = Tensor::new(&[1u32, 0], &Device::Cpu)?;
        let message = threshold_gate(&logits, 0.5).unwrap_err().to_string();
        assert!(message.contains("found U32"), "{message}");
        assert!(soft_gate(&logits, &logits, 1.).is_err());
        Ok(())
    }

    #[test]
    fn thresholds_and_temperatures_out_of_range_are_refused() -> Result<()> {
        let (logits, noise) = noiseless(DType::F32, &[0.])?;
        for tau in [0., -1., 1e-31, 1e31, f64::INFINITY, f64::NAN] {
            let message = soft_gate(&logits, &noise, tau).unwrap_err().to_string();
            assert!(message.contains("temperature must be in"), "{message}");
        }
        for threshold in [0., 1., -0.1, f64::NAN] {
            assert!(hard_gate(&logits, &noise, 1., threshold).is_err());
            let message = threshold_gate(&logits, threshold).unwrap_err().to_string();
            assert!(message.contains("threshold must be in (0, 1)"), "{message}");
        }
        Ok(())
    }

    #[test]
    fn noise_of_another_shape_is_refused() -> Result<()> {
        let (logits, _) = noiseless(DType::F32, &[0., 1.])?;
        let (_, noise) = noiseless(DType::F32, &[0.])?;
        assert!(soft_gate(&logits, &noise, 1.).is_err());
        Ok(())
    }

    #[test]
    fn an_empty_batch_gives_empty_gates() -> Result<()> {
        let logits = Var::zeros((0, 3), DType::F32, &Device::Cpu)?;
        let noise = logits.zeros_like()?;
        assert_eq!(hard_gate(&logits, &noise, 5., 0.5)?.dims(), [0, 3]);
        assert_eq!(threshold_gate(&logits, 0.5)?.dims(), [0, 3]);
        Ok(())
    }

    #[test]
    fn threshold_gates_carry_no_gradient() -> Result<()> {
        let logits = Var::new(&[-1f32, 1.], &Device::Cpu)?;
        let grads = threshold_gate(&logits, 0.5)?.sum_all()?.backward()?;
        assert!(grads.get(&logits).is_none());
        Ok(())
    }

    #[test]
    fn noise_gets_no_gradient() -> Result<()> {
        let logits = Var::new(&[-1f32, 1.], &Device::Cpu)?;
        let noise = Var::new(&[0.5f32, 0.5], &Device::Cpu)?;
        let gates = hard_gate(&logits, &noise, 5., 0.5)?;
        let grads = gates.sum_all()?.backward()?;
        assert!(grads.get(&logits).is_some());
        assert!(grads.get(&noise).is_none());
        Ok(())
    }

    #[test]
    fn keep_probability_is_a_number_at_the_extremes() {
        assert_eq!(keep_probability(f64::INFINITY, 5., 0.6), 1.);
        assert_eq!(keep_probability(f64::NEG_INFINITY, 5., 0.6), 0.);
        assert_eq!(keep_probability(-1e30, 1e-6, 0.4), 0.);
        assert_eq!(keep_probability(0., 7., 0.5), 0.5);
    }

    proptest! {
        #[test]
        fn hard_gates_are_exactly_the_soft_gate_above_the_threshold(
            logit in -50f32..50., noise in -40f32..40., tau in 0.01f64..20., threshold in 0.001f64..0.999,
        ) {
            let logits = Tensor::new(&[logit], &Device::Cpu)?;
            let noise = Tensor::new(&[noise], &Device::Cpu)?;
            for dtype in [DType::F32, DType::F64, DType::BF16, DType::F16] {
                let logits = Var::from_tensor(&logits.to_dtype(dtype)?)?;
                let hard = hard_gate(&logits, &noise, tau, threshold)?;
                let soft = soft_gate(&logits, &noise, tau)?;
                let above = soft.gt(threshold)?.to_dtype(DType::F64)?;
                prop_assert_eq!(values(&hard)?, above.to_vec1::<f64>()?);
            }
        }

        #[test]
        fn without_noise_at_temperature_one_training_and_inference_agree(
            logit in -20f32..20., threshold in 0.001f64..0.999,
        ) {
            for dtype in [DType::F32, DType::F64, DType::BF16, DType::F16] {
                let (logits, noise) = noiseless(dtype, &[f64::from(logit)])?;
                let hard = hard_gate(&logits, &noise, 1., threshold)?;
                prop_assert_eq!(values(&hard)?, values(&threshold_gate(&logits, threshold)?)?);
            }
        }
    }
}
