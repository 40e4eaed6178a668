//! The program as people and scripts meet it: exit codes, JSON, errors on one line.
#![expect(
    clippy::unwrap_used,
    reason = "the helpers here are test code, which clippy does not see"
)]

mod checkpoints;
mod folders;
mod options;
mod predict;
mod sweep;
mod tools;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use adavit_model::{Checkpoint, ModelConfig, initial_tensors};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

fn adavit(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_adavit"))
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn idx(folder: &Path, name: &str, header: &[u32], body: &[u8]) {
    let file = fs::File::create(folder.join(format!("{name}.gz"))).unwrap();
    let mut gzip = GzEncoder::new(file, Compression::fast());
    for number in header {
        gzip.write_all(&number.to_be_bytes()).unwrap();
    }
    gzip.write_all(body).unwrap();
    gzip.finish().unwrap();
}

/// A folder of IDX files with two classes.
fn made_images(folder: &Path, labels_less: usize) -> PathBuf {
    let data = folder.join("images");
    fs::create_dir_all(&data).unwrap();
    for (part, n) in [("train", 64), ("t10k", 20)] {
        let pixels: Vec<u8> = (0..n * 784)
            .map(|i| ((i * 31) % 120) as u8 + if (i / 784) % 2 == 0 { 100 } else { 0 })
            .collect();
        let header = [0x803, n as u32, 28, 28];
        idx(
            &data,
            &format!("{part}-images-idx3-ubyte"),
            &header,
            &pixels,
        );
        let labels: Vec<u8> = (0..n - labels_less).map(|i| (i % 2) as u8).collect();
        let header = [0x801, labels.len() as u32];
        idx(
            &data,
            &format!("{part}-labels-idx1-ubyte"),
            &header,
            &labels,
        );
    }
    data
}

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
fn training_then_evaluation_give_json_and_a_run_folder() {
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
    // A finished run says what it came to again.
    let again = ["train", "--resume", "runs/train", "--json"];
    assert_eq!(
        json(&adavit(folder.path(), &again))["adaptive"],
        summary["adaptive"]
    );
}

#[test]
fn a_run_killed_while_it_writes_a_snapshot_goes_on_to_the_same_weights() {
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
    assert!(
        resumed.status.success(),
        "{}",
        String::from_utf8_lossy(&resumed.stderr)
    );
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
    let told = String::from_utf8_lossy(&limited.stderr).into_owned();
    assert!(
        told.contains("the time is up") && told.contains("--resume limited"),
        "{told}"
    );
    for folder in [run, folder.path().join("limited")] {
        let state = fs::read_to_string(folder.join("last/state.json")).unwrap();
        let state: Value = serde_json::from_str(&state).unwrap();
        assert!(state["progress"]["step"].as_u64().unwrap() > 0, "{state}");
    }
}

/// Checks that a command ended with bad input, and said so on one line that holds `what`.
fn assert_refusal(output: &Output, what: &str) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("error: ") && text.contains(what), "{text}");
    assert!(output.stdout.is_empty());
}

/// Runs `args` in a folder with made images, and checks that they are refused: exit code 2, one
/// line that contains `what`, nothing written.
fn assert_refused(args: &[&str], what: &str, prepare: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    made_images(folder.path(), 0);
    prepare(folder.path());
    let before = listing(folder.path());
    assert_refusal(&adavit(folder.path(), args), what);
    assert_eq!(listing(folder.path()), before, "{args:?}");
}

fn listing(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
}

#[test]
fn bad_data_is_refused() {
    let train = ["train", "--data", "images"];
    assert_refused(&["train", "--data", "./nowhere"], "nowhere", |_| ());
    let missing = ["train", "--data", "fashion-mnist", "--data-dir", "nowhere"];
    assert_refused(&missing, "nowhere", |_| ());
    assert_refused(&train, "train-images-idx3-ubyte.gz", |folder| {
        let file = folder.join("images/train-images-idx3-ubyte.gz");
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    });
    assert_refused(&train, "labels", |folder| {
        made_images(folder, 3);
    });
}

#[test]
fn bad_settings_are_refused() {
    let with_file = ["train", "--config", "bad.toml"];
    for (text, what) in [
        ("data = \"images\"\nbudgte = 0.5\n", "budgte"),
        (
            "data = \"images\"\n[model]\npatch_size = 5\n",
            "patch_size 5",
        ),
        ("data = \"images\"\n[model]\nnum_heads = 5\n", "num_heads 5"),
        ("data = ", "bad.toml"),
    ] {
        assert_refused(&with_file, what, |folder| {
            fs::write(folder.join("bad.toml"), text).unwrap();
        });
    }
    for budget in ["0", "1.5", "-1", "nan", "0.001", "half"] {
        let args = ["train", "--data", "images", "--budget", budget];
        assert_refused(&args, "budget", |_| ());
    }
    for threads in ["0", "100000"] {
        let args = ["train", "--data", "images", "--threads", threads];
        assert_refused(&args, "threads", |_| ());
    }
    let preset = ["train", "--data", "images", "--preset", "deit_huge"];
    assert_refused(&preset, "deit_small_patch16_224", |_| ());
    let seed = ["train", "--data", "images", "--seed", "9223372036854775808"];
    assert_refused(&seed, "seed", |_| ());
    let cuda = ["train", "--data", "images", "--device", "cuda"];
    assert_refused(&cuda, "--features cuda", |_| ());
    assert_refused(&["train", "--resume", "nowhere"], "nowhere", |_| ());
    assert_refused(
        &["train", "--config", "nowhere.toml"],
        "nowhere.toml",
        |_| (),
    );
    assert_refused(&["eval", "--checkpoint", "nowhere"], "nowhere", |_| ());
    let full = ["train", "--data", "images", "--out", "."];
    assert_refused(&full, "not empty", |_| ());
}

#[test]
fn a_checkpoint_of_another_preset_is_refused() {
    let args = [
        "train",
        "--data",
        "images",
        "--preset",
        "nano_patch4_28",
        "--dense-checkpoint",
        "other",
    ];
    assert_refused(&args, "nano_patch7_28", |folder| {
        let config = ModelConfig::preset("nano_patch7_28").unwrap();
        let tensors = initial_tensors(&config, 0, 0.0).unwrap();
        Checkpoint { config, tensors }
            .save(&folder.join("other"))
            .unwrap();
    });
}

#[test]
fn options_that_do_not_exist_or_go_together_are_refused_with_help() {
    let folder = tempfile::tempdir().unwrap();
    for args in [
        &["train", "--budgte", "0.5"][..],
        &["train", "--resume", "x", "--seed", "1"],
        &["train", "--target-tokens", "0.5"],
        &["macs"],
        &[],
    ] {
        assert_eq!(
            adavit(folder.path(), args).status.code(),
            Some(2),
            "{args:?}"
        );
    }
    for args in [
        &["--help"][..],
        &["train", "--help"],
        &["eval", "--help"],
        &["--version"],
    ] {
        assert_eq!(
            adavit(folder.path(), args).status.code(),
            Some(0),
            "{args:?}"
        );
    }
}
