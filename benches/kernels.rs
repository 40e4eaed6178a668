//! Each operation of `adavit-kernels` against the same in candle's own operations, forward and
//! backward, at the shapes of a nano model and of DeiT-S.

use std::time::Duration;

use adavit_benches::numbers;
use adavit_kernels::{self as kernels, AffineMap, AttentionMaps, HeadGate, MlpMaps, Qkv, composed};
use candle_core::{Device, Result, Tensor, Var};
use criterion::{Criterion, criterion_group, criterion_main};

/// An operation on its inputs.
type Op = Box<dyn Fn(&[Tensor]) -> Result<Tensor>>;

/// The sizes of a model.
struct Sizes {
    preset: &'static str,
    batch: usize,
    tokens: usize,
    width: usize,
    hidden: usize,
    heads: usize,
    /// Channels and side of an image, and side of a patch.
    image: (usize, usize, usize),
    classes: usize,
}

const SIZES: [Sizes; 2] = [
    Sizes {
        preset: "nano_patch4_28",
        batch: 32,
        tokens: 50,
        width: 64,
        hidden: 256,
        heads: 4,
        image: (1, 28, 4),
        classes: 10,
    },
    Sizes {
        preset: "deit_small_patch16_224",
        batch: 2,
        tokens: 197,
        width: 384,
        hidden: 1536,
        heads: 6,
        image: (3, 224, 16),
        classes: 1000,
    },
];

/// What an input holds.
enum Input {
    Numbers(Vec<usize>),
    /// 0 or 1; the first of each row is 1, as for a class token.
    Gates(Vec<usize>),
}

impl Input {
    fn tensor(&self) -> Tensor {
        match self {
            Input::Numbers(shape) => numbers(shape).expect("numbers of a shape"),
            Input::Gates(shape) => {
                let last = shape.last().copied().unwrap_or(1);
                let count: usize = shape.iter().product();
                let gate = |i: usize| f32::from(u8::from(i.is_multiple_of(last) || i % 5 < 2));
                let values: Vec<f32> = (0..count).map(gate).collect();
                Tensor::from_vec(values, shape.as_slice(), &Device::Cpu).expect("gates of a shape")
            }
        }
    }
}

/// An operation, its composed twin, and their inputs.
struct Case {
    name: &'static str,
    fused: Op,
    composed: Op,
    inputs: Vec<Input>,
}

fn case(
    name: &'static str,
    fused: impl Fn(&[Tensor]) -> Result<Tensor> + 'static,
    composed: impl Fn(&[Tensor]) -> Result<Tensor> + 'static,
    inputs: Vec<Input>,
) -> Case {
    Case {
        name,
        fused: Box::new(fused),
        composed: Box::new(composed),
        inputs,
    }
}

fn products(sizes: &Sizes) -> Vec<Case> {
    let (c, r) = (sizes.width, sizes.hidden);
    let tokens = |width| Input::Numbers(vec![sizes.batch, sizes.tokens, width]);
    let layer = |n_in, n_out| {
        [
            Input::Numbers(vec![n_out, n_in]),
            Input::Numbers(vec![n_out]),
        ]
    };
    let with = |first, layers: Vec<[Input; 2]>| {
        std::iter::once(first)
            .chain(layers.into_iter().flatten())
            .collect()
    };
    vec![
        case(
            "linear",
            |xs| kernels::linear(&xs[0], &xs[1], Some(&xs[2])),
            |xs| composed::linear(&xs[0], &xs[1], Some(&xs[2])),
            with(tokens(c), vec![layer(c, c)]),
        ),
        case(
            "linear_gelu",
            |xs| kernels::linear_gelu(&xs[0], &xs[1], &xs[2]),
            |xs| composed::gelu(&composed::linear(&xs[0], &xs[1], Some(&xs[2]))?),
            with(tokens(c), vec![layer(c, r)]),
        ),
        case(
            "gelu_linear",
            |xs| kernels::gelu_linear(&xs[0], &xs[1], &xs[2]),
            |xs| composed::linear(&composed::gelu(&xs[0])?, &xs[1], Some(&xs[2])),
            with(tokens(r), vec![layer(r, c)]),
        ),
        case(
            "mlp",
            |xs| {
                let maps = MlpMaps {
                    fc1_weight: &xs[1],
                    fc1_bias: &xs[2],
                    fc2_weight: &xs[3],
                    fc2_bias: &xs[4],
                };
                kernels::mlp(&xs[0], &maps)
            },
            |xs| {
                let hidden = composed::linear(&xs[0], &xs[1], Some(&xs[2]))?;
                composed::linear(&composed::gelu(&hidden)?, &xs[3], Some(&xs[4]))
            },
            with(tokens(c), vec![layer(c, r), layer(r, c)]),
        ),
    ]
}

/// Weights are inputs 1 to 4, biases 5 to 8.
fn maps(xs: &[Tensor]) -> AttentionMaps<'_> {
    let map = |index: usize| AffineMap {
        weight: &xs[index],
        bias: Some(&xs[index + 4]),
    };
    AttentionMaps {
        query: map(1),
        key: map(2),
        value: map(3),
        proj: map(4),
    }
}

/// Queries, keys and values are inputs 0 to 2.
fn qkv(xs: &[Tensor]) -> Qkv<'_> {
    Qkv {
        q: &xs[0],
        k: &xs[1],
        v: &xs[2],
    }
}

fn multi_head_attention(sizes: &Sizes) -> Case {
    let (c, h) = (sizes.width, sizes.heads);
    let mut inputs = vec![Input::Numbers(vec![sizes.batch, sizes.tokens, c])];
    inputs.extend((0..4).map(|_| Input::Numbers(vec![c, c])));
    inputs.extend((0..4).map(|_| Input::Numbers(vec![c])));
    case(
        "multi_head_attention",
        move |xs| kernels::multi_head_attention(&xs[0], &maps(xs), h, None, HeadGate::All),
        move |xs| composed::multi_head_attention(&xs[0], &maps(xs), h, None, HeadGate::All),
        inputs,
    )
}

fn attentions(sizes: &Sizes) -> Vec<Case> {
    let (b, n, h) = (sizes.batch, sizes.tokens, sizes.heads);
    let tokens = || Input::Numbers(vec![b, n, sizes.width]);
    vec![
        multi_head_attention(sizes),
        case(
            "attention",
            move |xs| kernels::attention(qkv(xs), h, None, HeadGate::All),
            move |xs| composed::attention(qkv(xs), h, None, HeadGate::All),
            vec![tokens(), tokens(), tokens()],
        ),
        case(
            "attention_masked",
            move |xs| {
                let (qkv, mask) = (qkv(xs), xs[4].detach());
                kernels::attention(qkv, h, Some(&mask), HeadGate::Full(&xs[3]))
            },
            move |xs| {
                let (qkv, mask) = (qkv(xs), xs[4].detach());
                composed::attention(qkv, h, Some(&mask), HeadGate::Full(&xs[3]))
            },
            vec![
                tokens(),
                tokens(),
                tokens(),
                Input::Gates(vec![b, h]),
                Input::Gates(vec![b, n]),
            ],
        ),
        case(
            "class_attention",
            move |xs| kernels::class_attention(&xs[0], &xs[1], h, None),
            move |xs| composed::class_attention(&xs[0], &xs[1], h, None),
            vec![tokens(), tokens()],
        ),
    ]
}

fn rows(sizes: &Sizes) -> Vec<Case> {
    let (b, n, c) = (sizes.batch, sizes.tokens, sizes.width);
    let shape = |shape: &[usize]| Input::Numbers(shape.to_vec());
    let (channels, side, patch) = sizes.image;
    vec![
        case(
            "layer_norm",
            |xs| kernels::layer_norm(&xs[0], &xs[1], &xs[2], 1e-6),
            |xs| composed::layer_norm(&xs[0], &xs[1], &xs[2], 1e-6),
            vec![shape(&[b, n, c]), shape(&[c]), shape(&[c])],
        ),
        case(
            "gelu",
            |xs| kernels::gelu(&xs[0]),
            |xs| composed::gelu(&xs[0]),
            vec![shape(&[b, n, sizes.hidden])],
        ),
        case(
            "softmax",
            |xs| kernels::softmax(&xs[0]),
            |xs| composed::softmax(&xs[0]),
            vec![shape(&[b, sizes.heads, n, n])],
        ),
        case(
            "cross_entropy",
            |xs| kernels::cross_entropy(&xs[0], &xs[1]),
            |xs| composed::cross_entropy(&xs[0], &xs[1].detach()),
            vec![shape(&[b, sizes.classes]), shape(&[b, sizes.classes])],
        ),
        case(
            "patchify",
            move |xs| kernels::patchify(&xs[0], patch),
            move |xs| composed::patchify(&xs[0], patch),
            vec![shape(&[b, channels, side, side])],
        ),
    ]
}

fn gates(sizes: &Sizes) -> Vec<Case> {
    let (b, n) = (sizes.batch, sizes.tokens);
    let tokens = || Input::Numbers(vec![b, n, sizes.width]);
    vec![
        case(
            "gate_tokens",
            |xs| kernels::gate_tokens(&xs[0], &xs[1]),
            |xs| composed::gate_tokens(&xs[0], &xs[1]),
            vec![tokens(), Input::Gates(vec![b, n])],
        ),
        case(
            "gate_groups",
            |xs| kernels::gate_groups(&xs[0], &xs[1]),
            |xs| composed::gate_groups(&xs[0], &xs[1]),
            vec![tokens(), Input::Gates(vec![b, sizes.heads])],
        ),
        case(
            "gated_residual",
            |xs| kernels::gated_residual(&xs[0], &xs[1], &xs[2]),
            |xs| composed::gated_residual(&xs[0], &xs[1], &xs[2]),
            vec![tokens(), tokens(), Input::Gates(vec![b])],
        ),
    ]
}

fn once(op: &Op, inputs: &[Tensor], backward: bool) -> Result<()> {
    let output = op(inputs)?;
    if backward {
        output.sum_all()?.backward()?;
    }
    Ok(())
}

fn kernels(c: &mut Criterion) {
    adavit_benches::set_threads();
    for sizes in &SIZES {
        let families = [products, attentions, rows, gates];
        for case in families.iter().flat_map(|family| family(sizes)) {
            let mut group = c.benchmark_group(format!("kernels/{}/{}", case.name, sizes.preset));
            group
                .sample_size(10)
                .warm_up_time(Duration::from_millis(100))
                .measurement_time(Duration::from_millis(400));
            let plain: Vec<Tensor> = case.inputs.iter().map(Input::tensor).collect();
            let tracked: Vec<Tensor> = plain
                .iter()
                .map(|xs| Var::from_tensor(xs).expect("a variable").into_inner())
                .collect();
            for (name, op) in [("fused", &case.fused), ("composed", &case.composed)] {
                group.bench_function(format!("{name} forward"), |b| {
                    b.iter(|| once(op, &plain, false).expect("shapes that fit"));
                });
                group.bench_function(format!("{name} forward and backward"), |b| {
                    b.iter(|| once(op, &tracked, true).expect("shapes that fit"));
                });
            }
            group.finish();
        }
    }
}

criterion_group!(benches, kernels);
criterion_main!(benches);
