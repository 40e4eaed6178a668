//! Every operation, forward and backward, at every level of the machine: f32 against the composed
//! operation in f64, and the same bits where a level promises them.

use adavit_kernels_testing::{Op, TOLERANCE, Values, assert_close, check, evaluate, flat};
use candle_core::{DType, Result, Tensor};

use crate::args::{AffineMap, AttentionMaps, HeadGate, Qkv};
use crate::composed;
use crate::cpu::simd::Level;
use crate::ops::activation::{erf_at, gelu_at, softmax_at, tanh_at};
use crate::ops::attention::class::class_attention_at;
use crate::ops::attention::multi_head::multi_head_attention_at;
use crate::ops::attention::qkv::attention_at;
use crate::ops::cross_entropy::cross_entropy_at;
use crate::ops::gate::{gate_groups_at, gate_tokens_at, gated_residual_at};
use crate::ops::layer_norm::layer_norm_at;
use crate::ops::linear::{linear_at, linear_gelu_at};

type AtLevel<'a> = &'a dyn Fn(Level, &[Tensor]) -> Result<Tensor>;

/// Sizes that are no multiple of 16: several images, one image, and one image of many tasks.
const SIZES: [(usize, usize, usize); 4] = [(3, 7, 33), (1, 19, 45), (2, 1, 3), (1, 181, 99)];

/// Compares the output and the gradients at every level with those of `exact` in f64.
fn compare(what: &str, op: AtLevel, exact: Op, inputs: &[Tensor]) {
    let weights = Values::new(7).tensor(exact(inputs).unwrap().dims());
    let expected = evaluate(exact, inputs, &weights, DType::F64);
    for level in Level::available() {
        let found = evaluate(&|xs| op(level, xs), inputs, &weights, DType::F32);
        let what = format!("{what} at {level:?} for {:?}", inputs[0].dims());
        assert_close(&what, &found.output, &expected.output, TOLERANCE);
        let gradients = found.gradients.iter().zip(&expected.gradients);
        for (i, (found, expected)) in gradients.enumerate() {
            let what = format!("{what}, gradient {i}");
            assert_close(&what, found, expected, TOLERANCE);
        }
    }
}

/// As [`compare`]; also, output and gradients have the same bits at every level.
fn compare_bits(what: &str, op: AtLevel, exact: Op, inputs: &[Tensor]) {
    compare(what, op, exact, inputs);
    let weights = Values::new(8).tensor(exact(inputs).unwrap().dims());
    let bits = |level: Level| {
        let found = evaluate(&|xs| op(level, xs), inputs, &weights, DType::F32);
        let gradients = found.gradients.iter().map(flat);
        std::iter::once(flat(&found.output))
            .chain(gradients)
            .collect::<Vec<_>>()
    };
    let portable = bits(Level::Portable);
    for level in Level::available() {
        assert!(bits(level) == portable, "{what}: bits of {level:?}");
    }
}

#[test]
fn activations_and_the_norm_agree_at_every_level() {
    for (b, n, c) in SIZES {
        let mut values = Values::new(1);
        let xs = values.tensor(&[b, n, c]);
        let alone = std::slice::from_ref(&xs);
        compare_bits(
            "gelu",
            &|level, xs| gelu_at(level, &xs[0]),
            &|xs| composed::gelu(&xs[0]),
            alone,
        );
        compare_bits(
            "erf",
            &|level, xs| erf_at(level, &xs[0]),
            &|xs| composed::erf(&xs[0]),
            alone,
        );
        compare_bits(
            "tanh",
            &|level, xs| tanh_at(level, &xs[0]),
            &|xs| composed::tanh(&xs[0]),
            alone,
        );
        compare_bits(
            "softmax",
            &|level, xs| softmax_at(level, &xs[0]),
            &|xs| composed::softmax(&xs[0]),
            alone,
        );
        compare_bits(
            "layer_norm",
            &|level, xs| layer_norm_at(level, &xs[0], &xs[1], &xs[2], 1e-6),
            &|xs| composed::layer_norm(&xs[0], &xs[1], &xs[2], 1e-6),
            &[xs, values.tensor(&[c]), values.tensor(&[c])],
        );
    }
}

#[test]
fn linear_maps_agree_at_every_level() {
    for (b, n, c) in SIZES {
        let mut values = Values::new(2);
        let (xs, weight) = (values.tensor(&[b, n, c]), values.tensor(&[37, c]));
        let inputs = [xs, weight, values.tensor(&[37])];
        compare(
            "linear",
            &|level, xs| linear_at(level, &xs[0], &xs[1], None),
            &|xs| composed::linear(&xs[0], &xs[1], None),
            &inputs[..2],
        );
        compare(
            "linear with bias",
            &|level, xs| linear_at(level, &xs[0], &xs[1], Some(&xs[2])),
            &|xs| composed::linear(&xs[0], &xs[1], Some(&xs[2])),
            &inputs,
        );
        compare(
            "linear_gelu",
            &|level, xs| linear_gelu_at(level, &xs[0], &xs[1], &xs[2]),
            &|xs| composed::gelu(&composed::linear(&xs[0], &xs[1], Some(&xs[2]))?),
            &inputs,
        );
    }
}

#[test]
fn gates_agree_at_every_level() {
    for (b, n, c) in SIZES {
        let mut values = Values::new(3);
        let (xs, ys) = (values.tensor(&[b, n, c]), values.tensor(&[b, n, c]));
        let (images, tokens) = (values.tensor(&[b]), values.tensor(&[b, n]));
        compare_bits(
            "gate_tokens",
            &|level, xs| gate_tokens_at(level, &xs[0], &xs[1]),
            &|xs| composed::gate_tokens(&xs[0], &xs[1]),
            &[xs.clone(), tokens.clone()],
        );
        compare_bits(
            "gate_groups",
            &|level, xs| gate_groups_at(level, &xs[0], &xs[1]),
            &|xs| composed::gate_groups(&xs[0], &xs[1]),
            &[xs.clone(), values.tensor(&[b, 3])],
        );
        for gates in [images, tokens] {
            compare_bits(
                "gated_residual",
                &|level, xs| gated_residual_at(level, &xs[0], &xs[1], &xs[2]),
                &|xs| composed::gated_residual(&xs[0], &xs[1], &xs[2]),
                &[xs.clone(), ys.clone(), gates],
            );
        }
    }
}

#[test]
fn cross_entropy_agrees_at_every_level() {
    for (b, k) in [(1, 3), (9, 37), (5, 1001)] {
        let mut values = Values::new(4);
        let targets = composed::softmax(&values.tensor(&[b, k])).unwrap();
        compare_bits(
            "cross_entropy",
            &|level, xs| cross_entropy_at(level, &xs[0], &targets.to_dtype(DType::F32)?),
            &|xs| composed::cross_entropy(&xs[0], &targets),
            &[values.tensor(&[b, k])],
        );
    }
}

/// The first three tensors.
fn qkv(xs: &[Tensor]) -> Qkv<'_> {
    Qkv {
        q: &xs[0],
        k: &xs[1],
        v: &xs[2],
    }
}

/// The head gates among the inputs.
type ToGate = fn(&[Tensor]) -> HeadGate<'_>;

/// Compares both kinds of attention under the token gates, for every kind of head gate.
fn compare_attention(inputs: &[Tensor], num_heads: usize, tokens: Option<&Tensor>) {
    let narrow = tokens.map(|tokens| tokens.to_dtype(DType::F32).unwrap());
    let kinds: [(ToGate, usize); 3] = [
        (|_| HeadGate::All, 3),
        (|xs| HeadGate::Full(&xs[3]), 4),
        (|xs| HeadGate::Partial(&xs[3]), 4),
    ];
    for (kind, n_inputs) in kinds {
        compare(
            "attention",
            &|level, xs| attention_at(level, qkv(xs), num_heads, narrow.as_ref(), kind(xs)),
            &|xs| composed::attention(qkv(xs), num_heads, tokens, kind(xs)),
            &inputs[..n_inputs],
        );
    }
    compare_bits(
        "class_attention",
        &|level, xs| class_attention_at(level, &xs[0], &xs[1], num_heads, narrow.as_ref()),
        &|xs| composed::class_attention(&xs[0], &xs[1], num_heads, tokens),
        &inputs[..2],
    );
}

#[test]
fn attention_agrees_at_every_level_under_masks_of_tokens_and_heads() {
    for (b, n, num_heads, d) in [(2, 7, 3, 5), (1, 37, 2, 21), (3, 1, 1, 3), (1, 18, 4, 33)] {
        let mut values = Values::new(5);
        let xs = [(); 3].map(|()| values.tensor(&[b, n, num_heads * d]));
        let soft = values.tensor(&[b, num_heads]);
        let hard = values.mask(&[b, num_heads], 0.5);
        let some = values.token_mask(b, n, 0.5);
        let none = values.mask(&[b, n], 0.0);
        let [q, k, v] = xs;
        for heads in [soft, hard] {
            let inputs = [q.clone(), k.clone(), v.clone(), heads];
            for tokens in [None, Some(&some), Some(&none)] {
                compare_attention(&inputs, num_heads, tokens);
            }
        }
    }
}

/// Maps from inputs x, the four weights, the four biases and the gates.
fn maps(xs: &[Tensor], with_bias: bool) -> AttentionMaps<'_> {
    let map = |index: usize| AffineMap {
        weight: &xs[index],
        bias: with_bias.then(|| &xs[index + 4]),
    };
    AttentionMaps {
        query: map(1),
        key: map(2),
        value: map(3),
        proj: map(4),
    }
}

#[test]
fn multi_head_attention_agrees_at_every_level() {
    // Inner, attended and outer widths differ, and rows end within a vector.
    for (b, n, num_heads, d) in [(2, 7, 3, 5), (1, 37, 2, 21), (3, 1, 1, 3)] {
        let mut values = Values::new(10);
        let (n_in, c, n_out) = (19, num_heads * d, 23);
        let shapes: [&[usize]; 9] = [
            &[b, n, n_in],
            &[c, n_in],
            &[c, n_in],
            &[c, n_in],
            &[n_out, c],
            &[c],
            &[c],
            &[c],
            &[n_out],
        ];
        let mut inputs: Vec<Tensor> = shapes.map(|dims| values.tensor(dims)).into();
        // Small weights, so that no softmax is all on one token.
        for weight in &mut inputs[1..5] {
            *weight = (&*weight * 0.2).unwrap();
        }
        inputs.push(values.mask(&[b, num_heads], 0.6));
        let tokens = values.token_mask(b, n, 0.5);
        let narrow = tokens.to_dtype(DType::F32).unwrap();
        let kinds: [(ToGate, usize, bool); 4] = [
            (|_| HeadGate::All, 5, false),
            (|_| HeadGate::All, 9, true),
            (|xs| HeadGate::Full(&xs[9]), 10, true),
            (|xs| HeadGate::Partial(&xs[9]), 10, true),
        ];
        for (kind, n_inputs, with_bias) in kinds {
            for (exact, some) in [(None, None), (Some(&tokens), Some(&narrow))] {
                compare(
                    "multi_head_attention",
                    &|level, xs| {
                        let maps = maps(xs, with_bias);
                        multi_head_attention_at(level, &xs[0], &maps, num_heads, some, kind(xs))
                    },
                    &|xs| {
                        let maps = maps(xs, with_bias);
                        composed::multi_head_attention(&xs[0], &maps, num_heads, exact, kind(xs))
                    },
                    &inputs[..n_inputs],
                );
            }
        }
    }
}

#[test]
fn gradients_at_every_level_agree_with_differences() {
    let mut values = Values::new(6);
    let inputs = [(); 3].map(|()| values.tensor(&[1, 9, 22]));
    for level in Level::available() {
        let op = |xs: &[Tensor]| attention_at(level, qkv(xs), 2, None, HeadGate::All);
        check(&op, &inputs, 6);
    }
}

/// Every operation that divides one image, of more than one task.
fn one_image(xs: &[Tensor]) -> Result<Tensor> {
    let [x, heads, image, tokens] = xs else {
        candle_core::bail!("expected four inputs, found {}", xs.len());
    };
    let level = Level::current();
    let ys = gate_groups_at(level, &gate_tokens_at(level, x, tokens)?, heads)?;
    let ys = gated_residual_at(level, x, &ys, image)?;
    let ys = gated_residual_at(level, &ys, x, tokens)?;
    let ps = class_attention_at(level, &ys, x, 3, None)?;
    ps.sqr()?.sum_all()? + ys.sqr()?.mean_all()?
}

#[test]
fn one_image_gives_the_same_bits_for_any_number_of_threads() {
    let mut values = Values::new(9);
    let shapes: [&[usize]; 4] = [&[1, 401, 96], &[1, 6], &[1], &[1, 401]];
    let inputs = shapes.map(|dims| values.tensor(dims));
    let weights = values.tensor(&[]);
    let run = |n: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build();
        pool.unwrap().install(|| {
            let found = evaluate(&one_image, &inputs, &weights, DType::F32);
            let gradients = found.gradients.iter().map(flat);
            std::iter::once(flat(&found.output))
                .chain(gradients)
                .collect::<Vec<_>>()
        })
    };
    let one = run(1);
    assert!(one.iter().flatten().all(|x| x.is_finite()));
    assert!(one == run(2), "two threads");
    assert!(one == run(5), "five threads");
}
