//! The sparse path against the masked one, which defines what a decision means.
#![expect(
    clippy::unwrap_used,
    reason = "the helpers here are test code, which clippy does not see"
)]

use adavit_decision::{
    BlockUsage, DecisionConfig, Gating, HardPolicy, HeadDeactivation, Policy, random_policy,
};
use adavit_gumbel::SeededNoise;
use adavit_model::{
    Capture, Checkpoint, ConvStemConfig, ModelConfig, PreparedTransformer, Strategy, T2tConfig,
    TokensType, VisionTransformer, Workspace, initial_tensors, is_decision_tensor,
};
use candle_core::{Device, Tensor};
use proptest::prelude::{Just, ProptestConfig, any, prop_assume, prop_oneof, proptest};
use proptest::strategy::Strategy as _;

/// Of the largest value: float32 rounding of sums in another order, through the blocks.
const TOLERANCE: f32 = 1e-5;

/// A model of random weights, both ways.
struct Model {
    config: ModelConfig,
    masked: VisionTransformer,
    sparse: PreparedTransformer,
    gathered: PreparedTransformer,
}

impl Model {
    fn new(config: ModelConfig, seed: u64) -> Self {
        let mut tensors = initial_tensors(&config, seed, 0.4).unwrap();
        for (name, tensor) in &mut tensors {
            let len = tensor.elem_count();
            if is_decision_tensor(name) && name.ends_with("weight") && tensor.rank() == 2 {
                // Wide, so that decisions differ between images and tokens.
                *tensor = (&*tensor * 50.0).unwrap();
            } else if name.ends_with("bias") {
                // Not zero, or what a bias does would go unseen.
                let values = (0..len).map(|i| (i as f32 * 1.7 + seed as f32).sin() * 0.2);
                let bias = Tensor::from_iter(values, &Device::Cpu).unwrap();
                *tensor = (&*tensor + bias.reshape(tensor.dims()).unwrap()).unwrap();
            }
        }
        let checkpoint = Checkpoint { config, tensors };
        Self {
            masked: checkpoint.model(&Device::Cpu).unwrap(),
            sparse: checkpoint.prepared(&Device::Cpu).unwrap(),
            gathered: checkpoint.gathered(&accelerator()).unwrap(),
            config: checkpoint.config,
        }
    }

    fn images(&self, b: usize, seed: u64) -> Tensor {
        let (height, width) = self.config.img_size;
        let in_chans = self.config.in_chans;
        let len = b * in_chans * height * width;
        let values = (0..len).map(|i| ((i * i % 9973) as f32 * 0.37 + seed as f32).sin());
        let values: Vec<f32> = values.collect();
        Tensor::from_vec(values, (b, in_chans, height, width), &Device::Cpu).unwrap()
    }

    /// Gates on with the given probability, drawn by `seed`.
    fn policy(&self, b: usize, keep: f64, seed: u64) -> Policy {
        let block = BlockUsage {
            tokens: keep,
            heads: keep,
            attention: keep,
            mlp: keep,
        };
        let samples: Vec<u64> = (0..b as u64).collect();
        let mut noise = SeededNoise::new(seed, 0, &samples);
        random_policy(
            self.config.decisions.as_ref().unwrap(),
            &self.config.geometry(),
            &vec![block; self.config.depth],
            &mut noise,
            b,
        )
        .unwrap()
    }

    fn macs(&self, policy: &HardPolicy) -> u64 {
        let decisions = self.config.decisions.as_ref().unwrap();
        let geometry = self.config.geometry();
        (0..policy.batch())
            .map(|image| geometry.image_macs(decisions, &policy.image_kept(image)))
            .sum()
    }

    fn check_policy(&mut self, images: &Tensor, policy: &Policy, workspace: &mut Workspace) {
        let b = images.dim(0).unwrap();
        let masked = self
            .masked
            .forward_policy(images, policy, Capture::default());
        let hard = HardPolicy::new(policy, &self.config.geometry(), b).unwrap();
        let expected = self.macs(&hard);
        let mut run = |strategy: Strategy| {
            self.sparse.set_strategy(strategy);
            let sparse = self.sparse.forward_sparse_policy(images, &hard, workspace);
            assert!(workspace.policy() == &hard);
            (sparse.unwrap(), workspace.take_macs())
        };
        let (exact, macs) = run(Strategy::Exact);
        assert_close(&exact, &masked.unwrap().logits);
        assert_eq!(macs, expected, "multiply-adds");
        for strategy in [Strategy::Whole, Strategy::Auto] {
            let (found, more) = run(strategy);
            assert!(values(&found) == values(&exact), "bits of {strategy:?}");
            assert!(more >= macs);
        }
        let moved = images.to_device(&accelerator()).unwrap();
        let gathered = self
            .gathered
            .forward_sparse_policy(&moved, &hard, workspace);
        assert_close(&gathered.unwrap(), &exact);
        assert!(workspace.policy() == &hard && workspace.take_macs() >= macs);
    }
}

/// CUDA or Metal where the program has it and the machine too, else the CPU.
fn accelerator() -> Device {
    match Device::cuda_if_available(0).unwrap() {
        Device::Cpu => Device::metal_if_available(0).unwrap(),
        device => device,
    }
}

fn values(xs: &Tensor) -> Vec<f32> {
    xs.flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_close(found: &Tensor, expected: &Tensor) {
    assert_eq!(found.dims(), expected.dims());
    let (found, expected) = (values(found), values(expected));
    let size = expected.iter().fold(1f32, |size, x| size.max(x.abs()));
    for (at, (x, y)) in found.iter().zip(&expected).enumerate() {
        assert!(
            (x - y).abs() <= TOLERANCE * size,
            "at {at}: {x}, expected {y}"
        );
    }
}

fn config(
    (num_heads, width): (usize, usize),
    ada_head: Option<HeadDeactivation>,
    [ada_token, ada_token_with_mlp, ada_layer, norm_policy]: [bool; 4],
    (keep_layers, ada_token_start_layer): (usize, usize),
) -> ModelConfig {
    ModelConfig {
        embed_dim: num_heads * width,
        depth: 3,
        num_heads,
        ..ModelConfig::preset("nano_patch7_28").unwrap()
    }
    .with_decisions(DecisionConfig {
        ada_token,
        ada_token_with_mlp,
        ada_token_start_layer,
        ada_head,
        ada_layer,
        keep_layers,
        norm_policy,
        ..DecisionConfig::default()
    })
}

/// What makes tokens of pixels.
#[derive(Debug, Clone, Copy)]
enum Stem {
    Patches,
    Convolutions,
    TokensToToken(TokensType),
}

/// The same blocks behind overlapping windows of a picture that is no square: 4x3 patches.
fn with_stem(config: ModelConfig, stem: Stem) -> ModelConfig {
    match stem {
        Stem::Patches => config,
        Stem::Convolutions => ModelConfig {
            img_size: (16, 12),
            patch_size: 4,
            in_chans: 2,
            conv_stem: Some(ConvStemConfig {
                channels: vec![5, 8, 6],
                strides: vec![2, 1, 2],
            }),
            ..config
        },
        Stem::TokensToToken(tokens_type) => ModelConfig {
            img_size: (60, 44),
            tokens_to_token: Some(T2tConfig {
                tokens_type,
                token_dim: 8,
            }),
            qkv_bias: false,
            ..config
        },
    }
}

fn variants() -> impl proptest::strategy::Strategy<Value = ModelConfig> {
    let heads = prop_oneof![
        Just(Some(HeadDeactivation::Full)),
        Just(Some(HeadDeactivation::Partial)),
        Just(Some(HeadDeactivation::HeadV2)),
        Just(None),
    ];
    let sizes = prop_oneof![
        Just((2, 8)),
        Just((3, 16)),
        Just((2, 24)),
        Just((1, 20)),
        Just((4, 32)),
    ];
    let decides = "no variant decides nothing";
    let stems = prop_oneof![
        3 => Just(Stem::Patches),
        2 => Just(Stem::Convolutions),
        1 => Just(Stem::TokensToToken(TokensType::Performer)),
        1 => Just(Stem::TokensToToken(TokensType::Transformer)),
    ];
    let first = (0usize..2, 0usize..2);
    (sizes, heads, any::<[bool; 4]>(), first, stems)
        .prop_map(|(sizes, heads, flags, first, stem)| {
            with_stem(config(sizes, heads, flags, first), stem)
        })
        .prop_filter(decides, |config| config.validate().is_ok())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sparse_equals_masked_under_any_policy(config in variants(), b in 0usize..10, seed: u64) {
        let mut model = Model::new(config, seed % 1000);
        let images = model.images(b, seed % 100);
        let mut workspace = Workspace::default();
        // All off leaves the class token alone; all on is the plain model.
        for keep in [0.0, 0.2, 0.5, 0.9, 1.0] {
            let policy = model.policy(b, keep, seed);
            model.check_policy(&images, &policy, &mut workspace);
        }
    }

    #[test]
    fn sparse_equals_masked_where_it_decides_itself(config in variants(), b in 1usize..7, seed: u64) {
        let mut model = Model::new(config, seed % 1000);
        let images = model.images(b, seed % 100);
        let masked = model.masked.forward_masked(&images, &mut Gating::Inference, Capture::default());
        let masked = masked.unwrap();
        let geometry = model.config.geometry();
        let policy = HardPolicy::new(&masked.policy(), &geometry, b).unwrap();
        prop_assume!(margin(&masked.decisions, &model.config) > 1e-3);
        let mut workspace = Workspace::default();
        model.sparse.set_strategy(Strategy::Exact);
        let sparse = model.sparse.forward_sparse(&images, &mut workspace).unwrap();
        assert!(workspace.policy() == &policy);
        assert_close(&sparse, &masked.logits);
        assert_eq!(workspace.take_macs(), model.macs(&policy));
        let gathered = model.gathered.forward_sparse(&images.to_device(&accelerator()).unwrap(), &mut workspace).unwrap();
        assert!(workspace.policy() == &policy);
        assert_close(&gathered, &masked.logits);
    }
}

/// How far the nearest logit is from its threshold.
fn margin(decisions: &[adavit_decision::Decision], config: &ModelConfig) -> f64 {
    let thresholds = config.decisions.as_ref().unwrap().thresholds;
    let logit = |p: f64| (p / (1.0 - p)).ln();
    let mut least = f64::INFINITY;
    for decision in decisions {
        let logits = &decision.logits;
        for (logits, threshold) in [
            (&logits.patches, thresholds.tokens),
            (&logits.heads, thresholds.heads),
            (&logits.sublayers, thresholds.blocks),
        ] {
            for value in logits.as_ref().map(values).unwrap_or_default() {
                least = least.min((f64::from(value) - logit(threshold)).abs());
            }
        }
    }
    least
}

const ALL: [bool; 4] = [true, true, true, false];

#[test]
fn one_kept_token_one_head_and_mixed_images_are_ordinary() {
    for mode in [
        HeadDeactivation::Full,
        HeadDeactivation::Partial,
        HeadDeactivation::HeadV2,
    ] {
        let mut model = Model::new(config((4, 16), Some(mode), ALL, (0, 0)), 3);
        let b = 6;
        let images = model.images(b, 1);
        let geometry = model.config.geometry();
        let gates = |width: usize, f: &dyn Fn(usize, usize) -> bool| {
            let bits = (0..b).flat_map(|i| (0..width).map(move |j| (i, j)));
            let bits: Vec<f32> = bits.map(|(i, j)| f32::from(u8::from(f(i, j)))).collect();
            Tensor::from_vec(bits, (b, width), &Device::Cpu).unwrap()
        };
        // Image 0 keeps all, 1 the class token, 2 one head, 3 no head, 4 no sub-layer, 5 some.
        let patches = gates(geometry.num_tokens - 1, &|i, j| {
            i != 1 && (i != 5 || j % 3 == 0)
        });
        let heads = gates(4, &|i, j| match i {
            2 => j == 2,
            3 => false,
            5 => j % 2 == 1,
            _ => true,
        });
        let sublayers = gates(2, &|i, j| i != 4 && (i != 5 || j == 1));
        let block = adavit_decision::BlockPolicy::new(Some(&patches), Some(heads), Some(sublayers));
        let policy = Policy {
            blocks: vec![block.unwrap(); 3],
        };
        model.check_policy(&images, &policy, &mut Workspace::default());
    }
}

/// Logits of each image of a batch.
fn rows(model: &PreparedTransformer, images: &Tensor, workspace: &mut Workspace) -> Vec<Vec<f32>> {
    let logits = model.forward_sparse(images, workspace).unwrap();
    logits.to_vec2().unwrap()
}

#[test]
fn an_image_has_the_same_bits_in_any_batch_and_for_any_number_of_threads() {
    for stem in [
        Stem::Patches,
        Stem::Convolutions,
        Stem::TokensToToken(TokensType::Performer),
        Stem::TokensToToken(TokensType::Transformer),
    ] {
        let config = config((4, 16), Some(HeadDeactivation::Full), ALL, (1, 0));
        assert_same_bits(&Model::new(with_stem(config, stem), 11));
    }
}

fn assert_same_bits(model: &Model) {
    let images = model.images(64, 2);
    let pool = |n: usize| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(n)
            .build()
            .unwrap()
    };
    let n = model.config.num_tokens();
    let mut workspace = Workspace::default();
    let together = rows(&model.sparse, &images, &mut workspace);
    let kept: usize = (0..64)
        .flat_map(|image| workspace.policy().image_kept(image))
        .map(|kept| kept.tokens())
        .sum();
    assert!(kept > 64 * 3 && kept < 64 * 3 * n, "a ragged batch");
    let policy = workspace.policy().clone();
    for threads in [1, 2, 3, 4] {
        let mut workspace = Workspace::default();
        let found = pool(threads).install(|| rows(&model.sparse, &images, &mut workspace));
        assert!(found == together, "{threads} threads");
        assert!(*workspace.policy() == policy, "{threads} threads: policy");
    }
    for (image, expected) in together.iter().enumerate().step_by(7) {
        let alone = images.narrow(0, image, 1).unwrap();
        assert!(
            rows(&model.sparse, &alone, &mut workspace)[0] == *expected,
            "image {image} alone"
        );
        let few = images.narrow(0, image.saturating_sub(3), 4).unwrap();
        let place = image.min(3);
        let found = rows(&model.sparse, &few, &mut workspace);
        assert!(found[place] == *expected, "image {image} at {place}");
    }
}

#[test]
fn one_workspace_serves_other_models_and_batches() {
    let model = |img_size, channels: [usize; 3], seed| {
        let config = config((2, 16), Some(HeadDeactivation::Full), ALL, (0, 0));
        let stem = ConvStemConfig {
            channels: channels.to_vec(),
            strides: vec![2, 1, 2],
        };
        let config = ModelConfig {
            img_size,
            conv_stem: Some(stem),
            ..with_stem(config, Stem::Convolutions)
        };
        Model::new(config, seed)
    };
    // Sides and channels change places, so that buffers are about as long.
    let models = [
        model((16, 12), [5, 8, 6], 1),
        model((12, 16), [5, 8, 6], 2),
        model((16, 12), [8, 5, 6], 3),
    ];
    let mut workspace = Workspace::default();
    for (b, model) in [1, 9, 2, 7]
        .into_iter()
        .flat_map(|b| models.iter().map(move |m| (b, m)))
    {
        let images = model.images(b, b as u64);
        let found = rows(&model.sparse, &images, &mut workspace);
        let expected = rows(&model.sparse, &images, &mut Workspace::default());
        assert!(
            found == expected,
            "{b} images of {:?}",
            model.config.img_size
        );
    }
}

#[test]
fn two_threads_share_a_model() {
    let model = Model::new(
        config((2, 16), Some(HeadDeactivation::HeadV2), ALL, (1, 0)),
        4,
    );
    let images = model.images(9, 5);
    let run = || {
        let mut workspace = Workspace::default();
        let dense = model.sparse.forward_dense(&images, &mut workspace).unwrap();
        let sparse = (0..5).map(|_| rows(&model.sparse, &images, &mut workspace));
        (values(&dense), sparse.collect::<Vec<_>>())
    };
    let expected = run();
    std::thread::scope(|scope| {
        let threads = [scope.spawn(run), scope.spawn(run)];
        for thread in threads {
            assert!(thread.join().unwrap() == expected);
        }
    });
}

#[test]
fn a_logit_that_is_nan_spoils_its_image_alone() {
    let model = Model::new(config((2, 16), None, ALL, (1, 0)), 6);
    let images = model.images(3, 7);
    let mut pixels = values(&images);
    pixels[784 + 300] = f32::NAN;
    let images = Tensor::from_vec(pixels, images.dims(), &Device::Cpu).unwrap();
    for (model, device) in [
        (&model.sparse, Device::Cpu),
        (&model.gathered, accelerator()),
    ] {
        let images = images.to_device(&device).unwrap();
        let found = rows(model, &images, &mut Workspace::default());
        for (image, logits) in found.iter().enumerate() {
            let all = logits.iter().all(|logit| logit.is_nan());
            let none = logits.iter().all(|logit| logit.is_finite());
            assert!(if image == 1 { all } else { none }, "image {image}");
        }
    }
}

#[test]
fn policies_that_do_not_fit_are_refused() {
    let model = Model::new(
        config((2, 16), Some(HeadDeactivation::Full), ALL, (1, 0)),
        8,
    );
    let (images, geometry) = (model.images(2, 1), model.config.geometry());
    let refused = |policy: &HardPolicy| {
        let found = model
            .sparse
            .forward_sparse_policy(&images, policy, &mut Workspace::default());
        found.unwrap_err().to_string()
    };
    assert!(refused(&HardPolicy::all(&geometry, 3)).contains("of 2 images"));
    let mut kept_layer = HardPolicy::all(&geometry, 2);
    kept_layer.heads_mut(0, 0)[1] = false;
    assert!(refused(&kept_layer).contains("block 0"));
}
