//! A small model of random weights, by every path.

use adavit_decision::{
    BlockUsage, Decision, DecisionConfig, HardPolicy, HeadDeactivation, Policy, random_policy,
};
use adavit_gumbel::SeededNoise;
use adavit_model::{
    Capture, Checkpoint, ConvStemConfig, ModelConfig, PreparedTransformer, Stem, Strategy,
    T2tConfig, TokensType, VisionTransformer, Workspace, initial_tensors, is_budget_tensor,
};
use candle_core::{Device, Tensor};
use proptest::prelude::{Just, any, prop_oneof};
use proptest::strategy::Strategy as _;

use crate::common::{images, values, widen_decisions};

/// Of the largest value: float32 rounding of sums in another order, through the blocks.
const TOLERANCE: f32 = 1e-5;

/// A model of random weights, both ways.
pub(crate) struct Model {
    pub(crate) config: ModelConfig,
    pub(crate) masked: VisionTransformer,
    pub(crate) sparse: PreparedTransformer,
    pub(crate) gathered: PreparedTransformer,
}

impl Model {
    pub(crate) fn new(config: ModelConfig, seed: u64) -> Self {
        let mut tensors = initial_tensors(&config, seed, 0.4).unwrap();
        widen_decisions(&mut tensors);
        for (name, tensor) in &mut tensors {
            if name.ends_with("bias") || is_budget_tensor(name) {
                // Not zero, or what it does would go unseen.
                let values =
                    (0..tensor.elem_count()).map(|i| (i as f32 * 1.7 + seed as f32).sin() * 0.2);
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

    pub(crate) fn images(&self, b: usize, seed: u64) -> Tensor {
        images(&self.config, b, seed)
    }

    /// Gates on with the given probability, drawn by `seed`.
    pub(crate) fn policy(&self, b: usize, keep: f64, seed: u64) -> Policy {
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

    pub(crate) fn macs(&self, policy: &HardPolicy) -> u64 {
        let decisions = self.config.decisions.as_ref().unwrap();
        let geometry = self.config.geometry();
        (0..policy.batch())
            .map(|image| geometry.image_macs(decisions, &policy.image_kept(image)))
            .sum()
    }

    pub(crate) fn check_policy(
        &mut self,
        images: &Tensor,
        policy: &Policy,
        workspace: &mut Workspace,
    ) {
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
pub(crate) fn accelerator() -> Device {
    match Device::cuda_if_available(0).unwrap() {
        Device::Cpu => Device::metal_if_available(0).unwrap(),
        device => device,
    }
}

pub(crate) fn assert_close(found: &Tensor, expected: &Tensor) {
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

/// What a small model decides on.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the arguments of a configuration, each on its own"
)]
pub(crate) struct Decides {
    pub(crate) heads: Option<HeadDeactivation>,
    pub(crate) tokens: bool,
    pub(crate) tokens_with_mlp: bool,
    pub(crate) sublayers: bool,
    pub(crate) norm_policy: bool,
    pub(crate) keep_layers: usize,
    pub(crate) first_token_block: usize,
}

impl Decides {
    /// On everything, from block `keep_layers` on; on tokens from the first.
    pub(crate) fn all(heads: Option<HeadDeactivation>, keep_layers: usize) -> Self {
        Self {
            heads,
            tokens: true,
            tokens_with_mlp: true,
            sublayers: true,
            norm_policy: false,
            keep_layers,
            first_token_block: 0,
        }
    }
}

/// Three blocks of `num_heads` heads of `width` channels.
pub(crate) fn config(num_heads: usize, width: usize, decides: Decides) -> ModelConfig {
    ModelConfig {
        embed_dim: num_heads * width,
        depth: 3,
        num_heads,
        ..ModelConfig::preset("nano_patch7_28").unwrap()
    }
    .with_decisions(DecisionConfig {
        ada_token: decides.tokens,
        ada_token_with_mlp: decides.tokens_with_mlp,
        ada_token_start_layer: decides.first_token_block,
        ada_head: decides.heads,
        ada_layer: decides.sublayers,
        keep_layers: decides.keep_layers,
        norm_policy: decides.norm_policy,
        ..DecisionConfig::default()
    })
}

/// What makes tokens of pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StemChoice {
    Patches,
    Convolutions,
    TokensToToken(TokensType),
}

/// The same blocks behind overlapping windows of a picture that is no square: 4x3 patches.
pub(crate) fn with_stem(config: ModelConfig, stem: StemChoice) -> ModelConfig {
    match stem {
        StemChoice::Patches => config,
        StemChoice::Convolutions => ModelConfig {
            img_size: (16, 12),
            in_chans: 2,
            stem: Stem::Convolutions(ConvStemConfig {
                channels: vec![5, 8, 6],
                strides: vec![2, 1, 2],
            }),
            ..config
        },
        StemChoice::TokensToToken(tokens_type) => ModelConfig {
            img_size: (60, 44),
            stem: Stem::TokensToToken(T2tConfig {
                tokens_type,
                token_dim: 8,
            }),
            qkv_bias: false,
            ..config
        },
    }
}

/// Models of every kind of gates, head and stem.
pub(crate) fn variants() -> impl proptest::strategy::Strategy<Value = ModelConfig> {
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
        3 => Just(StemChoice::Patches),
        2 => Just(StemChoice::Convolutions),
        1 => Just(StemChoice::TokensToToken(TokensType::Performer)),
        1 => Just(StemChoice::TokensToToken(TokensType::Transformer)),
    ];
    let first = (0usize..2, 0usize..2);
    (sizes, heads, any::<[bool; 4]>(), first, stems)
        .prop_map(|((num_heads, width), heads, flags, first, stem)| {
            let [tokens, tokens_with_mlp, sublayers, norm_policy] = flags;
            let (keep_layers, first_token_block) = first;
            let decides = Decides {
                heads,
                tokens,
                tokens_with_mlp,
                sublayers,
                norm_policy,
                keep_layers,
                first_token_block,
            };
            with_stem(config(num_heads, width, decides), stem)
        })
        .prop_filter(decides, |config| config.validate().is_ok())
}

/// How far the nearest logit is from its threshold.
pub(crate) fn margin(decisions: &[Decision], config: &ModelConfig) -> f64 {
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
