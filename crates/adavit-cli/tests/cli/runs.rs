//! Runs: folders, results, resuming to the same weights, signals and time limits.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::helpers::{adavit, json, made_images, stderr};

/// Checks a report of each image against that of all.
fn assert_per_image(path: &Path, found: &Value) {
    let lines = fs::read_to_string(path).unwrap();
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len() as u64, found["images"].as_u64().unwrap());
    let mean = |f: &dyn Fn(&Value) -> f64| lines.iter().map(f).sum::<f64>() / lines.len() as f64;
    let macs = mean(&|line| line["macs"].as_f64().unwrap());
    assert!((macs - found["macs"].as_f64().unwrap()).abs() < 1e-3);
    let top1 = mean(&|line| f64::from(u8::from(line["label"] == line["predicted"])));
    assert!((top1 - found["top1"].as_f64().unwrap()).abs() < 1e-9);
}

/// Checks the evaluations of a run's checkpoints against its summary.
fn assert_evaluations(folder: &Path, summary: &Value) {
    let eval = [
        "eval",
        "--checkpoint",
        "runs/train",
        "--data",
        "images",
        "--json",
    ];
    let found = json(&adavit(folder, &eval));
    assert_eq!(found["exec"], "sparse");
    let per_image = ["--exec", "masked", "--per-image", "images.jsonl"];
    let masked = json(&adavit(folder, &[&eval[..], &per_image].concat()));
    assert_eq!(masked["exec"], "masked");
    for found in [&found, &masked] {
        assert_eq!(found["top1"], summary["adaptive"]["top1"]);
        assert_eq!(found["macs"], summary["adaptive"]["macs"]);
    }
    assert_per_image(&folder.join("images.jsonl"), &found);
    let dense = [
        "eval",
        "--checkpoint",
        "runs/train/dense",
        "--data",
        "images",
        "--json",
    ];
    let found = json(&adavit(folder, &dense));
    assert_eq!(found["top1"], summary["dense"]["top1"]);
    assert_eq!(found["exec"], "dense");
}

#[test]
fn training_writes_a_run_folder_whose_checkpoints_evaluate_as_its_summary_says() {
    let folder = tempfile::tempdir().unwrap();
    made_images(folder.path(), 0);
    let config = "data = \"images\"\nbatch_size = 32\n[model]\npatch_size = 14\nembed_dim = 16\n\
                  depth = 2\nnum_heads = 2\n";
    fs::write(folder.path().join("tiny.toml"), config).unwrap();
    let train = [
        "train",
        "--config",
        "tiny.toml",
        "--epochs",
        "1",
        "--threads",
        "2",
        "--json",
    ];
    let summary = json(&adavit(folder.path(), &train));
    assert_eq!(summary["threads"], 2);
    assert!(summary["adaptive"]["images_per_s"].as_f64().unwrap() > 0.0);
    for name in [
        "config.toml",
        "metrics.csv",
        "summary.json",
        "best",
        "last",
        "dense",
    ] {
        assert!(
            folder.path().join("runs/train").join(name).exists(),
            "{name}"
        );
    }
    // The second run gets a folder of its own.
    json(&adavit(folder.path(), &train));
    assert!(folder.path().join("runs/train-2/summary.json").exists());

    assert_evaluations(folder.path(), &summary);
    // A finished run reports its results again.
    let again = ["train", "--resume", "runs/train", "--json"];
    assert_eq!(
        json(&adavit(folder.path(), &again))["adaptive"],
        summary["adaptive"]
    );
}

#[test]
fn a_run_killed_while_it_writes_a_snapshot_resumes_to_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    made_images(folder.path(), 0);
    let config = "data = \"images\"\nbatch_size = 16\nsnapshot_seconds = 1e-9\nrandom_policies = 1\n\
                  [model]\npatch_size = 14\nembed_dim = 16\ndepth = 2\nnum_heads = 2\n";
    fs::write(folder.path().join("tiny.toml"), config).unwrap();
    let train = ["train", "--config", "tiny.toml", "--epochs", "3", "--out"];
    let out = |name: &str| folder.path().join(name);
    assert!(
        adavit(folder.path(), &[&train[..], &["whole"]].concat())
            .status
            .success()
    );

    let mut child = Command::new(env!("CARGO_BIN_EXE_adavit"))
        .args([&train[..], &["killed"]].concat())
        .current_dir(folder.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The third time that the folder of a new snapshot is there, it is being written.
    for _ in 0..3 {
        while !out("killed/.last.new").exists() && child.try_wait().unwrap().is_none() {}
        while out("killed/.last.new").exists() && out("killed/previous").exists() {}
    }
    while !out("killed/.last.new").exists() && child.try_wait().unwrap().is_none() {}
    child.kill().unwrap();
    assert!(
        !child.wait().unwrap().success(),
        "the run ended before it was killed"
    );
    assert!(!out("killed/summary.json").exists());

    let resumed = adavit(folder.path(), &["train", "--resume", "killed"]);
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    for file in [
        "dense/model.safetensors",
        "best/model.safetensors",
        "last/state.safetensors",
    ] {
        let bytes = |name: &str| fs::read(out(name).join(file)).unwrap();
        assert!(bytes("whole") == bytes("killed"), "{file}");
    }
}

#[cfg(unix)]
#[test]
fn a_termination_signal_and_a_time_limit_save_the_run() {
    let folder = tempfile::tempdir().unwrap();
    made_images(folder.path(), 0);
    let train = ["train", "--data", "images", "--epochs", "100000", "--out"];
    let run = folder.path().join("signalled");
    let mut child = Command::new(env!("CARGO_BIN_EXE_adavit"))
        .args([&train[..], &["signalled"]].concat())
        .current_dir(folder.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !run.join("last/state.json").exists() && child.try_wait().unwrap().is_none() {}
    let kill = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    // A third of a second.
    let limited = [&train[..], &["limited", "--max-hours", "0.0001"]].concat();
    let limited = adavit(folder.path(), &limited);
    assert_eq!(limited.status.code(), Some(130));
    let told = stderr(&limited);
    assert!(
        told.contains("time limit reached") && told.contains("--resume limited"),
        "{told}"
    );
    for folder in [run, folder.path().join("limited")] {
        let state = fs::read_to_string(folder.join("last/state.json")).unwrap();
        let state: Value = serde_json::from_str(&state).unwrap();
        assert_eq!(state["progress"]["stage"], "dense", "{state}");
    }
}
