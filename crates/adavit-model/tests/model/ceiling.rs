//! A ceiling on the MACs of each image holds on every path, and the paths turn off the same gates.

use adavit_decision::{Allowance, BlockLogits, Ceiling, Gating, HardPolicy, HeadDeactivation};
use adavit_gumbel::SeededNoise;
use adavit_model::{Capture, Output, Strategy, Workspace};
use candle_core::Tensor;
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};

use crate::common::values;
use crate::harness::{Decides, Model, accelerator, assert_close, config, variants};

/// How far logits are moved to see whether a choice between gates is a close one. The paths differ
/// by float32 rounding, of which 1e-4 is a hundred times the size.
const NUDGE: f64 = 1e-4;

/// The masked path within an allowance.
fn masked(model: &Model, images: &Tensor, allowance: &Allowance) -> Output {
    let (gating, capture) = (&mut Gating::Inference, Capture::default());
    let output = model
        .masked
        .forward_masked_within(images, gating, allowance, capture);
    output.unwrap()
}

/// The sparse path within an allowance: logits, image by image, and what was kept.
fn sparse(
    model: &Model,
    images: &Tensor,
    allowance: &Allowance,
    workspace: &mut Workspace,
) -> Vec<Vec<f32>> {
    let logits = model
        .sparse
        .forward_sparse_within(images, allowance, workspace);
    logits.unwrap().to_vec2().unwrap()
}

/// The MACs of each image.
fn macs(model: &Model, policy: &HardPolicy) -> Vec<u64> {
    let decisions = model.config.decisions.as_ref().unwrap();
    let geometry = model.config.geometry();
    (0..policy.batch())
        .map(|image| geometry.image_macs(decisions, &policy.image_kept(image)))
        .collect()
}

/// What the logits of a masked forward, each moved by at most `nudge`, keep within a ceiling.
fn kept_by(model: &Model, output: &Output, max_macs: u64, nudge: Option<u64>) -> HardPolicy {
    let decisions = model.config.decisions.as_ref().unwrap();
    let geometry = model.config.geometry();
    let b = output.logits.dim(0).unwrap();
    let mut ceiling = Ceiling::new(max_macs, decisions, &geometry, b).unwrap();
    let mut policy = HardPolicy::all(&geometry, b);
    let thresholds = decisions.thresholds;
    for (block, decision) in output.decisions.iter().enumerate() {
        let mut place = block as f64;
        let mut moved = |logits: &Option<Tensor>| {
            logits.as_ref().map(|logits| match nudge {
                None => logits.clone(),
                Some(seed) => {
                    let by = values(logits).into_iter().map(|logit| {
                        place += 1.0;
                        let wave = (place * 12.9898 + seed as f64 * 7.233).sin();
                        (f64::from(logit) + NUDGE * wave) as f32
                    });
                    let by: Vec<f32> = by.collect();
                    Tensor::from_vec(by, logits.dims(), logits.device()).unwrap()
                }
            })
        };
        let logits = BlockLogits {
            patches: moved(&decision.logits.patches),
            heads: moved(&decision.logits.heads),
            sublayers: moved(&decision.logits.sublayers),
        };
        for image in 0..b {
            let set = |bits: &mut [bool], logits: &Option<Tensor>, threshold: f64| {
                let Some(logits) = logits else { return };
                let logits = values(&logits.get(image).unwrap());
                for (bit, logit) in bits.iter_mut().zip(logits) {
                    *bit = adavit_gumbel::is_on(logit, threshold);
                }
            };
            set(
                policy.patches_mut(block, image),
                &logits.patches,
                thresholds.tokens,
            );
            set(
                policy.heads_mut(block, image),
                &logits.heads,
                thresholds.heads,
            );
            set(
                policy.sublayers_mut(block, image),
                &logits.sublayers,
                thresholds.blocks,
            );
        }
        ceiling.fit_block(&mut policy, block, &logits).unwrap();
    }
    policy
}

/// Checks every path of `model` within one ceiling. Returns whether no choice between gates was so
/// close that rounding might decide it, in which case the paths were compared.
fn check(model: &mut Model, images: &Tensor, max_macs: u64) -> bool {
    let b = images.dim(0).unwrap();
    let allowance = Allowance::of_macs(max_macs);
    let output = masked(model, images, &allowance);
    let geometry = model.config.geometry();
    let policy = HardPolicy::new(&output.policy(), &geometry, b).unwrap();
    assert!(macs(model, &policy).iter().all(|macs| *macs <= max_macs));
    assert!(kept_by(model, &output, max_macs, None) == policy);

    let mut workspace = Workspace::default();
    model.sparse.set_strategy(Strategy::Exact);
    let exact = sparse(model, images, &allowance, &mut workspace);
    let own = workspace.policy().clone();
    let counted = macs(model, &own);
    assert!(counted.iter().all(|macs| *macs <= max_macs));
    assert_eq!(workspace.take_macs(), counted.iter().sum::<u64>());
    // What a single image executes is no more than the ceiling either, and has the same bits.
    let last = images.narrow(0, b - 1, 1).unwrap();
    let alone = sparse(model, &last, &allowance, &mut workspace);
    assert!(alone[0] == exact[b - 1]);
    assert!(workspace.take_macs() <= max_macs);
    model.sparse.set_strategy(Strategy::Whole);
    assert!(sparse(model, images, &allowance, &mut workspace) == exact);

    let moved = images.to_device(&accelerator()).unwrap();
    let gathered = model
        .gathered
        .forward_sparse_within(&moved, &allowance, &mut workspace)
        .unwrap();
    let of_gathered = workspace.policy().clone();
    assert!(
        macs(model, &of_gathered)
            .iter()
            .all(|macs| *macs <= max_macs)
    );

    let clear = (0..4).all(|seed| kept_by(model, &output, max_macs, Some(seed)) == policy);
    if clear {
        assert!(own == policy && of_gathered == policy);
        let exact = Tensor::new(exact, images.device()).unwrap();
        assert_close(&exact, &output.logits);
        assert_close(&gathered, &output.logits);
    }
    clear
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_path_exceeds_the_ceiling(config in variants(), b in 1usize..6, seed: u64, thresholds in any::<[u8; 3]>()) {
        let mut config = config;
        let [tokens, heads, blocks] = thresholds.map(|t| 0.02 + f64::from(t) / 256.0 * 0.9);
        let own = &mut config.decisions.as_mut().unwrap().thresholds;
        (own.tokens, own.heads, own.blocks) = (tokens, heads, blocks);
        let mut model = Model::new(config, seed % 1000);
        let images = model.images(b, seed % 100);
        let geometry = model.config.geometry();
        let floor = model.config.floor_macs();
        let most = geometry.most_macs(model.config.decisions.as_ref().unwrap());
        for share in [0.0, 0.1, 0.35, 0.6, 0.9] {
            check(&mut model, &images, floor + ((most - floor) as f64 * share) as u64);
        }
        // At the floor nothing is left to choose.
        let mut workspace = Workspace::default();
        sparse(&model, &images, &Allowance::of_macs(floor), &mut workspace);
        prop_assert!(macs(&model, workspace.policy()).iter().all(|macs| *macs == floor));
        workspace.take_macs();
    }

    #[test]
    fn what_fits_has_the_same_bits(config in variants(), b in 1usize..6, seed: u64, share in 0.0..1.0_f64) {
        let model = Model::new(config, seed % 1000);
        let images = model.images(b, seed % 100);
        let mut workspace = Workspace::default();
        let free = sparse(&model, &images, &Allowance::default(), &mut workspace);
        let costs = macs(&model, workspace.policy());
        let free_masked = masked(&model, &images, &Allowance::default()).logits.to_vec2::<f32>().unwrap();
        let most = model.config.geometry().most_macs(model.config.decisions.as_ref().unwrap());
        let floor = model.config.floor_macs();
        for max_macs in [most, floor + ((most - floor) as f64 * share) as u64] {
            let allowance = Allowance::of_macs(max_macs);
            let found = sparse(&model, &images, &allowance, &mut workspace);
            let found_masked = masked(&model, &images, &allowance).logits.to_vec2::<f32>().unwrap();
            for image in 0..b {
                if costs[image] <= max_macs {
                    prop_assert_eq!(&found[image], &free[image]);
                    prop_assert_eq!(&found_masked[image], &free_masked[image]);
                }
            }
        }
    }
}

/// A model of every kind of head gates, from the first block on or the second.
fn models() -> impl Iterator<Item = Model> {
    let modes = [
        Some(HeadDeactivation::Full),
        Some(HeadDeactivation::Partial),
        Some(HeadDeactivation::HeadV2),
        None,
    ];
    modes.into_iter().enumerate().flat_map(|(index, heads)| {
        [true, false].map(|tokens_with_mlp| {
            let decides = Decides {
                tokens_with_mlp,
                ..Decides::all(heads, index % 2)
            };
            Model::new(config(3, 16, decides), 17 + index as u64)
        })
    })
}

#[test]
fn most_choices_are_clear_and_then_the_paths_agree() {
    let (mut clear, mut all) = (0, 0);
    for mut model in models() {
        let geometry = model.config.geometry();
        let floor = model.config.floor_macs();
        let most = geometry.most_macs(model.config.decisions.as_ref().unwrap());
        let images = model.images(3, 4);
        for step in 1..8 {
            all += 1;
            let max_macs = floor + (most - floor) * step / 8;
            clear += usize::from(check(&mut model, &images, max_macs));
        }
    }
    assert!(clear * 2 > all, "{clear} of {all}");
}

#[test]
fn a_higher_ceiling_is_used() {
    for model in models() {
        let geometry = model.config.geometry();
        let floor = model.config.floor_macs();
        let most = geometry.most_macs(model.config.decisions.as_ref().unwrap());
        let images = model.images(24, 4);
        let mut workspace = Workspace::default();
        let mut before = 0.0;
        for step in 0..=6 {
            let max_macs = floor + (most - floor) * step / 6;
            sparse(
                &model,
                &images,
                &Allowance::of_macs(max_macs),
                &mut workspace,
            );
            let costs = macs(&model, workspace.policy());
            let mean = costs.iter().sum::<u64>() as f64 / costs.len() as f64;
            assert!(
                mean >= before,
                "{mean} within {max_macs}, {before} within less"
            );
            before = mean;
        }
    }
}

#[test]
fn a_ceiling_below_the_floor_or_in_training_is_refused() {
    let model = models().next().unwrap();
    let images = model.images(2, 1);
    let floor = model.config.floor_macs();
    let below = Allowance::of_macs(floor - 1);
    let sparse = model
        .sparse
        .forward_sparse_within(&images, &below, &mut Workspace::default());
    let capture = Capture::default();
    let masked =
        model
            .masked
            .forward_masked_within(&images, &mut Gating::Inference, &below, capture);
    for error in [sparse.unwrap_err(), masked.unwrap_err()] {
        assert!(error.is_input_error());
        let text = error.to_string();
        assert!(
            text.contains(&format!("expected at least {floor}")),
            "{text}"
        );
    }
    let mut noise = SeededNoise::new(0, 0, &[0, 1]);
    let mut gating = Gating::Training {
        noise: &mut noise,
        tau: 1.0,
    };
    let allowance = Allowance::of_macs(u64::MAX);
    let training = model
        .masked
        .forward_masked_within(&images, &mut gating, &allowance, capture);
    assert!(training.unwrap_err().to_string().contains("training"));
}
