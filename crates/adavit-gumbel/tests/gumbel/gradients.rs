//! Gradients of soft and hard gates against closed forms and central finite differences.

use adavit_gumbel::{
    Noise, SeededNoise, Site, gumbel_softmax, gumbel_softmax_hard, hard_gate, soft_gate,
};
use candle_core::{DType, Result, Tensor, Var};

use crate::CPU;

const SHAPE: [usize; 2] = [3, 4];
const TAUS: [f64; 3] = [0.5, 1., 5.];
const LOGITS: [f64; 12] = [-3., -1., -0.2, 0., 0.1, 0.4, 0.7, 1., 1.5, 2., -0.6, 4.];
/// What a loss might send back: of both signs and different for each gate.
const WEIGHTS: [f64; 12] = [1., -2., 0.5, 3., -1., 0.25, 2., -0.75, 1.5, -3., 1., 0.1];

/// Central differences in f64 with this step are right to about 1e-10 for the losses here (h² times
/// the third derivative, and ulp / h from rounding); the rest is margin for τ = 0.5.
const STEP: f64 = 1e-5;
const DIFFERENCE_TOLERANCE: f64 = 1e-8;
/// Rounding of a few f64 operations on values of order 10.
const CLOSED_FORM_TOLERANCE: f64 = 1e-14;

fn tensor(values: [f64; 12]) -> Result<Tensor> {
    Tensor::from_slice(&values, &SHAPE, &CPU)
}

fn noise(kind: fn(&mut SeededNoise) -> Result<Tensor>) -> Result<Tensor> {
    kind(&mut SeededNoise::new(3, 1, &[4, 1, 5]))
}

fn logistic() -> Result<Tensor> {
    noise(|source| source.logistic(Site::new(0, 0), &SHAPE, DType::F64, &CPU))
}

fn gumbel() -> Result<Tensor> {
    noise(|source| source.gumbel(Site::new(0, 1), &SHAPE, DType::F64, &CPU))
}

/// Gradient at `LOGITS` of the sum of `WEIGHTS` times `gates`, by backward.
fn backward(gates: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Vec<f64>> {
    let logits = Var::from_tensor(&tensor(LOGITS)?)?;
    let loss = gates(&logits)?.mul(&tensor(WEIGHTS)?)?.sum_all()?;
    let grads = loss.backward()?;
    let grad = grads.get(&logits).expect("the loss depends on the logits");
    grad.flatten_all()?.to_vec1()
}

/// The same by central finite differences.
fn differences(gates: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Vec<f64>> {
    let loss = |at: usize, by: f64| -> Result<f64> {
        let mut logits = LOGITS;
        logits[at] += by;
        let gates = gates(&tensor(logits)?)?;
        gates.mul(&tensor(WEIGHTS)?)?.sum_all()?.to_scalar()
    };
    (0..LOGITS.len())
        .map(|i| Ok((loss(i, STEP)? - loss(i, -STEP)?) / (2. * STEP)))
        .collect()
}

fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (f, e) in found.iter().zip(expected) {
        assert!((f - e).abs() <= tolerance, "{found:?} for {expected:?}");
    }
}

#[test]
fn soft_and_hard_gates_have_the_gradient_of_the_soft_value() -> Result<()> {
    let eps = logistic()?;
    for tau in TAUS {
        let soft = backward(|xs| soft_gate(xs, &eps, tau))?;
        let by_differences = differences(|xs| soft_gate(xs, &eps, tau))?;
        assert_close(&soft, &by_differences, DIFFERENCE_TOLERANCE);

        let noise = eps.flatten_all()?.to_vec1::<f64>()?;
        let closed_form: Vec<f64> = (0..12)
            .map(|i| {
                let y = 1. / (1. + (-(LOGITS[i] + noise[i]) / tau).exp());
                WEIGHTS[i] * y * (1. - y) / tau
            })
            .collect();
        assert_close(&soft, &closed_form, CLOSED_FORM_TOLERANCE);
        for threshold in [0.3, 0.5, 0.6] {
            assert_eq!(backward(|xs| hard_gate(xs, &eps, tau, threshold))?, soft);
        }
    }
    Ok(())
}

#[test]
fn soft_and_hard_categories_have_the_gradient_of_the_softmax() -> Result<()> {
    let eps = gumbel()?;
    for tau in TAUS {
        let soft = backward(|xs| gumbel_softmax(xs, &eps, tau))?;
        let by_differences = differences(|xs| gumbel_softmax(xs, &eps, tau))?;
        assert_close(&soft, &by_differences, DIFFERENCE_TOLERANCE);
        let closed_form = softmax_gradient(&eps.flatten_all()?.to_vec1()?, tau);
        assert_close(&soft, &closed_form, CLOSED_FORM_TOLERANCE);
        assert_eq!(backward(|xs| gumbel_softmax_hard(xs, &eps, tau))?, soft);
    }
    Ok(())
}

/// Row by row, with y = softmax((ℓ + ε) / τ) and weights w: y (w - Σ w y) / τ.
fn softmax_gradient(noise: &[f64], tau: f64) -> Vec<f64> {
    let mut gradient = Vec::new();
    for row in 0..SHAPE[0] {
        let at: Vec<usize> = (0..SHAPE[1]).map(|k| row * SHAPE[1] + k).collect();
        let exp: Vec<f64> = at
            .iter()
            .map(|&i| ((LOGITS[i] + noise[i]) / tau).exp())
            .collect();
        let total: f64 = exp.iter().sum();
        let mean: f64 = at
            .iter()
            .zip(&exp)
            .map(|(&i, e)| WEIGHTS[i] * e / total)
            .sum();
        gradient.extend(
            at.iter()
                .zip(&exp)
                .map(|(&i, e)| e / total * (WEIGHTS[i] - mean) / tau),
        );
    }
    gradient
}

#[test]
fn gradients_pass_through_gates_of_views() -> Result<()> {
    // Logits often are a transposed or narrowed view of a larger result.
    let wide = Var::from_tensor(&tensor(LOGITS)?)?;
    let view = wide.t()?.narrow(0, 1, 2)?;
    let eps = view.zeros_like()?;
    let grads = hard_gate(&view, &eps, 1., 0.5)?.sum_all()?.backward()?;
    let grad = grads.get(&wide).unwrap().to_vec2::<f64>()?;
    for (i, row) in grad.iter().enumerate() {
        for (k, g) in row.iter().enumerate() {
            let y = 1. / (1. + (-LOGITS[4 * i + k]).exp());
            let want = if k == 1 || k == 2 { y * (1. - y) } else { 0. };
            assert!((g - want).abs() <= CLOSED_FORM_TOLERANCE);
        }
    }
    let grads = gumbel_softmax_hard(&view, &eps, 1.)?
        .sqr()?
        .sum_all()?
        .backward()?;
    assert!(grads.get(&wide).is_some());
    Ok(())
}
