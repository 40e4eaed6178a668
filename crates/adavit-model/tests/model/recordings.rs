//! Every path against recordings of the published implementation.

use adavit_decision::Gating;
use adavit_model::{
    Capture, Checkpoint, Recording, Replay, Verification, import_as, verify, write_tensors,
};
use candle_core::Device;

use crate::common::{difference, file, recorded_weights};

const EVALUATIONS: [&str; 11] = [
    "deit_ada_eval",
    "deit_ada_norm_policy_eval",
    "deit_dense_eval",
    "deit_extreme_all_eval",
    "deit_extreme_none_eval",
    "deit_head_v2_eval",
    "deit_layer_only_eval",
    "deit_partial_head_eval",
    "deit_token_only_eval",
    "t2t_ada_eval",
    "timm_deit_distilled_eval",
];

const TRAININGS: [&str; 6] = [
    "deit_ada_train",
    "deit_ada_train_extras",
    "deit_token_only_train",
    "t2t_ada_train",
    "timm_vit_train",
    "transformers_vit_train",
];

fn recording(name: &str) -> Recording {
    Recording::load(&file(&format!("recordings/{name}.safetensors"))).unwrap()
}

/// Differences are of rounding through four blocks: an f64 transcription of the same model differs
/// from the recordings by up to 1.4e-6, of which the tolerances leave room for ten.
fn assert_passed(name: &str, verification: &Verification) {
    for comparison in &verification.comparisons {
        assert!(comparison.passed, "{name}: {comparison:?}");
        assert!(comparison.of_tolerance < 0.5, "{name}: {comparison:?}");
    }
}

#[test]
fn every_path_equals_every_evaluation() {
    for name in EVALUATIONS {
        let recording = recording(name);
        for replay in [Replay::Masked, Replay::Sparse, Replay::Gathered] {
            let found = verify(&recording, None, replay, &Device::Cpu).unwrap();
            assert_passed(name, &found);
            let kinds: Vec<&str> = found.comparisons.iter().map(|c| c.kind).collect();
            let gates = recording.config.decisions.is_some();
            assert_eq!(kinds.contains(&"gates"), gates, "{name}: {kinds:?}");
            assert!(kinds.contains(&"logits"));
            assert_eq!(kinds.contains(&"hidden"), replay == Replay::Masked);
        }
    }
}

#[test]
fn losses_and_gradients_equal_every_training() {
    for name in TRAININGS {
        let recording = recording(name);
        let found = verify(&recording, None, Replay::Masked, &Device::Cpu).unwrap();
        assert_passed(name, &found);
        let of = |kind: &str| found.comparisons.iter().find(|c| c.kind == kind).unwrap();
        assert!(of("gradients").tensors > 50, "{name}");
        assert!(of("losses").tensors >= 2, "{name}");
        // The sparse path has no gradients to compare.
        let error = verify(&recording, None, Replay::Sparse, &Device::Cpu);
        assert!(error.unwrap_err().to_string().contains("evaluations only"));
    }
}

#[test]
fn a_changed_weight_or_gate_fails() {
    let recording = recording("deit_ada_eval");
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.safetensors");
    write_tensors(&other, &recorded_weights("deit_ada_train")).unwrap();
    for replay in [Replay::Masked, Replay::Sparse] {
        let found = verify(&recording, Some(&other), replay, &Device::Cpu).unwrap();
        assert!(!found.passed());
        assert!(
            found
                .comparisons
                .iter()
                .any(|c| c.kind == "gates" && !c.passed)
        );
    }
}

#[test]
fn published_files_give_the_expected_logits() {
    for (name, expected) in [
        ("timm_saver_ema.pth", "timm_saver_ema_expected"),
        ("deit_fused_qkv.pth", "deit_fused_qkv_expected"),
        ("deit_fused_qkv_legacy.pth", "deit_fused_qkv_expected"),
    ] {
        let recording = Recording::load(&file(&format!("published/{expected}.safetensors")));
        let recording = recording.unwrap();
        let checkpoint = file(&format!("published/{name}"));
        for replay in [Replay::Masked, Replay::Sparse] {
            let found = verify(&recording, Some(&checkpoint), replay, &Device::Cpu).unwrap();
            assert_passed(name, &found);
        }
        let imported = import_as(&checkpoint, &recording.config).unwrap();
        let wrapper = imported.wrapper.unwrap();
        assert_eq!(wrapper == "state_dict_ema", name.starts_with("timm"));
    }
}

#[test]
fn a_given_policy_equals_the_decisions_that_it_was_taken_from() {
    let recording = recording("deit_ada_eval");
    let weights = Checkpoint {
        config: recording.config.clone(),
        tensors: recorded_weights("deit_ada_eval"),
    };
    let model = weights.model(&Device::Cpu).unwrap();
    let images = recording.input().unwrap();
    let decided = model
        .forward_masked(images, &mut Gating::Inference, Capture::default())
        .unwrap();
    let given = model
        .forward_policy(images, &decided.policy(), Capture::default())
        .unwrap();
    assert_eq!(difference(&given.logits, &decided.logits), 0.0);
}
