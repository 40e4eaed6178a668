//! Draws of other distributions from uniform ones, the same for every version of `rand`.
//!
//! ```text
//! normal   sqrt(-2 ln u) cos(2 pi v)                                       (Box and Muller 1958)
//! gamma    d v, d = a - 1/3, v = (1 + x / sqrt(9 d))^3, x normal           (Marsaglia and Tsang 2000)
//! beta     G_a / (G_a + G_b), both gamma
//! ```

use std::f64::consts::TAU;

use rand::RngCore;

use crate::rng::{below, unit};

/// Draws a number in [low, high).
pub(super) fn uniform(rng: &mut impl RngCore, low: f64, high: f64) -> f64 {
    low + unit(rng) * (high - low)
}

/// Draws `value` or its negative, each with probability 1/2.
pub(super) fn either_sign(rng: &mut impl RngCore, value: f64) -> f64 {
    if below(rng, 2) == 1 { -value } else { value }
}

/// Draws a whole number in `0..=most`.
pub(super) fn up_to(rng: &mut impl RngCore, most: usize) -> usize {
    below(rng, most as u64 + 1) as usize
}

/// Draws two independent numbers of mean 0 and deviation 1.
pub(super) fn normals(rng: &mut impl RngCore) -> [f64; 2] {
    // In (0, 1]: the logarithm is finite.
    let radius = (-2.0 * (1.0 - unit(rng)).ln()).sqrt();
    let angle = TAU * unit(rng);
    [radius * angle.cos(), radius * angle.sin()]
}

/// Draws a number of mean 0 and deviation 1.
pub(super) fn normal(rng: &mut impl RngCore) -> f64 {
    normals(rng)[0]
}

/// Draws a number in [0, 1] of the distribution Beta(alpha, alpha); `alpha` > 0.
pub(super) fn symmetric_beta(rng: &mut impl RngCore, alpha: f64) -> f64 {
    let (a, b) = (ln_gamma_draw(rng, alpha), ln_gamma_draw(rng, alpha));
    // In logarithms, since for a small alpha both numbers are often too small for an f64.
    1.0 / (1.0 + (b - a).exp())
}

/// Draws the logarithm of a number of the distribution Gamma(alpha, 1).
fn ln_gamma_draw(rng: &mut impl RngCore, alpha: f64) -> f64 {
    if alpha < 1.0 {
        let boost = (1.0 - unit(rng)).ln() / alpha;
        return ln_gamma_draw(rng, alpha + 1.0) + boost;
    }
    let d = alpha - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(rng);
        let v = (1.0 + c * x).powi(3);
        if v <= 0.0 {
            continue;
        }
        let u = 1.0 - unit(rng);
        if u.ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return (d * v).ln();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Stream, rng};

    const N: usize = 20_000;

    /// Mean and variance of N draws.
    fn moments(draw: impl FnMut() -> f64) -> (f64, f64) {
        let mut draw = draw;
        let draws: Vec<f64> = (0..N).map(|_| draw()).collect();
        let mean = draws.iter().sum::<f64>() / N as f64;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / N as f64;
        (mean, variance)
    }

    #[test]
    fn normal_draws_have_mean_zero_and_deviation_one() {
        let mut rng = rng(1, Stream::Augment, 0, 0);
        let (mean, variance) = moments(|| normal(&mut rng));
        // Four standard deviations: 1 / sqrt(N) of the mean, sqrt(2 / N) of the variance.
        assert!(mean.abs() < 0.029, "{mean}");
        assert!((variance - 1.0).abs() < 0.04, "{variance}");
        let [a, b] = normals(&mut rng);
        assert_ne!(a, b);
    }

    #[test]
    fn beta_draws_have_the_moments_of_the_distribution() {
        for alpha in [0.1, 0.2, 0.8, 1.0, 5.0] {
            let mut rng = rng(2, Stream::Augment, 0, 0);
            let (mean, variance) = moments(|| symmetric_beta(&mut rng, alpha));
            let expected = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            // Four standard deviations of the mean; 5 % is above four of the variance.
            let tolerance = 4.0 * (expected / N as f64).sqrt();
            assert!((mean - 0.5).abs() < tolerance, "{alpha}: {mean}");
            assert!(
                (variance / expected - 1.0).abs() < 0.05,
                "{alpha}: {variance} for {expected}"
            );
        }
    }

    #[test]
    fn beta_of_a_tiny_alpha_is_nearly_zero_or_one_but_a_number() {
        let mut rng = rng(3, Stream::Augment, 0, 0);
        for _ in 0..100 {
            let share = symmetric_beta(&mut rng, 1e-6);
            assert!((0.0..=1.0).contains(&share), "{share}");
        }
    }

    #[test]
    fn up_to_reaches_both_ends() {
        let mut rng = rng(4, Stream::Augment, 0, 0);
        let mut seen: Vec<usize> = (0..100).map(|_| up_to(&mut rng, 2)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [0, 1, 2]);
    }
}
