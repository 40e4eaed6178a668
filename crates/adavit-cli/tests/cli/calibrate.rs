//! `adavit calibrate`: thresholds for a budget, on the run's own held-out images.

use std::fs;
use std::path::Path;

use adavit_decision::DecisionConfig;
use adavit_model::{Checkpoint, ModelConfig, initial_tensors};
use serde_json::Value;

use super::helpers::{adavit, assert_refusal, made_images};

#[test]
fn thresholds_are_moved_to_a_budget_and_written() {
    let folder = tempfile::tempdir().unwrap();
    made_images(folder.path(), 0);
    let config = ModelConfig::preset("nano_patch7_28")
        .unwrap()
        .with_decisions(DecisionConfig::default());
    let mut tensors = initial_tensors(&config, 1, 0.0).unwrap();
    for (name, tensor) in &mut tensors {
        // Wide, so that gates differ and a threshold can be found.
        if adavit_model::is_decision_tensor(name) {
            *tensor = (&*tensor * 30.0).unwrap();
        }
    }
    let checkpoint = Checkpoint { config, tensors };
    checkpoint.save(&folder.path().join("model")).unwrap();
    let calibrate = [
        "calibrate",
        "model",
        "--data",
        "images",
        "--held-out",
        "0.5",
        "--json",
    ];
    let with = |more: &[&str]| adavit(folder.path(), &[&calibrate[..], more].concat());
    let thresholds = |name: &str| {
        let config = Checkpoint::load(&folder.path().join(name)).unwrap().config;
        config.decisions.unwrap().thresholds
    };
    let before = thresholds("model");
    let mut shares = Vec::new();
    for budget in ["0.4", "0.7"] {
        let output = with(&["--budget", budget, "--out", budget]);
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let share = found["held_out"]["macs_share"].as_f64().unwrap();
        let asked: f64 = budget.parse().unwrap();
        let near = (share - asked).abs() <= 0.02 * asked;
        assert_eq!(output.status.code(), Some(i32::from(!near)), "{share}");
        shares.push(share);
        assert_ne!(thresholds(budget), before);
    }
    assert!(shares[0] < shares[1], "{shares:?}");
    assert_eq!(thresholds("model"), before);
    // Gates that cannot save so much leave the checkpoint as it is.
    let missed = with(&["--budget", "0.01"]);
    assert_eq!(missed.status.code(), Some(1));
    let missed: Value = serde_json::from_slice(&missed.stdout).unwrap();
    assert!(missed["checkpoint"].is_null());
    assert_eq!(thresholds("model"), before);
    // Without another folder the checkpoint itself is changed.
    with(&["--budget", "0.4"]);
    assert_eq!(thresholds("model"), thresholds("0.4"));
    let plain = ["calibrate", "model", "--data", "images", "--budget", "1.5"];
    assert_eq!(adavit(folder.path(), &plain).status.code(), Some(2));
    check_calibration_of_a_run(folder.path());
}

/// A run's checkpoint is calibrated on the images that the run held out.
fn check_calibration_of_a_run(folder: &Path) {
    let run = folder.join("run");
    fs::create_dir(&run).unwrap();
    fs::rename(folder.join("model"), run.join("best")).unwrap();
    fs::write(
        run.join("config.toml"),
        "data = \"images\"\nheld_out = 0.25\n",
    )
    .unwrap();
    let of = |checkpoint: &str, more: &[&str]| {
        let calibrate = ["calibrate", checkpoint, "--budget", "0.6", "--json"];
        let output = adavit(folder, &[&calibrate[..], more].concat());
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        found["held_out"]["images"].as_u64().unwrap()
    };
    let half = of("run", &["--held-out", "0.5"]);
    assert_eq!(of("run", &[]) * 2, half);
    assert_eq!(of("run/best", &[]) * 2, half);
    check_calibration_of_a_snapshot(folder, half);
    // From within the run, too.
    let inside = adavit(
        &run.join("best"),
        &[
            "calibrate",
            ".",
            "--budget",
            "0.6",
            "--json",
            "--data",
            "../../images",
        ],
    );
    let inside: Value = serde_json::from_slice(&inside.stdout).unwrap();
    assert_eq!(inside["held_out"]["images"].as_u64().unwrap() * 2, half);
    check_refusal_of_a_rival(folder, &run);
}

/// A snapshot is calibrated on the run's images too, but into another folder: the run resumes from it.
fn check_calibration_of_a_snapshot(folder: &Path, half: u64) {
    let last = folder.join("run/last");
    fs::create_dir(&last).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(folder.join("run/best").join(name), last.join(name)).unwrap();
    }
    fs::write(last.join("state.json"), "{}").unwrap();
    let calibrate = ["calibrate", "run/last", "--budget", "0.6", "--json"];
    assert_refusal(&adavit(folder, &calibrate), "choose another folder");
    let output = adavit(folder, &[&calibrate[..], &["--out", "cheaper"]].concat());
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["held_out"]["images"].as_u64().unwrap() * 2, half);
}

/// The checkpoint of a run by random decisions is not the model that the run trained.
fn check_refusal_of_a_rival(folder: &Path, run: &Path) {
    let method = "data = \"images\"\nmethod = { kind = \"random\", usage = [] }\n";
    fs::write(run.join("config.toml"), method).unwrap();
    for args in [
        &["calibrate", "run", "--budget", "0.6"][..],
        &["eval", "--checkpoint", "run/best"],
        &["predict", "run/best/model.safetensors", "."],
    ] {
        assert_refusal(&adavit(folder, args), "its own decisions");
    }
    // A folder beside the run's own is not of the run.
    let other = run.join("other");
    fs::rename(run.join("best"), &other).unwrap();
    let output = adavit(
        folder,
        &["eval", "--checkpoint", "run/other", "--data", "images"],
    );
    assert!(output.status.success());
}
