//! NaN in, NaN out, at every level: where a NaN among the inputs arrives, forward and backward, and
//! where it does not.

use adavit_kernels_testing::{Evaluation, Op, Values, evaluate, flat};
use candle_core::{DType, Result, Tensor};

use crate::args::{HeadGate, Qkv};
use crate::composed;
use crate::cpu::simd::Level;
use crate::ops::activation::{gelu_at, softmax_at};
use crate::ops::attention::class::class_attention_at;
use crate::ops::attention::qkv::attention_at;
use crate::ops::cross_entropy::cross_entropy_at;
use crate::ops::gate::{gate_groups_at, gate_tokens_at, gated_residual_at};
use crate::ops::layer_norm::layer_norm_at;
use crate::ops::linear::{linear_at, linear_gelu_at};

/// Images, tokens, channels: rows end within a vector.
const DIMS: [usize; 3] = [2, 13, 37];
/// Row 3 of image 1, channel 35, which lies behind the last whole vector.
const AT: usize = (13 + 3) * 37 + 35;
const ROW: usize = AT / 37;

/// Returns `xs` with NaN at the given place.
fn spoil(xs: &Tensor, at: usize) -> Tensor {
    let mut values = flat(xs);
    values[at] = f64::NAN;
    Tensor::from_vec(values, xs.dims(), xs.device()).unwrap()
}

fn narrow(xs: &Tensor) -> Tensor {
    xs.to_dtype(DType::F32).unwrap()
}

fn run(op: Op, inputs: &[Tensor]) -> Evaluation {
    let weights = Values::new(1).tensor(
        op(&inputs.iter().map(narrow).collect::<Vec<_>>())
            .unwrap()
            .dims(),
    );
    evaluate(op, inputs, &weights, DType::F32)
}

/// Fails unless exactly the elements that `expected` picks are NaN.
fn assert_nan(what: &str, found: &Tensor, expected: impl Fn(usize) -> bool) {
    for (at, x) in flat(found).into_iter().enumerate() {
        assert_eq!(x.is_nan(), expected(at), "{what} at {at}: {x}");
    }
}

#[test]
fn elementwise_operations_keep_nan_where_it_is() {
    let mut values = Values::new(2);
    let xs = spoil(&values.tensor(&DIMS), AT);
    let (ones, groups) = (values.tensor(&DIMS[..2]), values.tensor(&[2, 1]));
    for level in Level::available() {
        let found = run(&|xs| gelu_at(level, &xs[0]), std::slice::from_ref(&xs));
        assert_nan("gelu", &found.output, |at| at == AT);
        assert_nan("gelu gradient", &found.gradients[0], |at| at == AT);
        let inputs = [xs.clone(), ones.clone()];
        let found = run(&|xs| gate_tokens_at(level, &xs[0], &xs[1]), &inputs);
        assert_nan("gate_tokens", &found.output, |at| at == AT);
        assert_nan("token gates", &found.gradients[1], |at| at == ROW);
        let inputs = [xs.clone(), groups.clone()];
        let found = run(&|xs| gate_groups_at(level, &xs[0], &xs[1]), &inputs);
        assert_nan("gate_groups", &found.output, |at| at == AT);
        assert_nan("group gates", &found.gradients[1], |at| at == 1);
    }
}

#[test]
fn a_gate_of_zero_does_not_hide_nan_nor_a_nan_gate_its_rows() {
    let xs = Values::new(3).tensor(&DIMS);
    let (zeros, images) = (xs.zeros_like().unwrap(), xs.zeros_like().unwrap());
    let zeros = zeros.narrow(2, 0, 1).unwrap().squeeze(2).unwrap();
    let images = images.flatten_all().unwrap().narrow(0, 0, 2).unwrap();
    for level in Level::available() {
        let op = |xs: &[Tensor]| gated_residual_at(level, &xs[0], &xs[1], &xs[2]);
        let found = run(&op, &[xs.clone(), spoil(&xs, AT), zeros.clone()]);
        assert_nan("value, gate 0", &found.output, |at| at == AT);
        assert_nan("its gate", &found.gradients[2], |at| at == ROW);
        let found = run(&op, &[xs.clone(), xs.clone(), spoil(&zeros, ROW)]);
        assert_nan("token gate", &found.output, |at| at / 37 == ROW);
        assert_nan("token gate: gradient", &found.gradients[1], |at| {
            at / 37 == ROW
        });
        let found = run(&op, &[xs.clone(), xs.clone(), spoil(&images, 1)]);
        assert_nan("image gate", &found.output, |at| at / (13 * 37) == 1);
        let op = |xs: &[Tensor]| gate_tokens_at(level, &xs[0], &xs[1]);
        let found = run(&op, &[xs.clone(), spoil(&zeros, ROW)]);
        assert_nan("gate_tokens", &found.output, |at| at / 37 == ROW);
        let groups = images.reshape((2, 1)).unwrap();
        let op = |xs: &[Tensor]| gate_groups_at(level, &xs[0], &xs[1]);
        let found = run(&op, &[xs.clone(), spoil(&groups, 0)]);
        assert_nan("gate_groups", &found.output, |at| at / (13 * 37) == 0);
    }
}

#[test]
fn softmax_and_layer_norm_give_nan_in_that_row_only() {
    let mut values = Values::new(4);
    let clean = values.tensor(&DIMS);
    let (weight, bias) = (values.tensor(&[37]), values.tensor(&[37]));
    let in_row = |at: usize| at / 37 == ROW;
    // Every lane, the first place, and behind the last whole vector.
    for at in (ROW * 37..(ROW + 1) * 37).step_by(3) {
        let xs = spoil(&clean, at);
        for level in Level::available() {
            let found = run(&|xs| softmax_at(level, &xs[0]), std::slice::from_ref(&xs));
            assert_nan("softmax", &found.output, in_row);
            assert_nan("softmax gradient", &found.gradients[0], in_row);
            let op = |xs: &[Tensor]| layer_norm_at(level, &xs[0], &xs[1], &xs[2], 1e-6);
            let found = run(&op, &[xs.clone(), weight.clone(), bias.clone()]);
            assert_nan("layer_norm", &found.output, in_row);
            assert_nan("layer_norm gradient", &found.gradients[0], in_row);
            assert_nan("layer_norm weight", &found.gradients[1], |_| true);
            assert_nan("layer_norm bias", &found.gradients[2], |_| false);
        }
    }
}

#[test]
fn a_row_of_nan_alone_gives_nan() {
    let xs = (Values::new(5).tensor(&[1, 1, 21]) * f64::NAN).unwrap();
    for level in Level::available() {
        let found = run(&|xs| softmax_at(level, &xs[0]), std::slice::from_ref(&xs));
        assert_nan("softmax", &found.output, |_| true);
    }
}

#[test]
fn linear_maps_give_nan_in_that_row_and_the_weight_gradient() {
    let mut values = Values::new(6);
    let xs = spoil(&values.tensor(&DIMS), AT);
    let (weight, bias) = (values.tensor(&[19, 37]), values.tensor(&[19]));
    let inputs = [xs, weight, bias];
    for level in Level::available() {
        let op = |xs: &[Tensor]| linear_at(level, &xs[0], &xs[1], Some(&xs[2]));
        let found = run(&op, &inputs);
        assert_nan("linear", &found.output, |at| at / 19 == ROW);
        assert_nan("linear weight", &found.gradients[1], |at| at % 37 == 35);
        let op = |xs: &[Tensor]| linear_gelu_at(level, &xs[0], &xs[1], &xs[2]);
        let found = run(&op, &inputs);
        assert_nan("linear_gelu", &found.output, |at| at / 19 == ROW);
        assert_nan("linear_gelu: x", &found.gradients[0], |at| at / 37 == ROW);
        assert_nan("linear_gelu: bias", &found.gradients[2], |_| true);
        let spoiled = [inputs[1].clone(), inputs[1].clone(), spoil(&inputs[2], 4)];
        let found = run(&op, &spoiled);
        assert_nan("bias", &found.output, |at| at % 19 == 4);
    }
}

#[test]
fn cross_entropy_gives_nan_for_a_logit_or_a_target() {
    let mut values = Values::new(7);
    let logits = values.tensor(&[5, 21]);
    // All on class 0, so the NaN logit has target 0.
    let mut targets = vec![0f64; 5 * 21];
    targets
        .iter_mut()
        .step_by(21)
        .for_each(|target| *target = 1.0);
    let targets = Tensor::from_vec(targets, (5, 21), logits.device()).unwrap();
    let at = 2 * 21 + 20;
    for level in Level::available() {
        let loss = |logits: &Tensor, targets: &Tensor| {
            let targets = narrow(targets);
            run(
                &|xs| cross_entropy_at(level, &xs[0], &targets),
                std::slice::from_ref(logits),
            )
        };
        let found = loss(&spoil(&logits, at), &targets);
        assert_nan("logit", &found.output, |_| true);
        assert_nan("logit: gradient", &found.gradients[0], |at| at / 21 == 2);
        let found = loss(&logits, &spoil(&targets, at));
        assert_nan("target", &found.output, |_| true);
        assert_nan("target: gradient", &found.gradients[0], |at| at / 21 == 2);
    }
}

/// Two images of 9 tokens and 2 heads of 21 channels; image 1 has tokens 2 and 5 dropped, and its
/// head 0 off.
struct Masked {
    tokens: Tensor,
    inputs: [Tensor; 4],
}

const WIDTH: usize = 42;

/// The place of the last channel of a head of a token of image 1.
fn place(token: usize, head: usize) -> usize {
    (9 + token) * WIDTH + head * 21 + 20
}

/// Image, token, head and channel of an element.
fn parts(at: usize) -> (usize, usize, usize, usize) {
    let (row, channel) = (at / WIDTH, at % WIDTH);
    (row / 9, row % 9, channel / 21, channel % 21)
}

fn dropped(token: usize) -> bool {
    token == 2 || token == 5
}

impl Masked {
    fn new() -> Self {
        let mut values = Values::new(8);
        let mut tokens = vec![1f64; 18];
        (tokens[9 + 2], tokens[9 + 5]) = (0.0, 0.0);
        let gates = vec![1f64, 0.7, 0.0, 1.0];
        let [q, k, v] = [(); 3].map(|()| values.tensor(&[2, 9, WIDTH]));
        let device = q.device().clone();
        let gates = Tensor::from_vec(gates, (2, 2), &device).unwrap();
        Self {
            tokens: Tensor::from_vec(tokens, (2, 9), &device).unwrap(),
            inputs: [q, k, v, gates],
        }
    }

    /// Runs attention with input `index` spoiled at a place; all heads are on without `gates`.
    fn attend(
        &self,
        level: Level,
        gates: Option<ToGate>,
        (index, at): (usize, usize),
    ) -> Evaluation {
        let mut inputs = self.inputs.to_vec();
        inputs[index] = spoil(&inputs[index], at);
        let n_inputs = if gates.is_some() { 4 } else { 3 };
        let tokens = narrow(&self.tokens);
        let op = |xs: &[Tensor]| -> Result<Tensor> {
            let heads = gates.map_or(HeadGate::All, |gate| gate(&xs[xs.len() - 1]));
            let qkv = Qkv {
                q: &xs[0],
                k: &xs[1],
                v: &xs[2],
            };
            attention_at(level, qkv, 2, Some(&tokens), heads)
        };
        run(&op, &inputs[..n_inputs])
    }
}

/// The head gates for a tensor of gates.
type ToGate = fn(&Tensor) -> HeadGate<'_>;
const FULL: ToGate = |gates| HeadGate::Full(gates);
const PARTIAL: ToGate = |gates| HeadGate::Partial(gates);

#[test]
fn nan_in_a_kept_token_reaches_what_attends_to_it() {
    let case = Masked::new();
    for level in Level::available() {
        for gates in [None, Some(FULL), Some(PARTIAL)] {
            let in_head = |at: usize| matches!(parts(at), (1, token, 1, _) if !dropped(token));
            let found = case.attend(level, gates, (0, place(3, 1)));
            assert_nan("q", &found.output, |at| in_head(at) && parts(at).1 == 3);
            assert_nan("q: gradient of k", &found.gradients[1], in_head);
            assert_nan("q: gradient of v", &found.gradients[2], in_head);
            let found = case.attend(level, gates, (1, place(3, 1)));
            assert_nan("k", &found.output, in_head);
            assert_nan("k: gradient of q", &found.gradients[0], in_head);
            let found = case.attend(level, gates, (2, place(3, 1)));
            assert_nan("v", &found.output, |at| in_head(at) && parts(at).3 == 20);
            assert_nan("v: gradient of q", &found.gradients[0], in_head);
            if gates.is_some() {
                assert_nan("v: gradient of gates", &found.gradients[3], |at| at == 3);
            }
        }
    }
}

#[test]
fn what_is_masked_out_is_not_read() {
    let case = Masked::new();
    for level in Level::available() {
        for gates in [None, Some(FULL), Some(PARTIAL)] {
            for index in 0..3 {
                let at = place(5, 1);
                // A dropped token still gives its own value.
                let found = case.attend(level, gates, (index, at));
                assert_nan("dropped", &found.output, |y| index == 2 && y == at);
                for gradient in &found.gradients[..3] {
                    assert_nan("dropped: gradient", gradient, |_| false);
                }
            }
        }
        for index in 0..3 {
            let at = place(3, 0);
            let found = case.attend(level, Some(FULL), (index, at));
            for xs in std::iter::once(&found.output).chain(&found.gradients) {
                assert_nan("off", xs, |_| false);
            }
            let found = case.attend(level, Some(PARTIAL), (index, at));
            assert_nan("partly off", &found.output, |y| index == 2 && y == at);
            for gradient in &found.gradients[..3] {
                assert_nan("partly off: gradient", gradient, |_| false);
            }
            // What attention would have given counts for its gate.
            assert_nan("partly off: gate", &found.gradients[3], |at| at == 2);
        }
    }
}

#[test]
fn nan_gates_reach_what_they_gate() {
    let case = Masked::new();
    let unknown = Masked {
        tokens: spoil(&case.tokens, 9 + 5),
        ..Masked::new()
    };
    for level in Level::available() {
        let kept = |at: usize| matches!(parts(at), (1, token, 1, _) if !dropped(token));
        let found = case.attend(level, Some(PARTIAL), (3, 3));
        assert_nan("partial", &found.output, kept);
        let found = case.attend(level, Some(FULL), (3, 3));
        assert_nan("full", &found.output, |at| {
            matches!(parts(at), (1, _, 1, _))
        });
        // Spoiled again within the same image, which changes nothing.
        let spoiled = (0, place(1, 1));
        let found = unknown.attend(level, None, spoiled);
        assert_nan("token gate", &found.output, |at| parts(at).0 == 1);
        let found = unknown.attend(level, Some(PARTIAL), spoiled);
        assert_nan("token gate, partial", &found.output, |at| parts(at).0 == 1);
        let found = unknown.attend(level, Some(FULL), spoiled);
        assert_nan("token gate, full", &found.output, |at| {
            matches!(parts(at), (1, _, 1, _))
        });
    }
}

#[test]
fn class_attention_gives_nan_to_what_the_class_token_sees() {
    let case = Masked::new();
    let attend = |level: Level, tokens: &Tensor, (index, at): (usize, usize)| {
        let mut inputs = case.inputs[..2].to_vec();
        inputs[index] = spoil(&inputs[index], at);
        let tokens = narrow(tokens);
        run(
            &|xs| class_attention_at(level, &xs[0], &xs[1], 2, Some(&tokens)),
            &inputs,
        )
    };
    // Elements of (B, H, N).
    let seen = |at: usize| at / 9 == 3 && !dropped(at % 9);
    for level in Level::available() {
        for spoiled in [(0, place(0, 1)), (1, place(3, 1)), (1, place(0, 1))] {
            let found = attend(level, &case.tokens, spoiled);
            assert_nan("class", &found.output, seen);
        }
        for spoiled in [(0, place(3, 1)), (0, place(5, 1)), (1, place(5, 1))] {
            let found = attend(level, &case.tokens, spoiled);
            assert_nan("class, not read", &found.output, |_| false);
            assert_nan("class, not read: q", &found.gradients[0], |_| false);
            assert_nan("class, not read: k", &found.gradients[1], |_| false);
        }
        let found = attend(level, &spoil(&case.tokens, 9 + 3), (0, place(3, 1)));
        assert_nan("class, token gate", &found.output, |at| {
            at >= 18 && !dropped(at % 9)
        });
    }
}

#[test]
fn nan_in_a_token_gate_reaches_its_image_on_the_composed_path() {
    let case = Masked::new();
    let [q, k, v, _] = &case.inputs;
    let tokens = spoil(&case.tokens, 9 + 5);
    let ys = composed::attention(Qkv { q, k, v }, 2, Some(&tokens), HeadGate::All);
    assert_nan("attention", &ys.unwrap(), |at| parts(at).0 == 1);
    let ps = composed::class_attention(q, k, 2, Some(&tokens)).unwrap();
    assert_nan("class attention", &ps, |at| at >= 18);
}
