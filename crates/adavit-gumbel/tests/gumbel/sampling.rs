//! How often noise and gates together choose what.

use adavit_gumbel::{Noise, SeededNoise, Site, gumbel_softmax_hard, hard_gate, keep_probability};
use candle_core::{DType, Result, Tensor};

use crate::CPU;

const N: usize = 20_000;

/// Fails unless `count` of `N` is within 4.5 binomial standard deviations of `p`.
///
/// A right implementation fails a check with probability 7e-6, and any of the 48 here with
/// 3e-4; a rate that is off by 0.032, twice the widest bound, practically always fails.
/// Seeds are fixed, so a test passes or fails for good.
fn assert_rate(count: f64, p: f64, what: &str) {
    let n = N as f64;
    let sigma = (n * p * (1. - p)).sqrt();
    assert!(
        (count - n * p).abs() < 4.5 * sigma,
        "{what}: {} for {p}",
        count / n
    );
}

#[test]
fn hard_gates_keep_at_the_rate_of_keep_probability() -> Result<()> {
    let logits = [-2., -0.5, 0., 1.5f64.ln(), 1., 3.];
    let samples: Vec<u64> = (0..logits.len() as u64).collect();
    let shape = [logits.len(), N];
    let xs = Tensor::new(&logits, &CPU)?
        .unsqueeze(1)?
        .broadcast_as(&shape)?;
    let mut noise = SeededNoise::new(11, 0, &samples);
    let mut axis = 0;
    for threshold in [0.5, 0.6] {
        for tau in [0.5, 1., 5.] {
            let eps = noise.logistic(Site::new(0, axis), &shape, DType::F64, &CPU)?;
            axis += 1;
            let kept = hard_gate(&xs, &eps, tau, threshold)?
                .sum(1)?
                .to_vec1::<f64>()?;
            for (&logit, count) in logits.iter().zip(kept) {
                let p = keep_probability(logit, tau, threshold);
                assert_rate(
                    count,
                    p,
                    &format!("logit {logit}, tau {tau}, threshold {threshold}"),
                );
            }
        }
    }
    Ok(())
}

#[test]
fn hard_categories_are_chosen_at_the_rate_of_the_softmax_at_any_temperature() -> Result<()> {
    let p = [0.1, 0.2, 0.65, 0.05f64];
    let shape = [1, N, p.len()];
    let logits = Tensor::new(&p.map(f64::ln), &CPU)?.broadcast_as(&shape)?;
    let mut noise = SeededNoise::new(12, 0, &[0]);
    for (axis, tau) in [0.5, 1., 5.].into_iter().enumerate() {
        let eps = noise.gumbel(Site::new(0, axis as u32), &shape, DType::F64, &CPU)?;
        let gates = gumbel_softmax_hard(&logits, &eps, tau)?;
        let counts = gates.sum((0, 1))?.to_vec1::<f64>()?;
        for (k, (&p, count)) in p.iter().zip(counts).enumerate() {
            assert_rate(count, p, &format!("class {k}, tau {tau}"));
        }
    }
    Ok(())
}
