//! Networks that take a budget: the same on every path, what they were before they learn it, and
//! gradients of the maps from budgets.

use std::collections::HashMap;

use adavit_decision::{
    Allowance, Budgets, Deviation, Gating, HardPolicy, HeadDeactivation, MacsLoss, budget_features,
};
use adavit_gumbel::SeededNoise;
use adavit_model::{
    Capture, Checkpoint, ModelConfig, Strategy, Tensors, VisionTransformer, Workspace,
    initial_tensors, is_budget_tensor,
};
use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::VarBuilder;
use proptest::prelude::{ProptestConfig, prop_assert, prop_assume, proptest};

use crate::common::{images, values, widen_decisions};
use crate::harness::{Decides, Model, accelerator, assert_close, config, margin, variants};

/// The same model, whose networks take a budget.
fn elastic(mut config: ModelConfig) -> ModelConfig {
    config.decisions.as_mut().unwrap().budget_input = Some(0.7);
    config
}

fn each(b: usize, seed: u64) -> Vec<f64> {
    let budget = |i: usize| 0.05 + 0.95 * ((i as f64 + seed as f64 * 0.37).sin().abs());
    (0..b).map(budget).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sparse_equals_masked_with_a_budget_for_each_image(config in variants(), b in 1usize..6, seed: u64) {
        let mut model = Model::new(elastic(config), seed % 1000);
        let images = model.images(b, seed % 100);
        let budgets = each(b, seed % 1000);
        let allowance = Allowance { budget: Some(Budgets::Each(budgets.clone())), ..Allowance::default() };
        let (gating, capture) = (&mut Gating::Inference, Capture::default());
        let masked = model.masked.forward_masked_within(&images, gating, &allowance, capture).unwrap();
        prop_assume!(margin(&masked.decisions, &model.config) > 1e-3);
        let geometry = model.config.geometry();
        let policy = HardPolicy::new(&masked.policy(), &geometry, b).unwrap();
        let mut workspace = Workspace::default();
        model.sparse.set_strategy(Strategy::Exact);
        let sparse = model.sparse.forward_sparse_within(&images, &allowance, &mut workspace).unwrap();
        prop_assert!(workspace.policy() == &policy);
        assert_close(&sparse, &masked.logits);
        // What the maps from budgets execute is counted.
        assert_eq!(workspace.take_macs(), model.macs(&policy));
        let moved = images.to_device(&accelerator()).unwrap();
        let gathered = model.gathered.forward_sparse_within(&moved, &allowance, &mut workspace).unwrap();
        prop_assert!(workspace.policy() == &policy);
        assert_close(&gathered, &masked.logits);
        // Each image has the bits that it has alone, with its budget for the whole batch.
        let sparse: Vec<Vec<f32>> = sparse.to_vec2().unwrap();
        for (image, budget) in budgets.into_iter().enumerate() {
            let alone = images.narrow(0, image, 1).unwrap();
            let allowance = Allowance::of_budget(budget);
            let found = model.sparse.forward_sparse_within(&alone, &allowance, &mut workspace);
            prop_assert!(found.unwrap().to_vec2::<f32>().unwrap()[0] == sparse[image]);
        }
    }
}

#[test]
fn a_model_that_has_not_learnt_budgets_is_what_it_was() {
    let plain = config(3, 16, Decides::all(Some(HeadDeactivation::Full), 0));
    let tensors = |config: &ModelConfig| {
        let mut tensors = initial_tensors(config, 5, 0.4).unwrap();
        widen_decisions(&mut tensors);
        tensors
    };
    let of_plain = tensors(&plain);
    let before = Checkpoint {
        config: plain.clone(),
        tensors: of_plain.clone(),
    };
    let config = elastic(plain);
    let made = tensors(&config);
    let names = made.keys().filter(|name| is_budget_tensor(name));
    assert_eq!(names.count(), 9, "three in each of three blocks");
    assert_eq!(made.len(), of_plain.len() + 9);
    let after = Checkpoint {
        config,
        tensors: made,
    };
    let images = images(&before.config, 5, 3);
    let logits = |checkpoint: &Checkpoint, allowance: &Allowance| {
        let (prepared, model) = (
            checkpoint.prepared(&Device::Cpu).unwrap(),
            checkpoint.model(&Device::Cpu).unwrap(),
        );
        let sparse = prepared.forward_sparse_within(&images, allowance, &mut Workspace::default());
        let (gating, capture) = (&mut Gating::Inference, Capture::default());
        let masked = model.forward_masked_within(&images, gating, allowance, capture);
        [values(&sparse.unwrap()), values(&masked.unwrap().logits)]
    };
    let expected = logits(&before, &Allowance::default());
    assert!(logits(&after, &Allowance::default()) == expected);
    for budget in [0.1, 0.6, 1.0] {
        assert!(
            logits(&after, &Allowance::of_budget(budget)) == expected,
            "{budget}"
        );
    }
}

#[test]
fn a_call_without_a_budget_has_the_models_own() {
    let model = Model::new(
        elastic(config(2, 16, Decides::all(Some(HeadDeactivation::Full), 0))),
        7,
    );
    let images = model.images(4, 2);
    let mut workspace = Workspace::default();
    let mut run = |allowance: &Allowance| {
        let logits = model
            .sparse
            .forward_sparse_within(&images, allowance, &mut workspace);
        values(&logits.unwrap())
    };
    let own = run(&Allowance::default());
    assert!(own == run(&Allowance::of_budget(0.7)));
    assert!(own != run(&Allowance::of_budget(0.2)));
}

#[test]
fn budgets_that_cannot_be_asked_for_are_refused() {
    let decides = Decides::all(Some(HeadDeactivation::Full), 0);
    let plain = Model::new(config(2, 16, decides), 7);
    let model = Model::new(elastic(config(2, 16, decides)), 7);
    let images = model.images(2, 2);
    let of = |budgets| Allowance {
        budget: Some(budgets),
        ..Allowance::default()
    };
    for (model, allowance, part) in [
        (&plain, of(Budgets::Same(0.5)), "an elastic model"),
        (&model, of(Budgets::Same(0.0)), "in (0, 1]"),
        (&model, of(Budgets::Each(vec![0.5; 3])), "each of 2 images"),
    ] {
        let sparse =
            model
                .sparse
                .forward_sparse_within(&images, &allowance, &mut Workspace::default());
        let (gating, capture) = (&mut Gating::Inference, Capture::default());
        let masked = model
            .masked
            .forward_masked_within(&images, gating, &allowance, capture);
        for error in [sparse.unwrap_err(), masked.unwrap_err()] {
            assert!(error.is_input_error(), "{error}");
            assert!(error.to_string().contains(part), "{error}");
        }
    }
    let config = &model.config;
    assert!(plain.config.input_for_budget(0.5).is_err());
    let smallest = config.smallest_budget();
    let floor = config.floor_macs() as f64 / config.geometry().dense_macs() as f64;
    assert!((smallest - floor - 0.03).abs() < 1e-12);
    assert_eq!(config.input_for_budget(0.9).unwrap(), 0.9);
    let error = config.input_for_budget(smallest - 0.01).unwrap_err();
    assert!(error.is_input_error());
    assert!(error.to_string().contains(&format!("floor of {floor:.4}")));
}

/// A model in f64 with every tensor a variable, by name.
fn trained(config: &ModelConfig) -> (VisionTransformer, HashMap<String, Var>) {
    let mut tensors: Tensors = initial_tensors(config, 5, 0.0).unwrap();
    widen_decisions(&mut tensors);
    let vars: HashMap<String, Var> = tensors
        .into_iter()
        .map(|(name, tensor)| {
            let tensor = tensor.to_dtype(DType::F64).unwrap();
            (name, Var::from_tensor(&tensor).unwrap())
        })
        .collect();
    let named = vars
        .iter()
        .map(|(name, var)| (name.clone(), var.as_tensor().clone()));
    let vb = VarBuilder::from_tensors(named.collect(), DType::F64, &Device::Cpu);
    (VisionTransformer::new(config, &vb).unwrap(), vars)
}

#[test]
fn the_maps_from_budgets_have_the_gradient_of_their_logits() {
    let config = elastic(config(2, 8, Decides::all(Some(HeadDeactivation::Full), 0)));
    let (model, vars) = trained(&config);
    let images = images(&config, 1, 3).to_dtype(DType::F64).unwrap();
    let budget = 0.35;
    let mut noise = SeededNoise::new(2, 0, &[4]);
    let mut gating = Gating::Training {
        noise: &mut noise,
        tau: 2.0,
    };
    let allowance = Allowance::of_budget(budget);
    let output = model
        .forward_masked_within(&images, &mut gating, &allowance, Capture::default())
        .unwrap();
    let decisions = config.decisions.as_ref().unwrap();
    let geometry = config.geometry();
    let loss = MacsLoss::new(&geometry, decisions, 5.0, Deviation::Squared).unwrap();
    let loss = loss.compute_each(&output.decisions, &[budget]).unwrap();
    let task = output.logits.sqr().unwrap().sum_all().unwrap();
    let gradients = (loss + task).unwrap().backward().unwrap();
    // d loss / d U_gj = (d loss / d logit_g) f_j(b), and a bias has the gradient of its logit.
    let features = budget_features(budget);
    let mut moved = 0;
    for (name, var) in vars.iter().filter(|(name, _)| is_budget_tensor(name)) {
        let found = gradients.get(var).unwrap().to_vec2::<f64>().unwrap();
        let bias = name.replace("budget.weight", "mlp_head.bias");
        let of_logits = gradients.get(&vars[&bias]).unwrap();
        let of_logits = of_logits.to_vec1::<f64>().unwrap();
        for (row, of_logit) in found.iter().zip(of_logits) {
            for (found, feature) in row.iter().zip(features) {
                let expected = of_logit * feature;
                // f64 rounding of sums of a few thousand terms.
                let tolerance = 1e-10 * (1.0 + expected.abs());
                assert!(
                    (found - expected).abs() <= tolerance,
                    "{name}: {found} {expected}"
                );
                moved += usize::from(found.abs() > 1e-9);
            }
        }
    }
    assert!(moved > 8, "{moved} gradients that are not zero");
}

#[test]
fn gradients_of_the_maps_are_those_of_finite_differences() {
    // The logits of the first block are smooth in its maps; gates come after them.
    let config = elastic(config(2, 8, Decides::all(Some(HeadDeactivation::Full), 0)));
    let (model, vars) = trained(&config);
    let images = images(&config, 3, 3).to_dtype(DType::F64).unwrap();
    let allowance = Allowance {
        budget: Some(Budgets::Each(vec![0.2, 0.55, 0.9])),
        ..Allowance::default()
    };
    let loss = || {
        let (gating, capture) = (&mut Gating::Inference, Capture::default());
        let output = model.forward_masked_within(&images, gating, &allowance, capture);
        let logits = output.unwrap().decisions[0].logits.clone();
        let parts = [logits.patches, logits.heads, logits.sublayers];
        let sums = parts.map(|logits| logits.unwrap().sqr().unwrap().sum(D::Minus1).unwrap());
        let [a, b, c] = sums;
        ((a + b).unwrap() + c).unwrap().mean_all().unwrap()
    };
    let gradients = loss().backward().unwrap();
    let first = vars
        .iter()
        .filter(|(name, _)| is_budget_tensor(name) && name.starts_with("blocks.0."));
    for (name, var) in first {
        let found = gradients.get(var).unwrap().flatten_all().unwrap();
        let start = var.as_tensor().copy().unwrap();
        for (at, found) in found.to_vec1::<f64>().unwrap().into_iter().enumerate() {
            let moved = |by: f64| {
                let mut numbers = start.flatten_all().unwrap().to_vec1::<f64>().unwrap();
                numbers[at] += by;
                let moved = Tensor::from_vec(numbers, start.shape(), &Device::Cpu).unwrap();
                var.set(&moved).unwrap();
                loss().to_scalar::<f64>().unwrap()
            };
            let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            var.set(&start).unwrap();
            // The loss is quadratic, so only rounding is left.
            assert!(
                (found - expected).abs() < 1e-6 * (1.0 + expected.abs()),
                "{name}"
            );
        }
    }
}
