//! What has to hold for every adaptive model, whatever its weights.

use std::collections::HashMap;

use adavit_decision::{
    AxisLoss, BlockPolicy, DecisionConfig, Deviation, Gating, HeadDeactivation, Policy, UsageLoss,
};
use adavit_gumbel::SeededNoise;
use adavit_model::{
    Capture, Checkpoint, ConvStemConfig, ModelConfig, Stem, T2tConfig, Tensors, TokensType,
    VisionTransformer, initial_tensors, tensor_shapes,
};
use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_nn::VarBuilder;
use proptest::prelude::*;

use crate::common::{difference, widen_decisions};

const BATCH: usize = 3;

fn small(ada_head: HeadDeactivation) -> ModelConfig {
    ModelConfig {
        embed_dim: 16,
        depth: 3,
        num_heads: 2,
        stem: Stem::Patches { patch_size: 14 },
        ..ModelConfig::preset("nano_patch7_28").unwrap()
    }
    .with_decisions(DecisionConfig {
        ada_head: Some(ada_head),
        ..DecisionConfig::default()
    })
}

/// Wide decision networks, so that decisions differ between images.
fn tensors(config: &ModelConfig) -> Tensors {
    let mut tensors = initial_tensors(config, 5, 0.0).unwrap();
    widen_decisions(&mut tensors);
    tensors
}

fn model(config: &ModelConfig) -> VisionTransformer {
    let checkpoint = Checkpoint {
        config: config.clone(),
        tensors: tensors(config),
    };
    checkpoint.model(&Device::Cpu).unwrap()
}

fn images(seed: f32) -> Tensor {
    let values: Vec<f32> = (0..BATCH * 784).map(|i| (i as f32 * seed).sin()).collect();
    Tensor::from_vec(values, (BATCH, 1, 28, 28), &Device::Cpu).unwrap()
}

fn all_kept(config: &ModelConfig) -> Policy {
    let ones = |n| Tensor::ones((BATCH, n), DType::F32, &Device::Cpu).unwrap();
    let patches = ones(config.num_tokens() - 1);
    let block =
        BlockPolicy::new(Some(&patches), Some(ones(config.num_heads)), Some(ones(2))).unwrap();
    Policy {
        blocks: vec![block; config.depth],
    }
}

#[test]
fn keeping_everything_is_the_dense_model() {
    for heads in [
        HeadDeactivation::Full,
        HeadDeactivation::Partial,
        HeadDeactivation::HeadV2,
    ] {
        let config = small(heads);
        let model = model(&config);
        let dense = model.forward(&images(0.7), Capture::default()).unwrap();
        let kept = model
            .forward_policy(&images(0.7), &all_kept(&config), Capture::default())
            .unwrap();
        // Float32 rounding of another order of the same sums.
        assert!(difference(&dense.logits, &kept.logits) < 1e-5, "{heads:?}");
    }
}

/// The model with every tensor a variable, by name.
fn trained(config: &ModelConfig, tensors: Tensors) -> (VisionTransformer, Vec<(String, Var)>) {
    let vars: Vec<(String, Var)> = tensors
        .into_iter()
        .map(|(name, tensor)| (name, Var::from_tensor(&tensor).unwrap()))
        .collect();
    let named: HashMap<String, Tensor> = vars
        .iter()
        .map(|(name, var)| (name.clone(), var.as_tensor().clone()))
        .collect();
    let vb = VarBuilder::from_tensors(named, DType::F32, &Device::Cpu);
    (VisionTransformer::new(config, &vb).unwrap(), vars)
}

/// Task and usage loss of a training forward in which no gate is off for the whole batch.
fn loss_without_dead_gates(model: &VisionTransformer) -> Result<Tensor> {
    let mut noise = SeededNoise::new(0, 0, &[0, 1, 2]);
    let mut gating = Gating::Training {
        noise: &mut noise,
        tau: 1.0,
    };
    let output = model
        .forward_masked(&images(0.3), &mut gating, Capture::default())
        .unwrap();
    for decision in &output.decisions {
        let policy = &decision.policy;
        for gates in [policy.heads(), policy.sublayers()].into_iter().flatten() {
            let kept = gates.sum(0)?.min(0)?.to_scalar::<f32>()?;
            assert!(
                kept > 0.0,
                "a gate is off for the whole batch: another seed is needed"
            );
        }
    }
    let axis = AxisLoss::new(0.3, 1.0, Deviation::Squared);
    let usage = UsageLoss {
        tokens: axis,
        heads: axis,
        blocks: axis,
    };
    let targets = Tensor::eye(10, DType::F32, &Device::Cpu)?.narrow(0, 0, BATCH)?;
    let task = adavit_kernels::cross_entropy(&output.logits, &targets)?;
    task + usage.compute(&output.decisions)?.total()?
}

/// As [`small`], with overlapping windows.
fn small_t2t(tokens_type: TokensType) -> ModelConfig {
    ModelConfig {
        stem: Stem::TokensToToken(T2tConfig {
            tokens_type,
            token_dim: 8,
        }),
        qkv_bias: false,
        ..small(HeadDeactivation::Full)
    }
}

/// As [`small`], with a convolutional stem.
fn small_stem() -> ModelConfig {
    ModelConfig {
        stem: Stem::Convolutions(ConvStemConfig {
            channels: vec![4, 6, 8],
            strides: vec![1, 2, 2],
        }),
        ..small(HeadDeactivation::Full)
    }
}

#[test]
fn every_trained_variable_gets_a_gradient() -> Result<()> {
    for config in [
        small(HeadDeactivation::Full),
        small(HeadDeactivation::Partial),
        small(HeadDeactivation::HeadV2),
        small_t2t(TokensType::Performer),
        small_t2t(TokensType::Transformer),
        small_stem(),
    ] {
        let mut config = config;
        if let Some(decisions) = &mut config.decisions {
            decisions.norm_policy = true;
            decisions.thresholds.tokens = 0.5;
        }
        let (model, vars) = trained(&config, initial_tensors(&config, 5, 1.0).unwrap());
        let gradients = loss_without_dead_gates(&model)?.backward()?;
        for (name, var) in &vars {
            if adavit_model::is_random_features(name) {
                assert!(gradients.get(var).is_none(), "{name}");
                continue;
            }
            let gradient = gradients
                .get(var)
                .unwrap_or_else(|| panic!("{config:?} {name}: none"));
            let largest = gradient.abs()?.flatten_all()?.max(D::Minus1)?;
            let largest = largest.to_scalar::<f32>()?;
            assert!(largest.is_finite(), "{config:?} {name}: {largest}");
            // Softmax does not depend on key biases.
            let zero = name.ends_with("key.bias");
            assert!(zero || largest > 0.0, "{config:?} {name}: {largest}");
        }
    }
    Ok(())
}

#[test]
fn a_sinusoid_position_embedding_is_not_trained() -> Result<()> {
    let config = ModelConfig {
        pos_embed: adavit_model::PosEmbed::Sinusoid,
        ..small(HeadDeactivation::Full)
    };
    let (model, vars) = trained(&config, tensors(&config));
    let output = model.forward(&images(0.3), Capture::default()).unwrap();
    let gradients = output.logits.sum_all()?.backward()?;
    let has_gradient = |name: &str| {
        let (_, var) = vars.iter().find(|(found, _)| found == name).unwrap();
        gradients.get(var).is_some()
    };
    assert!(has_gradient("head.weight") && has_gradient("cls_token"));
    assert!(!has_gradient("pos_embed"));
    Ok(())
}

#[test]
fn images_of_another_size_are_refused() {
    let model = model(&small(HeadDeactivation::Full));
    let wrong = Tensor::zeros((1, 3, 28, 28), DType::F32, &Device::Cpu).unwrap();
    let error = model.forward(&wrong, Capture::default()).unwrap_err();
    assert!(
        error.to_string().contains("expected shape (B, 1, 28, 28)"),
        "{error}"
    );
}

#[test]
fn an_empty_batch_and_a_non_square_image_are_ordinary() {
    let config = ModelConfig {
        img_size: (28, 56),
        ..small(HeadDeactivation::Full)
    };
    let model = model(&config);
    for batch in [0, 2] {
        let images = Tensor::zeros((batch, 1, 28, 56), DType::F32, &Device::Cpu).unwrap();
        let output = model
            .forward_masked(&images, &mut Gating::Inference, Capture::default())
            .unwrap();
        assert_eq!(output.logits.dims(), [batch, 10]);
    }
    assert_eq!(
        tensor_shapes(&config).unwrap()["pos_embed"].dims(),
        [1, 9, 16]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Gathering kept tokens equals masking: what a dropped token holds reaches no other token.
    #[test]
    fn pixels_of_a_token_dropped_in_every_block_change_nothing_else(
        kept in prop::collection::vec(prop::collection::vec(any::<bool>(), 4), BATCH),
        heads in prop_oneof![
            Just(HeadDeactivation::Full),
            Just(HeadDeactivation::Partial),
            Just(HeadDeactivation::HeadV2),
        ],
    ) {
        let config = small(heads);
        let model = model(&config);
        let gates: Vec<f32> = kept.iter().flatten().map(|&k| f32::from(u8::from(k))).collect();
        let patches = Tensor::from_vec(gates.clone(), (BATCH, 4), &Device::Cpu).unwrap();
        let block = BlockPolicy::new(Some(&patches), None, None).unwrap();
        let policy = Policy { blocks: vec![block; 3] };
        // Patches are 14 pixels wide, two in each direction.
        let keep: Vec<f32> = (0..BATCH * 784).map(|i| {
            let (image, y, x) = (i / 784, i % 784 / 28, i % 28);
            gates[image * 4 + y / 14 * 2 + x / 14]
        }).collect();
        let keep = Tensor::from_vec(keep, (BATCH, 1, 28, 28), &Device::Cpu).unwrap();
        let other = (&images(0.7) * &keep).unwrap()
            + (images(0.2) * keep.affine(-1.0, 1.0).unwrap()).unwrap();
        let logits = |images: &Tensor| {
            model.forward_policy(images, &policy, Capture::default()).unwrap().logits
        };
        prop_assert!(difference(&logits(&images(0.7)), &logits(&other.unwrap())) == 0.0);
    }
}
