//! Checks a function of tensors three ways: f32 (the fused path) against f64 (the composed path),
//! outputs and gradients, and f64 gradients against central differences.
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a failure anywhere here fails its test"
)]

use candle_core::{DType, Device, Result, Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// An operation on its inputs.
pub type Op<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

/// The error allowed in f32, relative to the largest value: f32 keeps 2^-24, and sums of some
/// hundred terms lose two more digits.
pub const TOLERANCE: f64 = 2e-5;

/// A seeded generator of test values.
#[derive(Debug)]
pub struct Values(ChaCha8Rng);

impl Values {
    /// Starts the sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Returns f64 values uniform in [-2, 2].
    pub fn tensor(&mut self, dims: &[usize]) -> Tensor {
        let len = dims.iter().product();
        let values: Vec<f64> = (0..len).map(|_| self.0.random_range(-2.0..2.0)).collect();
        Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
    }

    /// Returns f64 values 0 or 1, a `share` of them 1.
    pub fn mask(&mut self, dims: &[usize], share: f64) -> Tensor {
        let len = dims.iter().product();
        let values: Vec<f64> = (0..len)
            .map(|_| f64::from(u8::from(self.0.random_bool(share))))
            .collect();
        Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
    }

    /// Returns token gates `(B, N)` whose class token is on.
    pub fn token_mask(&mut self, b: usize, n: usize, share: f64) -> Tensor {
        let class = Tensor::ones((b, 1), DType::F64, &Device::Cpu).unwrap();
        let patches = self.mask(&[b, n - 1], share);
        Tensor::cat(&[class, patches], 1).unwrap()
    }

    /// Returns a number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n)
    }
}

/// Returns all values in f64.
pub fn flat(xs: &Tensor) -> Vec<f64> {
    let xs = xs.to_dtype(DType::F64).unwrap();
    xs.flatten_all().unwrap().to_vec1().unwrap()
}

/// Checks that `found` is `expected` up to `tolerance` times the largest expected value or 1.
///
/// # Panics
/// If it is not.
pub fn assert_close(what: &str, found: &Tensor, expected: &Tensor, tolerance: f64) {
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

/// What an operation gives for its inputs.
#[derive(Debug)]
pub struct Evaluation {
    /// The output.
    pub output: Tensor,
    /// The gradient of sum(output * weights) for each input.
    pub gradients: Vec<Tensor>,
}

/// Evaluates an operation in `dtype`.
///
/// # Panics
/// If the operation fails, or an input gets no gradient.
pub fn evaluate(op: Op, inputs: &[Tensor], weights: &Tensor, dtype: DType) -> Evaluation {
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

/// Runs all three checks, within [`TOLERANCE`].
///
/// # Panics
/// If a check fails.
pub fn check(op: Op, inputs: &[Tensor], seed: u64) {
    check_within(op, inputs, seed, TOLERANCE);
}

/// As [`check`], with another tolerance.
///
/// # Panics
/// If a check fails.
pub fn check_within(op: Op, inputs: &[Tensor], seed: u64, tolerance: f64) {
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
        let compared = Compared {
            op,
            inputs,
            weights: &weights,
            gradients: &exact.gradients,
        };
        compared.with_differences(i, &mut values);
    }
}

/// Gradients in f64, and what they are the gradients of.
struct Compared<'a> {
    op: Op<'a>,
    inputs: &'a [Tensor],
    weights: &'a Tensor,
    gradients: &'a [Tensor],
}

impl Compared<'_> {
    /// Compares some elements of the gradient of input `i` with central differences.
    fn with_differences(&self, i: usize, values: &mut Values) {
        let count = self.inputs[i].elem_count();
        let gradient = flat(&self.gradients[i]);
        for _ in 0..count.min(4) {
            let at = values.below(count);
            let step = 1e-5;
            let difference = (self.loss(i, at, step) - self.loss(i, at, -step)) / (2.0 * step);
            // The error of the difference: step^2 times a third derivative, and rounding / step.
            assert!(
                (difference - gradient[at]).abs() <= 1e-5 * gradient[at].abs().max(1.0),
                "input {i} at {at}: difference {difference}, gradient {}",
                gradient[at]
            );
        }
    }

    /// Returns sum(output * weights) with element `at` of input `i` moved by `by`.
    fn loss(&self, i: usize, at: usize, by: f64) -> f64 {
        let mut moved = flat(&self.inputs[i]);
        moved[at] += by;
        let mut inputs = self.inputs.to_vec();
        inputs[i] = Tensor::from_vec(moved, inputs[i].dims(), &Device::Cpu).unwrap();
        let output = (self.op)(&inputs).unwrap();
        flat(&(output * self.weights).unwrap().sum_all().unwrap())[0]
    }
}
