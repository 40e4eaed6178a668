//! exp, erf, GELU and its derivative for f32, free of branches so that loops over them vectorise.
//!
//! exp: x = n ln 2 + r with |r| <= ln 2 / 2, a polynomial for e^r (Cephes, S. Moshier), and 2^n in
//! two factors, so that subnormal results round once. erf: an odd rational function of degree 9/12
//! on |x| < 3.83, beyond which it is 1 in f32 (coefficients of Eigen, `generic_fast_erf`).
//! NaN stays NaN: every clamp is a comparison that NaN fails.

/// Adding and subtracting this rounds |x| < 2^22 to an integer, left in the low bits of the sum.
const ROUND: f32 = 12_582_912.0;

#[inline(always)]
fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// Returns 2^n for n in -126..=127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// Returns e^x within 2 ulp, subnormal results included.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Beyond these the result is 0 or infinity anyway, and n stays where two factors suffice.
    let x = clamp(x, -104.0, 89.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let whole = shifted - ROUND;
    // ln 2 in two parts; the first has 10 bits, so its product with n is exact.
    let r = x - whole * 0.693359375 - whole * -2.12194440e-4;
    let tail = 1.9875691500e-4;
    let tail = tail * r + 1.3981999507e-3;
    let tail = tail * r + 8.3334519073e-3;
    let tail = tail * r + 4.1665795894e-2;
    let tail = tail * r + 1.6666665459e-1;
    let tail = tail * r + 5.0000001201e-1;
    let y = tail * (r * r) + r + 1.0;
    let half = n >> 1;
    y * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// Returns erf(x) within 6 ulp.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let x = clamp(x, -3.832506856900711, 3.832506856900711);
    let s = x * x;
    let p = 0.00022905065861350646;
    let p = p * s + 0.0034082910107109506;
    let p = p * s + 0.050955695062380861;
    let p = p * s + 0.18520832239976145;
    let p = p * s + 1.128379143519084;
    let q = -1.1791602954361697e-7;
    let q = q * s + 0.000023547966471313185;
    let q = q * s + 0.0010179625278914885;
    let q = q * s + 0.014070470171167667;
    let q = q * s + 0.11098505178285362;
    let q = q * s + 0.49746925110067538;
    let q = q * s + 1.0;
    clamp(x * p / q, -1.0, 1.0)
}

/// Beyond this |x| the normal distribution function is 0 or 1 in f32.
const GELU_FLAT: f32 = 6.0;

/// Returns the normal distribution function of x, exactly 0 and 1 far out.
#[inline(always)]
fn normal_cdf(x: f32) -> f32 {
    let y = 0.5 + 0.5 * erf(x * std::f32::consts::FRAC_1_SQRT_2);
    let y = if x < -GELU_FLAT { 0.0 } else { y };
    if x > GELU_FLAT { 1.0 } else { y }
}

/// Returns x times the normal distribution function of x, within 1e-6 max(1, |x|).
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    // Minus infinity times zero would be NaN.
    let factor = if x < -GELU_FLAT { -GELU_FLAT } else { x };
    factor * normal_cdf(x)
}

/// Returns the derivative of [`gelu`].
#[inline(always)]
pub(crate) fn gelu_derivative(x: f32) -> f32 {
    normal_cdf(x) + density_term(x)
}

/// Returns [`gelu`] and its derivative.
#[inline(always)]
pub(crate) fn gelu_and_derivative(x: f32) -> (f32, f32) {
    let factor = if x < -GELU_FLAT { -GELU_FLAT } else { x };
    let cdf = normal_cdf(x);
    (factor * cdf, cdf + density_term(x))
}

/// Returns x times the normal density of x.
#[inline(always)]
fn density_term(x: f32) -> f32 {
    const FRAC_1_SQRT_2PI: f32 = 0.3989422804014327;
    // Infinity times zero would be NaN; the density is 0 in f32 at 15 already.
    let near = clamp(x, -15.0, 15.0);
    near * (FRAC_1_SQRT_2PI * exp(-0.5 * near * near))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Level;

    /// Every 997th float, of both signs, infinities aside.
    fn grid() -> impl Iterator<Item = f32> {
        let positive = || {
            (0..f32::INFINITY.to_bits())
                .step_by(997)
                .map(f32::from_bits)
        };
        positive().chain(positive().map(|x| -x))
    }

    /// The distance of `found` from `exact` in units of the last place of `exact`.
    fn ulps(found: f32, exact: f64) -> f64 {
        if exact.abs() >= f64::from(f32::MAX) {
            return if f64::from(found.abs()) >= f64::from(f32::MAX) {
                0.0
            } else {
                f64::INFINITY
            };
        }
        let exponent = (exact.abs() as f32).max(f32::MIN_POSITIVE).log2().floor();
        (f64::from(found) - exact).abs() / f64::from(exponent - 23.0).exp2()
    }

    fn worst(error: impl Fn(f32) -> f64) -> f64 {
        grid().map(error).fold(0.0, f64::max)
    }

    #[test]
    fn exp_is_within_two_ulp_subnormals_included() {
        let found = worst(|x| ulps(exp(x), f64::from(x).exp()));
        assert!(found <= 2.0, "{found} ulp");
    }

    #[test]
    fn erf_is_within_six_ulp() {
        let found = worst(|x| ulps(erf(x), libm::erf(f64::from(x))));
        assert!(found <= 6.0, "{found} ulp");
    }

    #[test]
    fn gelu_and_its_derivative_are_within_a_millionth() {
        let cdf = |x: f64| 0.5 * libm::erfc(-x / std::f64::consts::SQRT_2);
        let density = |x: f64| (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
        let found = worst(|x| {
            let wide = f64::from(x);
            (f64::from(gelu(x)) - wide * cdf(wide)).abs() / wide.abs().max(1.0)
        });
        assert!(found <= 1e-6, "gelu: {found}");
        let found = worst(|x| {
            let wide = f64::from(x);
            (f64::from(gelu_derivative(x)) - cdf(wide) - wide * density(wide)).abs()
        });
        assert!(found <= 1e-6, "derivative: {found}");
    }

    #[test]
    fn edges_are_the_limits() {
        let (low, high) = (f32::NEG_INFINITY, f32::INFINITY);
        assert_eq!(
            [exp(low), exp(high), exp(0.0), exp(-0.0)],
            [0.0, high, 1.0, 1.0]
        );
        assert_eq!(
            [erf(low), erf(high), erf(-1e30), erf(1e30)],
            [-1.0, 1.0, -1.0, 1.0]
        );
        assert_eq!(
            [gelu(low), gelu(high), gelu(-1e30), gelu(0.0)],
            [0.0, high, 0.0, 0.0]
        );
        assert_eq!([gelu_derivative(low), gelu_derivative(high)], [0.0, 1.0]);
        for f in [exp, erf, gelu, gelu_derivative] {
            assert!(f(f32::NAN).is_nan());
        }
    }

    #[test]
    fn every_level_gives_the_same_bits() {
        let xs: Vec<f32> = grid().step_by(101).chain([f32::INFINITY]).collect();
        let expected: Vec<f32> = xs.iter().map(|x| gelu_derivative(*x) + exp(*x)).collect();
        for level in Level::available() {
            let mut found = vec![0.0; xs.len()];
            level.run(|| {
                for (y, x) in found.iter_mut().zip(&xs) {
                    *y = gelu_derivative(*x) + exp(*x);
                }
            });
            assert!(found == expected, "{level:?}");
        }
    }
}
