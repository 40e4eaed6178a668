//! What training leaves out at random: it is left out whole, for each image alone, and only if asked for.

use std::collections::HashMap;

use adavit_decision::{DecisionConfig, Gating};
use adavit_gumbel::SeededNoise;
use adavit_model::{
    Capture, Dropout, DropoutRates, ModelConfig, Output, Stem, Tensors, VisionTransformer,
    WithDropout, initial_tensors,
};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarBuilder;

use crate::common::{difference, images, values};

/// Drops every branch of the last block: that one is kept at all happens once in a million draws.
const NEARLY_ALL: f64 = 0.999_999;

fn config(depth: usize) -> ModelConfig {
    ModelConfig {
        embed_dim: 16,
        depth,
        num_heads: 2,
        stem: Stem::Patches { patch_size: 14 },
        ..ModelConfig::preset("nano_patch7_28").unwrap()
    }
    .with_decisions(DecisionConfig {
        keep_layers: 0,
        ..DecisionConfig::default()
    })
}

/// A model whose tensors are variables, by name.
fn model(config: &ModelConfig) -> (VisionTransformer, HashMap<String, Var>) {
    let tensors: Tensors = initial_tensors(config, 5, 1.0).unwrap();
    let vars: HashMap<String, Var> = tensors
        .into_iter()
        .map(|(name, tensor)| (name, Var::from_tensor(&tensor).unwrap()))
        .collect();
    let named = vars
        .iter()
        .map(|(name, var)| (name.clone(), var.as_tensor().clone()));
    let vb = VarBuilder::from_tensors(named.collect(), DType::F32, &Device::Cpu);
    (VisionTransformer::new(config, &vb).unwrap(), vars)
}

fn dropout(rates: DropoutRates, samples: &[u64]) -> Dropout {
    Dropout::new(rates, SeededNoise::new(3, 1, samples)).unwrap()
}

fn drop_path(rate: f64) -> DropoutRates {
    DropoutRates {
        drop_path: rate,
        ..DropoutRates::default()
    }
}

type Forward = fn(WithDropout, &Tensor) -> Output;

fn dense(model: WithDropout, images: &Tensor) -> Output {
    model.forward(images, Capture::default()).unwrap()
}

fn masked(model: WithDropout, images: &Tensor) -> Output {
    let mut noise = SeededNoise::new(3, 1, &[1, 2, 3]);
    let mut gating = Gating::Training {
        noise: &mut noise,
        tau: 5.0,
    };
    let output = model.forward_masked(images, &mut gating, Capture::default());
    output.unwrap()
}

const FORWARDS: [Forward; 2] = [dense, masked];

#[test]
fn with_rates_of_zero_every_bit_is_the_models() {
    let config = config(3);
    let (model, _) = model(&config);
    let images = images(&config, 3, 1);
    let off = dropout(DropoutRates::default(), &[1, 2, 3]);
    for forward in FORWARDS {
        let [without, with] = [None, Some(&off)].map(|dropout| {
            let output = forward(model.with_dropout(dropout), &images);
            values(&output.logits)
        });
        assert_eq!(without, with);
    }
    let plain = model.forward(&images, Capture::default()).unwrap();
    assert_eq!(
        values(&plain.logits),
        values(&dense(model.with_dropout(None), &images).logits)
    );
}

#[test]
fn a_dropped_block_is_as_if_it_were_not_there_and_gets_no_gradient() {
    let (two, one) = (config(2), config(1));
    let ((model, vars), (shorter, _)) = (model(&two), model(&one));
    let images = images(&two, 3, 1);
    let dropout = dropout(drop_path(NEARLY_ALL), &[1, 2, 3]);
    for forward in FORWARDS {
        let output = forward(model.with_dropout(Some(&dropout)), &images);
        let expected = forward(shorter.with_dropout(None), &images);
        assert_eq!(values(&output.logits), values(&expected.logits));
        let gradients = output.logits.sqr().unwrap().sum_all().unwrap();
        let gradients = gradients.backward().unwrap();
        let zero = |name: &str| {
            let gradient = gradients.get(&vars[name]);
            gradient.is_none_or(|gradient| values(gradient).iter().all(|x| *x == 0.0))
        };
        for name in vars.keys().filter(|name| name.starts_with("blocks.1.")) {
            assert!(zero(name), "{name} has a gradient");
        }
        for name in ["blocks.0.attn.proj.weight", "blocks.0.mlp.fc1.weight"] {
            assert!(!zero(name), "{name} has no gradient");
        }
    }
}

#[test]
fn an_image_loses_the_same_branches_in_every_batch() {
    let config = config(3);
    let (model, _) = model(&config);
    let three = images(&config, 3, 1);
    let logits = |order: &[u32]| {
        let samples: Vec<u64> = order.iter().map(|place| u64::from(*place) + 40).collect();
        let order = Tensor::new(order, &Device::Cpu).unwrap();
        let images = three.index_select(&order, 0).unwrap();
        let dropout = dropout(drop_path(0.9), &samples);
        dense(model.with_dropout(Some(&dropout)), &images).logits
    };
    let (forwards, backwards) = (logits(&[0, 1, 2]), logits(&[2, 1, 0]));
    let order = Tensor::new(&[2_u32, 1, 0], &Device::Cpu).unwrap();
    // Float32 rounding: a product may add in another order in another place.
    assert!(difference(&forwards, &backwards.index_select(&order, 0).unwrap()) < 1e-5);
    let alone = logits(&[1]);
    assert!(difference(&forwards.narrow(0, 1, 1).unwrap(), &alone) < 1e-5);
    let plain = dense(model.with_dropout(None), &three).logits;
    assert!(difference(&forwards, &plain) > 1e-3);
}

#[test]
fn the_token_module_leaves_out_what_each_image_draws() {
    let t2t = ModelConfig {
        img_size: (28, 28),
        num_classes: 4,
        depth: 1,
        ..ModelConfig::preset("t2t_vit_7").unwrap()
    };
    let (model, vars) = model(&t2t);
    let two = images(&t2t, 2, 1);
    let rates = DropoutRates {
        token_dropout: 0.1,
        ..DropoutRates::default()
    };
    let output = |rates, samples: &[u64], images: &Tensor| {
        let dropout = dropout(rates, samples);
        dense(model.with_dropout(Some(&dropout)), images).logits
    };
    let found = output(rates, &[1, 2], &two);
    let plain = dense(model.with_dropout(None), &two).logits;
    assert_eq!(
        values(&output(DropoutRates::default(), &[1, 2], &two)),
        values(&plain)
    );
    assert!(difference(&found, &plain) > 1e-3);
    let second = output(rates, &[2], &two.narrow(0, 1, 1).unwrap());
    // Float32 rounding: a product may add in another order in another place.
    assert!(difference(&found.narrow(0, 1, 1).unwrap(), &second) < 1e-4);
    let nearly_all = DropoutRates {
        token_dropout: NEARLY_ALL,
        ..rates
    };
    let logits = output(nearly_all, &[1, 2], &two);
    let gradients = logits.sqr().unwrap().sum_all().unwrap();
    let gradients = gradients.backward().unwrap();
    let zero = |name: &str| {
        let gradient = gradients.get(&vars[name]);
        gradient.is_none_or(|gradient| values(gradient).iter().all(|x| *x == 0.0))
    };
    assert!(zero("tokens_to_token.attention1.mlp.2.weight"));
    assert!(zero("tokens_to_token.attention2.proj.weight"));
    assert!(!zero("tokens_to_token.project.weight"));
}
