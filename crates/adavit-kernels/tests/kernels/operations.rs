//! Each operation but attention: fused against composed, gradients, shapes at the edges.

use adavit_kernels as kernels;
use adavit_kernels_testing::{TOLERANCE, Values, assert_close, check, check_within, flat};
use candle_core::{DType, Result, Tensor};
use proptest::prelude::*;

fn few() -> ProptestConfig {
    ProptestConfig {
        cases: 12,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn linear(xs: &[Tensor]) -> Result<Tensor> {
    kernels::linear(&xs[0], &xs[1], Some(&xs[2]))
}

fn linear_without_bias(xs: &[Tensor]) -> Result<Tensor> {
    kernels::linear(&xs[0], &xs[1], None)
}

fn linear_gelu(xs: &[Tensor]) -> Result<Tensor> {
    kernels::linear_gelu(&xs[0], &xs[1], &xs[2])
}

fn gelu_linear(xs: &[Tensor]) -> Result<Tensor> {
    kernels::gelu_linear(&xs[0], &xs[1], &xs[2])
}

fn mlp(xs: &[Tensor]) -> Result<Tensor> {
    let maps = kernels::MlpMaps {
        fc1_weight: &xs[1],
        fc1_bias: &xs[2],
        fc2_weight: &xs[3],
        fc2_bias: &xs[4],
    };
    kernels::mlp(&xs[0], &maps)
}

fn layer_norm(xs: &[Tensor]) -> Result<Tensor> {
    kernels::layer_norm(&xs[0], &xs[1], &xs[2], 1e-6)
}

fn gated_residual(xs: &[Tensor]) -> Result<Tensor> {
    kernels::gated_residual(&xs[0], &xs[1], &xs[2])
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn linear_agrees(b in 0usize..4, n in 1usize..40, i in 1usize..50, o in 1usize..50, seed: u64) {
        let mut values = Values::new(seed);
        let inputs = [values.tensor(&[b, n, i]), values.tensor(&[o, i]), values.tensor(&[o])];
        check(&linear, &inputs, seed);
        check(&linear_without_bias, &inputs[..2], seed);
        check(&linear_gelu, &inputs, seed);
        check(&gelu_linear, &inputs, seed);
    }

    #[test]
    fn mlp_agrees(b in 0usize..4, n in 1usize..40, c in 1usize..40, r in 1usize..60, seed: u64) {
        let mut values = Values::new(seed);
        let inputs = [&[b, n, c][..], &[r, c], &[r], &[c, r], &[c]].map(|dims| values.tensor(dims));
        // Two products of some dozen terms each, with sums up to a few hundred.
        check_within(&mlp, &inputs, seed, 2.0 * TOLERANCE);
    }

    #[test]
    fn layer_norm_agrees(b in 0usize..4, n in 1usize..40, c in 2usize..70, seed: u64) {
        let mut values = Values::new(seed);
        let inputs = [values.tensor(&[b, n, c]), values.tensor(&[c]), values.tensor(&[c])];
        // Two channels may lie close together, which multiplies rounding by 1 / deviation.
        let tolerance = if c < 8 { 1e-2 } else { TOLERANCE };
        check_within(&layer_norm, &inputs, seed, tolerance);
    }

    #[test]
    fn activations_agree(b in 0usize..4, n in 1usize..40, c in 1usize..70, seed: u64) {
        let inputs = [Values::new(seed).tensor(&[b, n, c])];
        check(&|xs| kernels::gelu(&xs[0]), &inputs, seed);
        check(&|xs| kernels::erf(&xs[0]), &inputs, seed);
        check(&|xs| kernels::tanh(&xs[0]), &inputs, seed);
        check(&|xs| kernels::softmax(&xs[0]), &inputs, seed);
    }

    #[test]
    fn gates_agree(b in 0usize..4, n in 1usize..40, groups in 1usize..6, d in 1usize..20, seed: u64) {
        let mut values = Values::new(seed);
        let c = groups * d;
        let (xs, ys) = (values.tensor(&[b, n, c]), values.tensor(&[b, n, c]));
        let (images, tokens) = (values.tensor(&[b]), values.tensor(&[b, n]));
        let per_group = values.tensor(&[b, groups]);
        check(&|xs| kernels::gate_tokens(&xs[0], &xs[1]), &[xs.clone(), tokens.clone()], seed);
        check(&|xs| kernels::gate_groups(&xs[0], &xs[1]), &[xs.clone(), per_group], seed);
        check(&gated_residual, &[xs.clone(), ys.clone(), images], seed);
        check(&gated_residual, &[xs, ys, tokens], seed);
    }

    #[test]
    fn cross_entropy_agrees(b in 1usize..9, k in 1usize..40, seed: u64) {
        let mut values = Values::new(seed);
        let targets = kernels::softmax(&values.tensor(&[b, k])).unwrap();
        let logits = [values.tensor(&[b, k])];
        let op = |xs: &[Tensor]| {
            kernels::cross_entropy(&xs[0], &targets.to_dtype(xs[0].dtype())?)
        };
        check(&op, &logits, seed);
    }

    #[test]
    fn patchify_agrees(b in 0usize..3, c in 1usize..4, rows in 1usize..4, p in 1usize..5, seed: u64) {
        let inputs = [Values::new(seed).tensor(&[b, c, rows * p, 3 * p])];
        check(&|xs| kernels::patchify(&xs[0], p), &inputs, seed);
    }

    #[test]
    fn im2col_agrees(
        (b, c) in (0usize..3, 1usize..4),
        (h, w) in (1usize..12, 1usize..12),
        (kernel, stride, padding) in (1usize..8, 1usize..6, 0usize..4),
        seed: u64,
    ) {
        let kernel_size = kernel.min(h.min(w) + 2 * padding);
        let window = kernels::Window { kernel_size, stride, padding };
        let inputs = [Values::new(seed).tensor(&[b, c, h, w])];
        check(&|xs| kernels::im2col(&xs[0], window), &inputs, seed);
    }
}

#[test]
fn sizes_beyond_one_task_agree() {
    let mut values = Values::new(1);
    let xs = values.tensor(&[6, 70, 96]);
    let affine = [xs.clone(), values.tensor(&[110, 96]), values.tensor(&[110])];
    check(&linear, &affine, 1);
    check(&linear_gelu, &affine, 2);
    check(
        &layer_norm,
        &[xs.clone(), values.tensor(&[96]), values.tensor(&[96])],
        3,
    );
    check(
        &|xs| kernels::gate_groups(&xs[0], &xs[1]),
        &[xs.clone(), values.tensor(&[6, 4])],
        4,
    );
    let residual = [xs.clone(), values.tensor(&[6, 70, 96]), values.tensor(&[6])];
    check(&gated_residual, &residual, 5);
    check(&|xs| kernels::softmax(&xs[0]), &[xs], 6);
}

#[test]
fn inputs_that_are_not_contiguous_agree() {
    let mut values = Values::new(2);
    let xs = values.tensor(&[3, 20, 7]);
    let turned = |xs: &Tensor| xs.transpose(1, 2);
    let (weight, vector) = (values.tensor(&[20, 9]), values.tensor(&[20]));
    let inputs = [xs.clone(), weight, values.tensor(&[9])];
    check(
        &|xs| kernels::linear(&turned(&xs[0])?, &xs[1].t()?, Some(&xs[2])),
        &inputs,
        1,
    );
    check(
        &|xs| kernels::linear_gelu(&turned(&xs[0])?, &xs[1].t()?, &xs[2]),
        &inputs,
        2,
    );
    let inputs = [xs.clone(), vector.clone(), vector];
    check(
        &|xs| kernels::layer_norm(&turned(&xs[0])?, &xs[1], &xs[2], 1e-6),
        &inputs,
        3,
    );
    let alone = std::slice::from_ref(&xs);
    check(&|xs| kernels::gelu(&turned(&xs[0])?), alone, 4);
    check(&|xs| kernels::softmax(&turned(&xs[0])?), alone, 5);
    check(&|xs| kernels::tanh(&turned(&xs[0])?), alone, 10);
    let gates = [xs.clone(), values.tensor(&[7, 3])];
    check(
        &|xs| kernels::gate_tokens(&turned(&xs[0])?, &xs[1].t()?),
        &gates,
        6,
    );
    let gates = [xs.clone(), values.tensor(&[5, 3])];
    check(
        &|xs| kernels::gate_groups(&turned(&xs[0])?, &xs[1].t()?),
        &gates,
        7,
    );
    check(
        &|xs| kernels::gated_residual(&xs[0], &xs[0], &xs[1].narrow(0, 1, 3)?),
        &[xs, values.tensor(&[5])],
        8,
    );
    let images = [values.tensor(&[2, 8, 4, 3])];
    check(
        &|xs| kernels::patchify(&xs[0].transpose(1, 3)?, 4),
        &images,
        9,
    );
}

/// The soft splits of T2T-ViT, on images whose last rows and columns no window meets.
#[test]
fn im2col_agrees_on_windows_that_overlap() {
    for (kernel_size, stride, padding) in [(7, 4, 2), (3, 2, 1), (3, 2, 0), (4, 4, 0)] {
        let window = kernels::Window {
            kernel_size,
            stride,
            padding,
        };
        let inputs = [Values::new(7).tensor(&[2, 3, 30, 26])];
        check(&|xs| kernels::im2col(&xs[0], window), &inputs, 1);
        let turned = |xs: &[Tensor]| kernels::im2col(&xs[0].transpose(2, 3)?, window);
        check(&turned, &inputs, 2);
    }
}

/// Two channels of 2 x 3 pixels, 1 to 12; written out by hand.
#[test]
fn im2col_reads_channels_then_rows_then_columns() {
    let window = kernels::Window {
        kernel_size: 2,
        stride: 1,
        padding: 1,
    };
    let pixels: Vec<f64> = (1..=12).map(f64::from).collect();
    let xs = Tensor::from_vec(pixels, (1, 2, 2, 3), &candle_core::Device::Cpu).unwrap();
    let expected = [
        [0., 0., 0., 1., 0., 0., 0., 7.],
        [0., 0., 1., 2., 0., 0., 7., 8.],
        [0., 0., 2., 3., 0., 0., 8., 9.],
        [0., 0., 3., 0., 0., 0., 9., 0.],
        [0., 1., 0., 4., 0., 7., 0., 10.],
        [1., 2., 4., 5., 7., 8., 10., 11.],
        [2., 3., 5., 6., 8., 9., 11., 12.],
        [3., 0., 6., 0., 9., 0., 12., 0.],
        [0., 4., 0., 0., 0., 10., 0., 0.],
        [4., 5., 0., 0., 10., 11., 0., 0.],
        [5., 6., 0., 0., 11., 12., 0., 0.],
        [6., 0., 0., 0., 12., 0., 0., 0.],
    ];
    for dtype in [DType::F32, DType::F64] {
        let ys = kernels::im2col(&xs.to_dtype(dtype).unwrap(), window).unwrap();
        assert_eq!(ys.dims(), [1, 12, 8]);
        assert_eq!(flat(&ys), expected.concat(), "{dtype:?}");
    }
}

/// Every pixel of the first row and column lies in fewer windows than the others.
#[test]
fn im2col_adds_the_gradients_of_all_windows_of_a_pixel() {
    let window = kernels::Window {
        kernel_size: 3,
        stride: 2,
        padding: 1,
    };
    for dtype in [DType::F32, DType::F64] {
        let xs = Tensor::ones((1, 1, 4, 4), dtype, &candle_core::Device::Cpu).unwrap();
        let xs = candle_core::Var::from_tensor(&xs).unwrap();
        let loss = kernels::im2col(&xs, window).unwrap().sum_all().unwrap();
        let store = loss.backward().unwrap();
        let expected = [
            [1., 2., 1., 1.],
            [2., 4., 2., 2.],
            [1., 2., 1., 1.],
            [1., 2., 1., 1.],
        ];
        assert_eq!(
            flat(store.get(&xs).unwrap()),
            expected.concat(),
            "{dtype:?}"
        );
    }
}

#[test]
fn windows_that_do_not_fit_are_errors_that_say_so() {
    let xs = Values::new(8).tensor(&[1, 1, 3, 9]);
    for dtype in [DType::F32, DType::F64] {
        let xs = xs.to_dtype(dtype).unwrap();
        let message = |kernel_size, stride, padding| {
            let window = kernels::Window {
                kernel_size,
                stride,
                padding,
            };
            kernels::im2col(&xs, window).unwrap_err().to_string()
        };
        assert!(message(6, 1, 1).contains("kernel size between 1 and 5, found 6"));
        assert!(message(0, 1, 0).contains("kernel size between 1 and 3, found 0"));
        assert!(message(3, 0, 0).contains("stride of at least 1, found 0"));
    }
}

#[test]
fn untracked_inputs_need_no_gradient() {
    let mut values = Values::new(3);
    let fixed = values.tensor(&[5, 8]).to_dtype(DType::F32).unwrap();
    let op = |xs: &[Tensor]| kernels::linear(&fixed.to_dtype(xs[0].dtype())?, &xs[0], Some(&xs[1]));
    check(&op, &[values.tensor(&[6, 8]), values.tensor(&[6])], 1);
    let op = |xs: &[Tensor]| kernels::linear(&xs[0], &fixed.to_dtype(xs[0].dtype())?, None);
    check(&op, &[values.tensor(&[4, 8])], 2);
}

#[test]
fn layer_norm_keeps_its_digits_far_from_zero() {
    let far = (Values::new(4).tensor(&[4, 64]) + 1000.0)
        .unwrap()
        .to_dtype(DType::F32)
        .unwrap();
    let (one, zero) = (Tensor::ones(64, DType::F32, far.device()), far.zeros_like());
    let zero = zero.unwrap().get(0).unwrap();
    let found = kernels::layer_norm(&far, &one.unwrap(), &zero, 1e-6).unwrap();
    let exact = far.to_dtype(DType::F64).unwrap();
    let (one, zero) = (exact.get(0).unwrap().ones_like(), zero.to_dtype(DType::F64));
    let expected = kernels::layer_norm(&exact, &one.unwrap(), &zero.unwrap(), 1e-6).unwrap();
    // The mean itself is rounded to 2^-24 * 1000.
    assert_close("far", &found, &expected, 2e-4);
}

#[test]
fn nan_in_gives_nan_out() {
    let mut values = Values::new(5);
    let mut row = flat(&values.tensor(&[33]));
    row[20] = f64::NAN;
    let xs = Tensor::from_vec(row, (1, 1, 33), &candle_core::Device::Cpu).unwrap();
    let xs = xs.to_dtype(DType::F32).unwrap();
    let f32s = |tensor: Tensor| tensor.to_dtype(DType::F32).unwrap();
    let (weight, vector) = (f32s(values.tensor(&[5, 33])), f32s(values.tensor(&[33])));
    let bias = f32s(values.tensor(&[5]));
    let all_nan = [
        kernels::linear(&xs, &weight, Some(&bias)),
        kernels::linear_gelu(&xs, &weight, &bias),
        kernels::layer_norm(&xs, &vector, &vector, 1e-6),
        kernels::softmax(&xs),
        kernels::cross_entropy(&xs.squeeze(0).unwrap(), &vector.unsqueeze(0).unwrap()),
    ];
    for (i, ys) in all_nan.into_iter().enumerate() {
        assert!(
            flat(&ys.unwrap()).iter().all(|y| y.is_nan()),
            "operation {i}"
        );
    }
    let one = f32s(values.tensor(&[1, 1]));
    let same_place = [
        kernels::gelu(&xs),
        kernels::tanh(&xs),
        kernels::gate_tokens(&xs, &one),
        kernels::gate_groups(&xs, &one),
        kernels::gated_residual(&xs, &xs, &one),
    ];
    for (i, ys) in same_place.into_iter().enumerate() {
        let nan: Vec<bool> = flat(&ys.unwrap()).iter().map(|y| y.is_nan()).collect();
        assert!((0..33).all(|at| nan[at] == (at == 20)), "operation {i}");
    }
}

#[test]
fn wrong_shapes_are_errors() {
    let xs = Values::new(6)
        .tensor(&[2, 3, 8])
        .to_dtype(DType::F32)
        .unwrap();
    let two = xs.narrow(2, 0, 2).unwrap();
    let gates = xs.narrow(2, 0, 1).unwrap().squeeze(2).unwrap();
    assert!(kernels::linear(&xs, &two.get(0).unwrap(), None).is_err());
    assert!(kernels::gate_groups(&xs, &gates).is_err());
    assert!(kernels::gated_residual(&xs, &two, &gates).is_err());
    assert!(kernels::patchify(&xs.unsqueeze(0).unwrap(), 5).is_err());
}
