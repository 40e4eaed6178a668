//! The commands beside training and evaluation: macs, throughput, inspect, convert.

use std::fs;
use std::path::Path;
use std::process::Command;

use adavit_decision::DecisionConfig;
use adavit_model::{Checkpoint, ModelConfig, initial_tensors, write_tensors};
use serde_json::Value;

use super::{adavit, assert_refusal, assert_refused, json, made_images};

#[test]
fn macs_are_the_known_values_in_both_accountings() {
    let folder = tempfile::tempdir().unwrap();
    let preset = ["macs", "--preset", "deit_small_patch16_224"];
    let exact = json(&adavit(folder.path(), &[&preset[..], &["--json"]].concat()));
    assert_eq!(exact["dense"]["macs"], 4_598_882_304_u64);
    assert_eq!(exact["adaptive_all_kept"]["macs"], 4_599_819_264_u64);
    for part in [
        "patch_embed",
        "decisions",
        "qkv",
        "attention",
        "proj",
        "mlp",
        "head",
    ] {
        assert!(exact["dense"]["parts"][part].is_u64(), "{part}");
    }
    let table = ["--accounting", "paper", "--table", "table.safetensors"];
    let paper = adavit(folder.path(), &[&preset[..], &table].concat());
    // The header, and 7 x 198 x 2 x 2 floats.
    let size = fs::metadata(folder.path().join("table.safetensors")).unwrap();
    assert!(size.len() > 4 * 7 * 198 * 4);
    let exact = adavit(folder.path(), &[&preset[..], &table[2..]].concat());
    assert_eq!(exact.status.code(), Some(2));
    let t2t = ["macs", "--preset", "t2t_vit_19"];
    let found = json(&adavit(
        folder.path(),
        &[&t2t[..], &table, &["--rounding", "exact", "--json"]].concat(),
    ));
    assert_eq!(found["parts"]["full_block"], 431_042_304_u64);
    assert_eq!(found["macs"], 19 * 431_042_304_u64 + 330_000_000);
    let text = String::from_utf8_lossy(&paper.stdout).into_owned();
    assert!(
        text.contains("4.61 G") && text.contains("0.37915 G"),
        "{text}"
    );
    let unknown = [
        "macs",
        "--preset",
        "nano_patch4_28",
        "--accounting",
        "paper",
    ];
    assert_eq!(adavit(folder.path(), &unknown).status.code(), Some(2));
}

#[test]
fn throughput_tells_speed_memory_and_where_the_time_goes() {
    let folder = tempfile::tempdir().unwrap();
    let args = "throughput --preset nano_patch7_28 --batch 2 --seconds 0.01 --threads 2 --train --profile --json";
    let found = json(&adavit(folder.path(), &args.split(' ').collect::<Vec<_>>()));
    assert_eq!(found["preset"], "nano_patch7_28");
    assert_eq!(
        (found["batch"].as_u64(), found["threads"].as_u64()),
        (Some(2), Some(2))
    );
    assert_eq!(found["dense"]["macs"], 5_286_272);
    for key in ["dense", "train"] {
        assert!(found[key]["images_per_s"].as_f64().unwrap() > 0.0);
        let share = found[key]["share_of_peak"].as_f64().unwrap();
        assert!(share > 0.0 && share.is_finite());
        let profile = found[key]["profile"].as_array().unwrap();
        let operations: Vec<&str> = profile
            .iter()
            .map(|row| row["operation"].as_str().unwrap())
            .collect();
        assert!(operations.contains(&"attention") && operations.contains(&"rest"));
        let shares: f64 = profile
            .iter()
            .map(|row| row["share"].as_f64().unwrap())
            .sum();
        assert!((shares - 1.0).abs() < 1e-6, "{shares}");
    }
    let text = adavit(
        folder.path(),
        &args
            .split(' ')
            .filter(|arg| *arg != "--json")
            .collect::<Vec<_>>(),
    );
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(
        text.contains("images/s") && text.contains("mlp backward"),
        "{text}"
    );
}

#[test]
fn work_that_cannot_be_measured_is_refused() {
    let cases = [
        (&["--batch", "0"][..], "batch: expected"),
        (&["--seconds", "0"], "seconds: expected"),
        (&["--seconds", "-1"], "seconds: expected"),
        (&["--threads", "0"], "threads: expected"),
    ];
    for (extra, what) in cases {
        let args = [&["throughput", "--preset", "nano_patch7_28"], extra].concat();
        assert_refused(&args, what, |_| {});
    }
    let output = Command::new(env!("CARGO_BIN_EXE_adavit"))
        .args(["throughput", "--preset", "nano_patch7_28"])
        .env("ADAVIT_SIMD", "mmx")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("ADAVIT_SIMD") && text.lines().count() == 1,
        "{text}"
    );
}

#[test]
fn throughput_compares_the_paths_under_a_usage() {
    let folder = tempfile::tempdir().unwrap();
    let args = "throughput --preset nano_patch7_28 --batch 2 --seconds 0.01 --threads 2 --json --profile \
                --usage heads=0.5,tokens=0.7";
    let args: Vec<&str> = args.split_whitespace().collect();
    let found = json(&adavit(folder.path(), &args));
    let number = |value: &Value| value.as_f64().unwrap();
    for path in ["dense", "masked", "sparse"] {
        assert!(number(&found[path]["images_per_s"]) > 0.0, "{path}");
    }
    let macs = number(&found["sparse"]["macs"]);
    assert!((macs - number(&found["sparse"]["macs_executed"])).abs() < 0.5);
    assert!(macs < number(&found["dense"]["macs"]));
    assert!(number(&found["realised"]) > 0.0);
    let latency = &found["latency_ms"];
    assert!(number(&latency["p50"]) <= number(&latency["p99"]));
    let profile = found["sparse"]["profile"].as_array().unwrap();
    assert!(profile.iter().any(|row| row["operation"] == "decisions"));
    for usage in ["heads=0", "heads=1.5", "width=0.5", "tokens", ""] {
        let args = ["throughput", "--preset", "nano_patch7_28", "--usage", usage];
        let refused = adavit(folder.path(), &args);
        assert_eq!(refused.status.code(), Some(2), "{usage}");
    }
}

#[test]
fn a_checkpoint_is_told_and_converted() {
    let folder = tempfile::tempdir().unwrap();
    let config = ModelConfig {
        embed_dim: 64,
        num_heads: 1,
        ..ModelConfig::preset("nano_patch7_28").unwrap()
    };
    let tensors = initial_tensors(&config, 1, 0.0).unwrap();
    write_tensors(&folder.path().join("vit.safetensors"), &tensors).unwrap();
    let found = json(&adavit(
        folder.path(),
        &["inspect", "vit.safetensors", "--json"],
    ));
    assert_eq!(found["source"], "timm");
    assert_eq!(found["config"]["num_heads"], 1);
    assert_eq!(found["tensors"], tensors.len());
    let convert = ["convert", "vit.safetensors", "own"];
    let told = adavit(folder.path(), &convert);
    assert!(told.status.success());
    assert!(String::from_utf8_lossy(&told.stderr).contains("note: "));
    let found = json(&adavit(folder.path(), &["inspect", "own", "--json"]));
    assert_eq!(
        (&found["source"], found["notes"].as_array().unwrap().len()),
        (&Value::from("adavit"), 0)
    );
    // What is there is not overwritten unasked.
    assert_eq!(adavit(folder.path(), &convert).status.code(), Some(2));
    assert!(
        adavit(folder.path(), &[&convert[..], &["--force"]].concat())
            .status
            .success()
    );
    fs::write(folder.path().join("broken.safetensors"), "no tensors").unwrap();
    assert_eq!(
        adavit(folder.path(), &["inspect", "broken.safetensors"])
            .status
            .code(),
        Some(2)
    );
}

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

/// A snapshot is calibrated on the run's images as well, into another folder: the run goes on from it.
fn check_calibration_of_a_snapshot(folder: &Path, half: u64) {
    let last = folder.join("run/last");
    fs::create_dir(&last).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(folder.join("run/best").join(name), last.join(name)).unwrap();
    }
    fs::write(last.join("state.json"), "{}").unwrap();
    let calibrate = ["calibrate", "run/last", "--budget", "0.6", "--json"];
    assert_refusal(&adavit(folder, &calibrate), "--out");
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
