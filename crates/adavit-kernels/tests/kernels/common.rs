//! Checks a function of tensors three ways: f32 (the fused path) against f64 (the composed path),
//! outputs and gradients, and f64 gradients against central differences.

use candle_core::{DType, Device, Result, Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub(crate) type Op<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

/// f32 keeps 2^-24; sums of some hundred terms lose two more digits. Relative to the largest value.
pub(crate) const TOLERANCE: f64 = 2e-5;

/// A seeded generator of test values.
pub(crate) struct Values(ChaCha8Rng);

impl Values {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Uniform in [-2, 2], f64.
    pub(crate) fn tensor(&mut self, dims: &[usize]) -> Tensor {
        let len = dims.iter().product();
        let values: Vec<f64> = (0..len).map(|_| self.0.random_range(-2.0..2.0)).collect();
        Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
    }

    /// 0 or 1, f64; with the given share of ones.
    pub(crate) fn mask(&mut self, dims: &[usize], share: f64) -> Tensor {
        let len = dims.iter().product();
        let values: Vec<f64> = (0..len)
            .map(|_| f64::from(u8::from(self.0.random_bool(share))))
            .collect();
        Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
    }

    /// Token gates `(B, N)` whose class token is on.
    pub(crate) fn token_mask(&mut self, b: usize, n: usize, share: f64) -> Tensor {
        let class = Tensor::ones((b, 1), DType::F64, &Device::Cpu).unwrap();
        let patches = self.mask(&[b, n - 1], share);
        Tensor::cat(&[class, patches], 1).unwrap()
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n)
    }
}

pub(crate) fn flat(xs: &Tensor) -> Vec<f64> {
    let xs = xs.to_dtype(DType::F64).unwrap();
    xs.flatten_all().unwrap().to_vec1().unwrap()
}

/// Fails unless `found` is `expected` up to `tolerance` times the largest expected value or 1.
pub(crate) fn assert_close(what: &str, found: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(found.dims(), expected.dims(), "{what}: shape");
    let (found, expected) = (flat(found), flat(expected));
    let size = expected.iter().fold(1.0, |size: f64, x| size.max(x.abs()));
    for (at, (x, y)) in found.iter().zip(&expected).enumerate() {
        assert!(
            (x - y).abs() <= tolerance * size,
            "{what} at {at}: expected {y}, found {x}, tolerance {}",
            tolerance * size
        );
    }
}

/// The output and the gradient of sum(output * weights) for each input, in `dtype`.
pub(crate) struct Evaluation {
    pub(crate) output: Tensor,
    pub(crate) gradients: Vec<Tensor>,
}

pub(crate) fn evaluate(op: Op, inputs: &[Tensor], weights: &Tensor, dtype: DType) -> Evaluation {
    let variables: Vec<Var> = inputs
        .iter()
        .map(|xs| Var::from_tensor(&xs.to_dtype(dtype).unwrap()).unwrap())
        .collect();
    // Something between the variables and the operation, as in a network.
    let operands: Vec<Tensor> = variables
        .iter()
        .map(|xs| (xs.as_tensor() * 1.0).unwrap())
        .collect();
    let output = op(&operands).unwrap();
    let weights = weights.to_dtype(dtype).unwrap();
    let loss = (&output * &weights).unwrap().sum_all().unwrap();
    let store = loss.backward().unwrap();
    let gradients = variables
        .iter()
        .enumerate()
        .map(|(i, xs)| match store.get(xs) {
            Some(gradient) => gradient.clone(),
            // candle's reshape and product cut the graph where there is nothing to compute.
            None if output.elem_count() == 0 => xs.zeros_like().unwrap(),
            None => panic!("input {i} gets no gradient"),
        })
        .collect();
    Evaluation {
        output: output.detach(),
        gradients,
    }
}

/// Runs all three checks.
pub(crate) fn check(op: Op, inputs: &[Tensor], seed: u64) {
    check_within(op, inputs, seed, TOLERANCE);
}

pub(crate) fn check_within(op: Op, inputs: &[Tensor], seed: u64, tolerance: f64) {
    let mut values = Values::new(seed);
    let weights = values.tensor(op(inputs).unwrap().dims());
    let exact = evaluate(op, inputs, &weights, DType::F64);
    let fused = evaluate(op, inputs, &weights, DType::F32);
    assert_close("output", &fused.output, &exact.output, tolerance);
    for (i, (found, expected)) in fused.gradients.iter().zip(&exact.gradients).enumerate() {
        assert_close(
            &format!("gradient of input {i}"),
            found,
            expected,
            tolerance,
        );
    }
    for i in 0..inputs.len() {
        check_differences(op, inputs, i, &weights, (&exact.gradients[i], &mut values));
    }
}

/// Compares some elements of a gradient with central differences.
fn check_differences(
    op: Op,
    inputs: &[Tensor],
    i: usize,
    weights: &Tensor,
    (gradient, values): (&Tensor, &mut Values),
) {
    let count = inputs[i].elem_count();
    let gradient = flat(gradient);
    for _ in 0..count.min(4) {
        let at = values.below(count);
        let shifted = |by: f64| {
            let mut moved = flat(&inputs[i]);
            moved[at] += by;
            let mut inputs = inputs.to_vec();
            inputs[i] = Tensor::from_vec(moved, inputs[i].dims(), &Device::Cpu).unwrap();
            let output = op(&inputs).unwrap();
            flat(&(output * weights).unwrap().sum_all().unwrap())[0]
        };
        let step = 1e-5;
        let difference = (shifted(step) - shifted(-step)) / (2.0 * step);
        // The error of the difference: step^2 times a third derivative, and rounding / step.
        assert!(
            (difference - gradient[at]).abs() <= 1e-5 * gradient[at].abs().max(1.0),
            "input {i} at {at}: difference {difference}, gradient {}",
            gradient[at]
        );
    }
}
