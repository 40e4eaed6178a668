//! Every path against recordings of the published implementation.
#![expect(
    clippy::unwrap_used,
    reason = "the helpers here are test code, which clippy does not see"
)]

use std::path::PathBuf;

use adavit_decision::Gating;
use adavit_model::{
    Capture, Recording, Replay, Verification, VisionTransformer, import_as, verify,
};
use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;

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

fn path(name: &str) -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests");
    tests.join(name)
}

fn recording(name: &str) -> Recording {
    Recording::load(&path(&format!("recordings/{name}.safetensors"))).unwrap()
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
    let weights = path("recordings/deit_ada_train.safetensors");
    let folder = tempfile::tempdir().unwrap();
    let other = adavit_model::read_tensors(&weights).unwrap();
    let other = other
        .into_iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix("weights.")?.to_string(), tensor)))
        .collect();
    let file = folder.path().join("other.safetensors");
    adavit_model::write_tensors(&file, &other).unwrap();
    for replay in [Replay::Masked, Replay::Sparse] {
        let found = verify(&recording, Some(&file), replay, &Device::Cpu).unwrap();
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
    for (file, expected) in [
        ("timm_saver_ema.pth", "timm_saver_ema_expected"),
        ("deit_fused_qkv.pth", "deit_fused_qkv_expected"),
        ("deit_fused_qkv_legacy.pth", "deit_fused_qkv_expected"),
    ] {
        let recording = Recording::load(&path(&format!("published/{expected}.safetensors")));
        let recording = recording.unwrap();
        let checkpoint = path(&format!("published/{file}"));
        for replay in [Replay::Masked, Replay::Sparse] {
            let found = verify(&recording, Some(&checkpoint), replay, &Device::Cpu).unwrap();
            assert_passed(file, &found);
        }
        let imported = import_as(&checkpoint, &recording.config).unwrap();
        let wrapper = imported.wrapper.unwrap();
        assert_eq!(wrapper == "state_dict_ema", file.starts_with("timm"));
    }
}

#[test]
fn a_given_policy_equals_the_decisions_that_it_was_taken_from() -> Result<()> {
    let recording = recording("deit_ada_eval");
    let weights = adavit_model::read_tensors(&path("recordings/deit_ada_eval.safetensors"));
    let weights = weights.unwrap().into_iter();
    let weights = weights
        .filter_map(|(name, tensor)| Some((name.strip_prefix("weights.")?.to_string(), tensor)))
        .collect();
    let vb = VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu);
    let model = VisionTransformer::new(&recording.config, &vb).unwrap();
    let images = recording.input().unwrap();
    let decided = model
        .forward_masked(images, &mut Gating::Inference, Capture::default())
        .unwrap();
    let given = model
        .forward_policy(images, &decided.policy(), Capture::default())
        .unwrap();
    let difference: Tensor = (given.logits - decided.logits)?
        .abs()?
        .flatten_all()?
        .max(0)?;
    assert_eq!(difference.to_scalar::<f32>()?, 0.0);
    Ok(())
}
