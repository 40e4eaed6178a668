//! Budgets that are allocated to images: the same on every path, within a ceiling, and by a price.

use adavit_decision::{
    Allocation, Allocator, AllocatorConfig, Allowance, Budgets, Gating, HardPolicy,
    HeadDeactivation, Knot,
};
use adavit_model::{
    Capture, Checkpoint, ModelConfig, Output, Strategy, Tensors, Workspace, initial_tensors,
    is_allocator_tensor, is_budget_tensor, is_decision_tensor,
};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assume, proptest};

use crate::common::{images, values, widen_decisions};
use crate::harness::{Decides, Model, accelerator, assert_close, config, margin, variants};

/// How near two choices may be before rounding might decide between them: the paths differ by float32
/// rounding of losses of about 1, of which this is a hundred times the size.
const NEAR: f64 = 1e-4;

/// The same model with an allocator of four knots.
fn allocating(mut config: ModelConfig) -> ModelConfig {
    let knot = |asked: f64| Knot {
        asked,
        share: 0.1 + 0.8 * asked,
    };
    let point = |first: f64, price: f64, share: f64| Allocation {
        first,
        price,
        share,
    };
    let decisions = config.decisions.as_mut().unwrap();
    decisions.budget_input = Some(0.7);
    decisions.allocator = Some(AllocatorConfig {
        knots: [0.1, 0.3, 0.6, 1.0].map(knot).to_vec(),
        curve: vec![point(0.2, 3.0, 0.3), point(0.9, -1.0, 0.9)],
        budget: 0.6,
    });
    config
}

/// Fills the maps of budgets and allocator.
fn fill(tensors: &mut Tensors, seed: u64) {
    for (name, tensor) in tensors {
        let size = match (is_allocator_tensor(name), is_budget_tensor(name)) {
            (true, _) => 0.6,
            (_, true) => 0.4,
            _ => continue,
        };
        let of = |i: usize| (i as f32 * 2.3 + seed as f32).sin() * size;
        let filled = Tensor::from_iter((0..tensor.elem_count()).map(of), &Device::Cpu).unwrap();
        *tensor = filled.reshape(tensor.dims()).unwrap();
    }
}

/// A checkpoint whose predictions have mean 0 and deviation 1 over images, so that these differ in
/// their budgets.
fn checkpoint(config: ModelConfig, seed: u64) -> Checkpoint {
    let mut tensors = initial_tensors(&config, seed, 0.4).unwrap();
    widen_decisions(&mut tensors);
    fill(&mut tensors, seed);
    let mut checkpoint = Checkpoint { config, tensors };
    let prepared = checkpoint.prepared(&Device::Cpu).unwrap();
    let (count, c) = (24, checkpoint.config.embed_dim);
    let images = images(&checkpoint.config, count, 3);
    let mut workspace = Workspace::default();
    let run = prepared.forward_sparse_within(&images, &Allowance::of_budget(0.5), &mut workspace);
    run.unwrap();
    let tokens = Tensor::from_vec(workspace.class_tokens(), (count, c), &Device::Cpu).unwrap();
    let weight = &checkpoint.tensors["allocator.weight"];
    let predicted = tokens.matmul(&weight.t().unwrap()).unwrap();
    let mean = predicted.mean(0).unwrap();
    let centred = predicted.broadcast_sub(&mean).unwrap();
    let std = centred.sqr().unwrap().mean(0).unwrap().sqrt().unwrap();
    // Of opposite signs, or images that differ in one direction alone would all choose alike.
    let signs = Tensor::new(&[1f32, -1.0, 1.0, -1.0], &Device::Cpu).unwrap();
    // Without attention in the first block, class tokens are all the same.
    let std = (std.maximum(1e-3).unwrap() * signs).unwrap();
    let bias = (mean / &std).unwrap().neg().unwrap();
    let weight = weight.broadcast_div(&std.unsqueeze(1).unwrap()).unwrap();
    checkpoint.tensors.insert("allocator.weight".into(), weight);
    checkpoint.tensors.insert("allocator.bias".into(), bias);
    checkpoint
}

fn model(config: ModelConfig, seed: u64) -> (Checkpoint, Model) {
    let checkpoint = checkpoint(config, seed);
    let model = Model {
        masked: checkpoint.model(&Device::Cpu).unwrap(),
        sparse: checkpoint.prepared(&Device::Cpu).unwrap(),
        gathered: checkpoint.gathered(&accelerator()).unwrap(),
        config: checkpoint.config.clone(),
    };
    (checkpoint, model)
}

fn allocated(first: f64, price: f64) -> Allowance {
    Allowance {
        budget: Some(Budgets::Allocated { first, price }),
        ..Allowance::default()
    }
}

fn masked(model: &Model, images: &Tensor, allowance: &Allowance) -> Output {
    let (gating, capture) = (
        &mut Gating::Inference,
        Capture {
            class_hidden: true,
            ..Capture::default()
        },
    );
    let output = model
        .masked
        .forward_masked_within(images, gating, allowance, capture);
    output.unwrap()
}

/// The budgets that class tokens get, by the definition.
fn budgets(checkpoint: &Checkpoint, tokens: &Tensor, price: f64) -> Vec<f64> {
    let decisions = checkpoint.config.decisions.as_ref().unwrap();
    let config = decisions.allocator.as_ref().unwrap();
    let tensors = checkpoint.tensors.clone().into_iter().collect();
    let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu).pp("allocator");
    let allocator = Allocator::new(config, checkpoint.config.embed_dim, &vb).unwrap();
    match allocator.allocate(tokens, price).unwrap() {
        Budgets::Each(budgets) => budgets,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_path_gives_an_image_the_same_budget(config in variants(), b in 1usize..6, seed: u64, price in -2.0..4.0_f64) {
        let (checkpoint, mut model) = model(allocating(config), seed % 1000);
        let images = model.images(b, seed % 100);
        let allowance = allocated(0.5, price);
        let output = masked(&model, &images, &allowance);
        let tokens = &output.class_hidden[0];
        let own = budgets(&checkpoint, tokens, price);
        for by in [-NEAR, NEAR] {
            prop_assume!(budgets(&checkpoint, tokens, price + by) == own);
        }
        prop_assume!(margin(&output.decisions, &model.config) > 1e-3);
        let geometry = model.config.geometry();
        let policy = HardPolicy::new(&output.policy(), &geometry, b).unwrap();

        let mut workspace = Workspace::default();
        model.sparse.set_strategy(Strategy::Exact);
        let sparse = model.sparse.forward_sparse_within(&images, &allowance, &mut workspace).unwrap();
        prop_assert!(workspace.policy() == &policy);
        assert_close(&sparse, &output.logits);
        // What the allocator executes is counted.
        assert_eq!(workspace.take_macs(), model.macs(&policy));
        let read = Tensor::from_vec(workspace.class_tokens(), (b, model.config.embed_dim), &Device::Cpu);
        assert_close(&read.unwrap(), tokens);

        let moved = images.to_device(&accelerator()).unwrap();
        let gathered = model.gathered.forward_sparse_within(&moved, &allowance, &mut workspace).unwrap();
        prop_assert!(workspace.policy() == &policy);
        assert_close(&gathered, &output.logits);
        let read = Tensor::from_vec(workspace.class_tokens(), (b, model.config.embed_dim), &Device::Cpu);
        assert_close(&read.unwrap(), tokens);

        // Each image has the bits that it has alone.
        let sparse: Vec<Vec<f32>> = sparse.to_vec2().unwrap();
        for (image, row) in sparse.iter().enumerate() {
            let alone = images.narrow(0, image, 1).unwrap();
            let found = model.sparse.forward_sparse_within(&alone, &allowance, &mut workspace);
            prop_assert!(found.unwrap().to_vec2::<f32>().unwrap()[0] == *row);
        }
    }

    #[test]
    fn no_image_exceeds_a_ceiling_whatever_it_is_allocated(config in variants(), b in 1usize..6, seed: u64, shares in any::<[u8; 2]>()) {
        let (_, mut model) = model(allocating(config), seed % 1000);
        let images = model.images(b, seed % 100);
        let decisions = model.config.decisions.clone().unwrap();
        let geometry = model.config.geometry();
        let (floor, most) = (model.config.floor_macs(), geometry.most_macs(&decisions));
        let [ceiling, price] = shares.map(|share| f64::from(share) / 255.0);
        let max_macs = floor + ((most - floor) as f64 * ceiling) as u64;
        let allowance = Allowance {
            max_macs: Some(max_macs),
            ..allocated(0.8, 3.0 - 5.0 * price)
        };
        model.sparse.set_strategy(Strategy::Exact);
        let mut workspace = Workspace::default();
        model.sparse.forward_sparse_within(&images, &allowance, &mut workspace).unwrap();
        let executed = workspace.take_macs();
        prop_assert!(executed == model.macs(workspace.policy()));
        prop_assert!(executed <= max_macs * b as u64);
        let of_sparse = workspace.policy().clone();
        let moved = images.to_device(&accelerator()).unwrap();
        model.gathered.forward_sparse_within(&moved, &allowance, &mut workspace).unwrap();
        let output = masked(&model, &images, &allowance);
        let of_masked = HardPolicy::new(&output.policy(), &geometry, b).unwrap();
        for policy in [&of_sparse, workspace.policy(), &of_masked] {
            for image in 0..b {
                prop_assert!(geometry.image_macs(&decisions, &policy.image_kept(image)) <= max_macs);
            }
        }
    }
}

/// A model of every kind of head gates.
fn models() -> impl Iterator<Item = (Checkpoint, Model)> {
    let modes = [
        Some(HeadDeactivation::Full),
        Some(HeadDeactivation::Partial),
        Some(HeadDeactivation::HeadV2),
        None,
    ];
    modes.into_iter().enumerate().map(|(index, heads)| {
        let decides = Decides::all(heads, 1);
        model(allocating(config(3, 16, decides)), 5 + index as u64)
    })
}

#[test]
fn images_differ_in_their_budgets_and_a_higher_price_buys_less() {
    for (checkpoint, model) in models() {
        let images = model.images(40, 3);
        let mut workspace = Workspace::default();
        let mut before = f64::INFINITY;
        let mut most = 0;
        for step in 0..=10 {
            let price = -2.0 + 0.5 * f64::from(step);
            let run =
                model
                    .sparse
                    .forward_sparse_within(&images, &allocated(0.5, price), &mut workspace);
            run.unwrap();
            let c = model.config.embed_dim;
            let tokens = Tensor::from_vec(workspace.class_tokens(), (40, c), &Device::Cpu).unwrap();
            let mut own = budgets(&checkpoint, &tokens, price);
            let mean = own.iter().sum::<f64>() / 40.0;
            assert!(mean <= before, "{mean} at {price}");
            before = mean;
            own.sort_by(f64::total_cmp);
            own.dedup();
            most = most.max(own.len());
        }
        assert!(most > 1);
    }
}

#[test]
fn blocks_after_the_first_run_as_if_each_image_had_asked() {
    // Where the first block has no budget to take, an allocated call is one with a budget for each.
    let decides = Decides {
        first_token_block: 1,
        ..Decides::all(Some(HeadDeactivation::Full), 1)
    };
    let (checkpoint, model) = model(allocating(config(3, 16, decides)), 9);
    let images = model.images(30, 3);
    let mut workspace = Workspace::default();
    let run = |allowance: &Allowance, workspace: &mut Workspace| {
        let logits = model
            .sparse
            .forward_sparse_within(&images, allowance, workspace);
        values(&logits.unwrap())
    };
    let found = run(&allocated(0.2, 0.3), &mut workspace);
    let c = model.config.embed_dim;
    let tokens = Tensor::from_vec(workspace.class_tokens(), (30, c), &Device::Cpu).unwrap();
    let own = budgets(&checkpoint, &tokens, 0.3);
    let mut kinds = own.clone();
    kinds.sort_by(f64::total_cmp);
    kinds.dedup();
    assert!(kinds.len() > 1, "{kinds:?}");
    let each = Allowance {
        budget: Some(Budgets::Each(own)),
        ..Allowance::default()
    };
    assert!(run(&each, &mut workspace) == found);
    // A call that asks for nothing is allocated the model's own budget.
    let own = checkpoint.config.budgets_for(0.6).unwrap();
    assert!((own.of(0) - 0.55).abs() < 1e-12, "{own:?}");
    assert!((own.price().unwrap() - 1.0).abs() < 1e-12, "{own:?}");
    let asked = Allowance {
        budget: Some(own),
        ..Allowance::default()
    };
    assert!(run(&Allowance::default(), &mut workspace) == run(&asked, &mut workspace));
}

#[test]
fn an_allocator_changes_nothing_for_who_asks_for_one_budget() {
    for (checkpoint, model) in models() {
        let mut plain = checkpoint.clone();
        plain.config.decisions.as_mut().unwrap().allocator = None;
        plain.tensors.retain(|name, _| !is_allocator_tensor(name));
        let without = plain.prepared(&Device::Cpu).unwrap();
        let images = model.images(7, 1);
        for budget in [0.2, 0.7, 1.0] {
            let allowance = Allowance::of_budget(budget);
            let mut workspace = Workspace::default();
            let mut run = |model: &adavit_model::PreparedTransformer| {
                let logits = model.forward_sparse_within(&images, &allowance, &mut workspace);
                values(&logits.unwrap())
            };
            assert!(run(&model.sparse) == run(&without));
        }
    }
}

#[test]
fn allocators_are_kept_checked_and_part_of_the_decisions() {
    let (checkpoint, _) = models().next().unwrap();
    let names = checkpoint.tensors.keys();
    let own: Vec<&String> = names.filter(|name| is_allocator_tensor(name)).collect();
    assert_eq!(own, ["allocator.bias", "allocator.weight"]);
    assert!(own.into_iter().all(|name| is_decision_tensor(name)));
    let folder = tempfile::tempdir().unwrap();
    checkpoint.save(folder.path()).unwrap();
    let loaded = Checkpoint::load(folder.path()).unwrap();
    assert_eq!(loaded.config, checkpoint.config);

    let mut broken = checkpoint.clone();
    let decisions = broken.config.decisions.as_mut().unwrap();
    decisions.allocator.as_mut().unwrap().curve.clear();
    assert!(broken.prepared(&Device::Cpu).is_err());
    let mut without_input = checkpoint.clone();
    let decisions = without_input.config.decisions.as_mut().unwrap();
    decisions.budget_input = None;
    assert!(without_input.prepared(&Device::Cpu).is_err());

    // Nothing allocates in a model without an allocator.
    let decides = Decides::all(Some(HeadDeactivation::Full), 0);
    let mut plain = config(2, 16, decides);
    plain.decisions.as_mut().unwrap().budget_input = Some(0.5);
    let error = plain.check_allowance(&allocated(0.5, 1.0)).unwrap_err();
    assert!(error.is_input_error());
    assert!(error.to_string().contains("with an allocator"), "{error}");
}

#[test]
fn an_image_that_is_not_a_number_ends_in_no_answer() {
    let (_, model) = models().next().unwrap();
    let images = model.images(3, 1);
    let broken = (images.narrow(0, 1, 1).unwrap() * f64::NAN).unwrap();
    let parts = [
        images.narrow(0, 0, 1).unwrap(),
        broken,
        images.narrow(0, 2, 1).unwrap(),
    ];
    let images = Tensor::cat(&parts, 0).unwrap();
    let mut workspace = Workspace::default();
    let allowance = allocated(0.5, 1.0);
    let moved = images.to_device(&accelerator()).unwrap();
    for (path, images) in [(&model.sparse, &images), (&model.gathered, &moved)] {
        let logits = path.forward_sparse_within(images, &allowance, &mut workspace);
        let logits: Vec<Vec<f32>> = logits.unwrap().to_vec2().unwrap();
        let nan = logits.iter().map(|row| row.iter().all(|x| x.is_nan()));
        assert_eq!(nan.collect::<Vec<_>>(), [false, true, false]);
    }
}
