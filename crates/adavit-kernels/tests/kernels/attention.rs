//! Attention: fused against composed, gradients, masks and gates at the edges.

use adavit_kernels::{
    AffineMap, AttentionMaps, HeadGate, Qkv, attention, class_attention, multi_head_attention,
};
use adavit_kernels_testing::{Values, check, check_within, flat};
use candle_core::{DType, Tensor};
use proptest::prelude::*;

fn few() -> ProptestConfig {
    ProptestConfig {
        cases: 12,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn qkv<'a>(q: &'a Tensor, k: &'a Tensor, v: &'a Tensor) -> Qkv<'a> {
    Qkv { q, k, v }
}

/// The gradient of a head's gate sums n * d products of both signs, so it may be far smaller than they
/// are: one random case in some thousand is 2.6e-5 from f64.
const GATES: f64 = 1e-4;

/// Inputs q, k, v and head gates, with the shape of everything.
struct Case {
    heads: usize,
    inputs: [Tensor; 4],
    tokens: Option<Tensor>,
}

impl Case {
    fn new(values: &mut Values, (b, n): (usize, usize), (heads, d): (usize, usize)) -> Self {
        let dims = [b, n, heads * d];
        let gates = values.tensor(&[b, heads]);
        let inputs = [
            values.tensor(&dims),
            values.tensor(&dims),
            values.tensor(&dims),
            gates,
        ];
        Self {
            heads,
            inputs,
            tokens: None,
        }
    }

    fn check(&self, seed: u64) {
        let tokens = |xs: &Tensor| {
            self.tokens
                .as_ref()
                .map(|t| t.to_dtype(xs.dtype()).unwrap())
        };
        let run = |xs: &[Tensor], gates: HeadGate| {
            attention(
                qkv(&xs[0], &xs[1], &xs[2]),
                self.heads,
                tokens(&xs[0]).as_ref(),
                gates,
            )
        };
        check(&|xs| run(xs, HeadGate::All), &self.inputs[..3], seed);
        let full = |xs: &[Tensor]| run(xs, HeadGate::Full(&xs[3]));
        check_within(&full, &self.inputs, seed, GATES);
        let partial = |xs: &[Tensor]| run(xs, HeadGate::Partial(&xs[3]));
        check_within(&partial, &self.inputs, seed, GATES);
        let class =
            |xs: &[Tensor]| class_attention(&xs[0], &xs[1], self.heads, tokens(&xs[0]).as_ref());
        check(&class, &self.inputs[..2], seed);
    }
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn attention_agrees(
        b in 1usize..4, n in 1usize..40, heads in 1usize..4, d in 1usize..36, seed: u64
    ) {
        let mut values = Values::new(seed);
        let mut case = Case::new(&mut values, (b, n), (heads, d));
        case.check(seed);
        case.tokens = Some(values.token_mask(b, n, 0.5));
        case.inputs[3] = values.mask(&[b, heads], 0.5);
        case.check(seed);
    }
}

#[test]
fn one_token_one_head_and_an_empty_batch_agree() {
    let mut values = Values::new(1);
    for (b, n) in [(0, 5), (1, 1), (2, 1), (1, 2)] {
        Case::new(&mut values, (b, n), (1, 16)).check(1);
    }
}

#[test]
fn masks_all_on_and_all_off_agree() {
    let mut values = Values::new(2);
    for share in [0.0, 1.0] {
        let mut case = Case::new(&mut values, (2, 19), (2, 16));
        case.tokens = Some(values.token_mask(2, 19, share));
        case.check(2);
        case.inputs[3] = values.mask(&[2, 2], share);
        case.check(3);
        // Not even the class token.
        case.tokens = Some(values.mask(&[2, 19], share));
        case.check(4);
    }
}

#[test]
fn a_long_sequence_agrees() {
    let mut values = Values::new(3);
    Case::new(&mut values, (1, 197), (1, 64)).check(1);
}

#[test]
fn inputs_that_are_not_contiguous_agree() {
    let mut values = Values::new(4);
    let packed = [values.tensor(&[2, 9, 48]), values.tensor(&[2, 2])];
    let op = |xs: &[Tensor]| {
        let parts = xs[0].chunk(3, 2)?;
        attention(
            qkv(&parts[0], &parts[1], &parts[2]),
            2,
            None,
            HeadGate::Full(&xs[1].t()?),
        )
    };
    check(&op, &packed, 1);
}

#[test]
fn gates_get_their_gradient_from_fixed_inputs() {
    let mut values = Values::new(5);
    let fixed = values.tensor(&[2, 5, 8]);
    let op = |xs: &[Tensor]| {
        let fixed = fixed.to_dtype(xs[0].dtype())?;
        attention(qkv(&fixed, &fixed, &fixed), 2, None, HeadGate::Full(&xs[0]))
    };
    check(&op, &[values.tensor(&[2, 2])], 1);
}

#[test]
fn nan_reaches_every_token_of_its_head_and_no_other() {
    let mut values = Values::new(6);
    let xs = values.tensor(&[1, 20, 32]).to_dtype(DType::F32).unwrap();
    let mut spoiled = flat(&xs);
    spoiled[7 * 32 + 3] = f64::NAN;
    let spoiled = Tensor::from_vec(spoiled, (1, 20, 32), xs.device()).unwrap();
    let spoiled = spoiled.to_dtype(DType::F32).unwrap();
    for (q, k, v) in [(&xs, &spoiled, &xs), (&xs, &xs, &spoiled)] {
        let ys = flat(&attention(qkv(q, k, v), 2, None, HeadGate::All).unwrap());
        for (at, y) in ys.iter().enumerate() {
            let first_head = at % 32 < 16;
            let expected = if std::ptr::eq(k, &raw const spoiled) {
                first_head
            } else {
                at % 32 == 3
            };
            assert_eq!(y.is_nan(), expected, "element {at}");
        }
    }
}

#[test]
fn huge_scores_stay_finite() {
    let xs = (Values::new(7).tensor(&[1, 20, 32]) * 1e4)
        .unwrap()
        .to_dtype(DType::F32)
        .unwrap();
    let ys = attention(qkv(&xs, &xs, &xs), 2, None, HeadGate::All).unwrap();
    assert!(flat(&ys).iter().all(|y| y.is_finite()));
}

#[test]
fn dropped_tokens_do_not_change_the_kept_ones() {
    let mut values = Values::new(8);
    let xs = values.tensor(&[1, 21, 32]).to_dtype(DType::F32).unwrap();
    let kept: Vec<u32> = vec![0, 3, 4, 9, 20];
    let ids = Tensor::new(kept.as_slice(), xs.device()).unwrap();
    let mut mask = vec![0f32; 21];
    for token in &kept {
        mask[*token as usize] = 1.0;
    }
    let mask = Tensor::from_vec(mask, (1, 21), xs.device()).unwrap();
    let masked = attention(qkv(&xs, &xs, &xs), 2, Some(&mask), HeadGate::All).unwrap();
    let few = xs.index_select(&ids, 1).unwrap();
    let gathered = attention(qkv(&few, &few, &few), 2, None, HeadGate::All).unwrap();
    let masked = masked.index_select(&ids, 1).unwrap();
    assert_eq!(flat(&masked), flat(&gathered), "the same bits");
}

#[test]
fn a_gate_near_zero_keeps_its_gradient() {
    let mut values = Values::new(11);
    let mut case = Case::new(&mut values, (2, 7), (2, 5));
    for scale in [1e-4, 1e-6] {
        case.inputs[3] = (values.tensor(&[2, 2]) * scale).unwrap();
        case.check(11);
    }
}

/// Multi-head attention of three heads with 5 channels, from x and the four weights.
fn multi_head(
    xs: &[Tensor],
    tokens: Option<&Tensor>,
    heads: HeadGate,
) -> candle_core::Result<Tensor> {
    let map = |index: usize| AffineMap {
        weight: &xs[index],
        bias: None,
    };
    let maps = AttentionMaps {
        query: map(1),
        key: map(2),
        value: map(3),
        proj: map(4),
    };
    multi_head_attention(&xs[0], &maps, 3, tokens, heads)
}

fn multi_head_inputs(values: &mut Values, (b, n): (usize, usize)) -> Vec<Tensor> {
    let mut inputs = vec![values.tensor(&[b, n, 11])];
    for _ in 0..3 {
        inputs.push((values.tensor(&[15, 11]) * 0.2).unwrap());
    }
    // Small, so that sums do not lose more digits than the tolerance has to terms that cancel.
    inputs.push((values.tensor(&[13, 15]) * 0.2).unwrap());
    inputs.push(values.mask(&[b, 3], 0.5));
    inputs
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn multi_head_attention_agrees(b in 0usize..4, n in 1usize..20, seed: u64) {
        let mut values = Values::new(seed);
        let inputs = multi_head_inputs(&mut values, (b, n));
        let tokens = values.token_mask(b, n, 0.5);
        check(&|xs| multi_head(xs, None, HeadGate::All), &inputs[..5], seed);
        let gated = |xs: &[Tensor]| {
            let tokens = tokens.to_dtype(xs[0].dtype())?;
            multi_head(xs, Some(&tokens), HeadGate::Full(&xs[5]))
        };
        check(&gated, &inputs, seed);
    }
}

#[test]
fn multi_head_attention_takes_inputs_that_are_not_contiguous() {
    let mut values = Values::new(12);
    let mut inputs = multi_head_inputs(&mut values, (2, 6));
    inputs[0] = values.tensor(&[6, 2, 11]);
    inputs[4] = values.tensor(&[15, 13]);
    let op = |xs: &[Tensor]| {
        let mut xs = xs.to_vec();
        (xs[0], xs[4]) = (xs[0].transpose(0, 1)?, xs[4].t()?);
        multi_head(&xs, None, HeadGate::Partial(&xs[5]))
    };
    check(&op, &inputs, 12);
}

#[test]
fn a_second_backward_of_multi_head_attention_gives_the_same_gradient() {
    let mut values = Values::new(13);
    let inputs = multi_head_inputs(&mut values, (2, 6));
    let narrow: Vec<Tensor> = inputs
        .iter()
        .map(|xs| xs.to_dtype(DType::F32).unwrap())
        .collect();
    let x = candle_core::Var::from_tensor(&narrow[0]).unwrap();
    let mut operands = narrow;
    operands[0] = x.as_tensor().clone();
    let loss = multi_head(&operands, None, HeadGate::All).unwrap();
    let loss = loss.sqr().unwrap().sum_all().unwrap();
    let gradient = || flat(loss.backward().unwrap().get(&x).unwrap());
    assert_eq!(gradient(), gradient());
}
