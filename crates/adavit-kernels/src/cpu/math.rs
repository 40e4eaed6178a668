//! exp, erf, tanh, GELU and its derivative for f32. They have no branches, so that loops over them
//! vectorise, and no fused multiply-adds, so that they give the same bits at every level.
//!
//! exp: x = n ln 2 + r with |r| <= ln 2 / 2, a polynomial for e^r (Cephes, S. Moshier), and 2^n in
//! two factors, so that subnormal results round once.
//!
//! erf and tanh: near 0, x + x P(x^2), where the rounding of x dominates. Elsewhere, 1 minus a small
//! number, whose error is small relative to 1: Q(|x|)^4 for erf, 2 / (e^2|x| + 1) for tanh. So erf
//! needs no division and no exp. GELU has its own Q, of the normal distribution.
//!
//! Each P and Q is our own minimax fit, rounded to f32 and repeatable: weighted least squares in
//! f64 on 1500 Chebyshev nodes of the interval, 800 times, each weight multiplied by the error at
//! its node (Lawson 1961). The error is that of the function, relative for P and absolute for Q.
//!
//! NaN stays NaN: every clamp is a comparison that NaN fails. The bounds were measured at every
//! f32 from |x| = 1e-6 to where the function is flat; the tests repeat a part of that.

/// Adding and subtracting this rounds |x| < 2^22 to an integer, left in the low bits of the sum.
const ROUND: f32 = 12_582_912.0;

#[inline(always)]
fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// Returns `near` where the condition holds, else `far`, of which both are computed.
///
/// From a conditional, LLVM 22 made a branch around either polynomial and did not vectorise the loop of
/// GELU's derivative, which was ten times slower.
#[inline(always)]
fn select(condition: bool, near: f32, far: f32) -> f32 {
    let mask = u32::from(condition).wrapping_neg();
    f32::from_bits((near.to_bits() & mask) | (far.to_bits() & !mask))
}

/// Returns 2^n for n in -126..=127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// Returns e^x within 1 ulp, subnormal results included.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Beyond these bounds the result is 0 or infinity. Within them, two factors are enough for 2^n.
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

/// Where erf goes from one polynomial to the other.
const ERF_NEAR: f32 = 1.1;

/// Beyond this |x| erf is 1 in f32, as from 3.98 on by the polynomial.
const ERF_FLAT: f32 = 4.0;

/// Returns erf(x) within 2 ulp, -0 included.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    // (erf(x) / x - 1 on [0, 1.1], within 5e-9) as a polynomial in x^2.
    let s = x * x;
    let p = 7.188014569692314e-5;
    let p = p * s - 7.805798668414354e-4;
    let p = p * s + 5.164864007383585e-3;
    let p = p * s - 2.684144303202629e-2;
    let p = p * s + 1.128329187631607e-1;
    let p = p * s - 3.761259913444519e-1;
    let p = p * s + 1.283791661262512e-1;
    let near = x + x * p;
    // ((1 - erf(x))^(1/4) on [1.1, 3.93]; its fourth power within 2e-8) as a polynomial in x.
    let a = x.abs();
    let a = if a > ERF_FLAT { ERF_FLAT } else { a };
    let q = -1.756027777446434e-4;
    let q = q * a + 3.179939463734627e-3;
    let q = q * a - 2.18963008373976e-2;
    let q = q * a + 6.511396914720535e-2;
    let q = q * a - 4.859690368175507e-2;
    let q = q * a - 6.549306958913803e-2;
    let q = q * a - 3.075492978096008e-1;
    let q = q * a + 1.0051875114440918;
    let q = q * q;
    let far = (1.0 - q * q).copysign(x);
    select(a < ERF_NEAR, near, far)
}

/// Where tanh goes from the polynomial to e^2|x|.
const TANH_NEAR: f32 = 0.8;

/// Returns tanh(x) within 1.1 ulp, -0 included.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    // ((tanh(x) / x - 1) / x^2 on [0, 0.8], within 4e-9 of tanh) as a polynomial in x^2.
    let s = x * x;
    let p = 1.5847565373405814e-3;
    let p = p * s - 7.409558165818453e-3;
    let p = p * s + 2.130299247801304e-2;
    let p = p * s - 5.385233089327812e-2;
    let p = p * s + 1.3332220911979675e-1;
    let p = p * s - 3.3333298563957214e-1;
    // |x|, since -0 + 0 would lose the sign.
    let a = x.abs();
    let near = a + a * (s * p);
    let far = 1.0 - 2.0 / (exp(2.0 * a) + 1.0);
    select(a < TANH_NEAR, near, far).copysign(x)
}

/// Returns x times the normal distribution function of x, within 1e-6 max(1, |x|) and exactly x
/// or 0 from |x| = 5.62 on.
///
/// This is max(x, 0) - |x| Φ(-|x|): the error of the small Φ(-|x|) hardly counts, so one polynomial
/// does without a division and is quicker than [`erf`], which would be 5e-8 closer.
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    gelu_from(x, normal_tail(x.abs()))
}

/// Returns the derivative of [`gelu`], within 1e-6: the normal distribution function of x plus x
/// times its density.
#[inline(always)]
pub(crate) fn gelu_derivative(x: f32) -> f32 {
    derivative_from(x, normal_tail(x.abs()))
}

/// Returns [`gelu`] and [`gelu_derivative`], for little more than one of them.
#[inline(always)]
pub(crate) fn gelu_and_derivative(x: f32) -> (f32, f32) {
    let tail = normal_tail(x.abs());
    (gelu_from(x, tail), derivative_from(x, tail))
}

#[inline(always)]
fn gelu_from(x: f32, tail: f32) -> f32 {
    // Infinity times zero would be NaN.
    let a = x.abs();
    let a = if a > GELU_FLAT { GELU_FLAT } else { a };
    let positive = if x < 0.0 { 0.0 } else { x };
    positive - a * tail
}

#[inline(always)]
fn derivative_from(x: f32, tail: f32) -> f32 {
    const FRAC_1_SQRT_2PI: f32 = 0.3989422804014327;
    let below = select(x < 0.0, tail, 1.0 - tail);
    // Infinity times zero would be NaN; the density is 0 in f32 at 15 already.
    let near = clamp(x, -15.0, 15.0);
    below + near * (FRAC_1_SQRT_2PI * exp(-0.5 * near * near))
}

/// Just beyond the root of the polynomial of [`normal_tail`].
const GELU_FLAT: f32 = 5.62;

/// Returns Φ(-a), the share of the normal distribution beyond `a` >= 0, within 5e-8.
#[inline(always)]
fn normal_tail(a: f32) -> f32 {
    // (Φ(-a)^(1/4) on [0, 5.5]; its fourth power within 5e-8) as a polynomial in a.
    let a = if a > GELU_FLAT { GELU_FLAT } else { a };
    let q = -3.4435913676134078e-6;
    let q = q * a + 5.9011308621848e-5;
    let q = q * a - 3.106646763626486e-4;
    let q = q * a - 2.6262147002853453e-5;
    let q = q * a + 3.78219923004508e-3;
    let q = q * a + 4.6606045216321945e-3;
    let q = q * a - 5.020219087600708e-2;
    let q = q * a - 1.6773326694965363e-1;
    let q = q * a + 8.408963680267334e-1;
    let q = if q < 0.0 { 0.0 } else { q };
    let q = q * q;
    q * q
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::Level;

    /// Every 997th float, subnormals included, and every 97th where the functions bend, of both
    /// signs; and the infinities.
    fn grid() -> Vec<f32> {
        let all = (0..f32::INFINITY.to_bits()).step_by(997);
        let bend = (2_f32.powi(-4).to_bits()..128_f32.to_bits()).step_by(97);
        let edge = [f32::INFINITY, f32::MAX, f32::MIN_POSITIVE].map(f32::to_bits);
        let positive = all.chain(bend).chain(edge).map(f32::from_bits);
        positive.flat_map(|x| [x, -x]).collect()
    }

    fn at(level: Level, f: impl Fn(f32) -> f32, xs: &[f32]) -> Vec<f32> {
        let mut ys = vec![0.0; xs.len()];
        level.run(
            #[inline(always)]
            || {
                for (y, x) in ys.iter_mut().zip(xs) {
                    *y = f(*x);
                }
            },
        );
        ys
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
        let exponent = (exact.abs() as f32).max(f32::MIN_POSITIVE).to_bits() >> 23;
        (f64::from(found) - exact).abs() / (f64::from(exponent) - 150.0).exp2()
    }

    /// Fails if `error(f(x), exact(x), x)` exceeds `bound` at any level.
    fn holds(
        bound: f64,
        f: impl Fn(f32) -> f32,
        exact: impl Fn(f64) -> f64,
        error: impl Fn(f32, f64, f64) -> f64,
    ) {
        let xs = grid();
        let expected: Vec<f64> = xs.iter().map(|x| exact(f64::from(*x))).collect();
        for level in Level::available() {
            let found = at(level, &f, &xs);
            for ((x, y), expected) in xs.iter().zip(found).zip(&expected) {
                let error = error(y, *expected, f64::from(*x));
                assert!(error <= bound, "{level:?} at {x}: found {y}, error {error}");
            }
        }
    }

    #[test]
    fn exp_is_within_one_ulp_subnormals_included() {
        holds(1.0, exp, f64::exp, |y, exact, _| ulps(y, exact));
    }

    #[test]
    fn erf_is_within_two_ulp() {
        holds(2.0, erf, libm::erf, |y, exact, _| ulps(y, exact));
    }

    #[test]
    fn tanh_is_within_a_good_ulp() {
        holds(1.1, tanh, f64::tanh, |y, exact, _| ulps(y, exact));
    }

    fn below(x: f64) -> f64 {
        0.5 * libm::erfc(-x / std::f64::consts::SQRT_2)
    }

    #[test]
    fn gelu_is_within_a_millionth() {
        let exact = |x: f64| x.max(-1e3) * below(x);
        holds(1e-6, gelu, exact, |y, exact, x| {
            // Infinity is no error.
            if f64::from(y) == exact {
                0.0
            } else {
                (f64::from(y) - exact).abs() / x.abs().max(1.0)
            }
        });
    }

    #[test]
    fn the_derivative_of_gelu_is_within_a_millionth() {
        let density = |x: f64| (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
        let exact = |x: f64| below(x) + x.clamp(-1e3, 1e3) * density(x);
        let error = |y: f32, exact: f64, _: f64| (f64::from(y) - exact).abs();
        holds(1e-6, gelu_derivative, exact, error);
    }

    /// The results of exp, erf, tanh, GELU and its derivative, each inlined into its loop.
    fn all_at(level: Level, xs: &[f32]) -> [Vec<f32>; 5] {
        [
            at(level, exp, xs),
            at(level, erf, xs),
            at(level, tanh, xs),
            at(level, gelu, xs),
            at(level, gelu_derivative, xs),
        ]
    }

    #[test]
    fn edges_are_the_limits() {
        let (low, high) = (f32::NEG_INFINITY, f32::INFINITY);
        let xs = [low, -1e30, -0.0, 0.0, 1e30, high];
        let expected = [
            [0.0, 0.0, 1.0, 1.0, high, high],
            [-1.0, -1.0, -0.0, 0.0, 1.0, 1.0],
            [-1.0, -1.0, -0.0, 0.0, 1.0, 1.0],
            [0.0, 0.0, -0.0, 0.0, 1e30, high],
            [0.0, 0.0, 0.5, 0.5, 1.0, 1.0],
        ];
        for level in Level::available() {
            for (found, expected) in all_at(level, &xs).into_iter().zip(expected) {
                // GELU's tail is 1e-7 off at 0, and its derivative with it.
                let same = |(y, exact): (&f32, &f32)| y == exact || (y - exact).abs() <= 2e-7;
                let all = found.iter().zip(&expected).all(same);
                assert!(all, "{level:?}: expected {expected:?}, found {found:?}");
                let sign = |ys: &[f32]| ys[2].is_sign_negative();
                assert_eq!(sign(&found), sign(&expected), "{level:?}: sign of f(-0)");
            }
        }
    }

    /// Within a vector, where the others are ordinary.
    #[test]
    fn nan_stays_nan() {
        let xs: Vec<f32> = [0.1, f32::NAN, 2.0, -f32::NAN, 9.0].repeat(11);
        for level in Level::available() {
            for (i, ys) in all_at(level, &xs).iter().enumerate() {
                let same = xs.iter().zip(ys).all(|(x, y)| x.is_nan() == y.is_nan());
                assert!(same, "{level:?}, function {i}");
            }
        }
    }

    #[test]
    fn every_level_gives_the_same_bits() {
        let xs: Vec<f32> = grid().into_iter().step_by(101).collect();
        let bits = |level| {
            let ys = all_at(level, &xs).concat();
            ys.into_iter().map(f32::to_bits).collect()
        };
        let expected: Vec<u32> = bits(Level::Portable);
        for level in Level::available() {
            assert!(bits(level) == expected, "{level:?}");
        }
    }
}
