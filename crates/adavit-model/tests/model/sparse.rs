//! The sparse path against the masked one, which defines what a decision means.

use adavit_decision::{BlockPolicy, Gating, HardPolicy, HeadDeactivation, Policy};
use adavit_model::{Capture, Strategy, Workspace};
use candle_core::{Device, Tensor};
use proptest::prelude::{ProptestConfig, prop_assume, proptest};

use crate::harness::{Decides, Model, accelerator, assert_close, config, margin, variants};

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sparse_equals_masked_under_any_policy(config in variants(), b in 0usize..10, seed: u64) {
        let mut model = Model::new(config, seed % 1000);
        let images = model.images(b, seed % 100);
        let mut workspace = Workspace::default();
        // All off leaves the class token alone; all on is the dense model.
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

#[test]
fn one_kept_token_one_head_and_mixed_images_are_ordinary() {
    for mode in [
        HeadDeactivation::Full,
        HeadDeactivation::Partial,
        HeadDeactivation::HeadV2,
    ] {
        let mut model = Model::new(config(4, 16, Decides::all(Some(mode), 0)), 3);
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
        let block = BlockPolicy::new(Some(&patches), Some(heads), Some(sublayers));
        let policy = Policy {
            blocks: vec![block.unwrap(); 3],
        };
        model.check_policy(&images, &policy, &mut Workspace::default());
    }
}

#[test]
fn policies_that_do_not_fit_are_refused() {
    let model = Model::new(
        config(2, 16, Decides::all(Some(HeadDeactivation::Full), 1)),
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
