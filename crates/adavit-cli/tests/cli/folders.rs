//! Folders: claimed by one process, found from any current folder, extended by more epochs; and the
//! images that a checkpoint records.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use adavit_model::Checkpoint;

use super::helpers::{adavit, assert_refusal, made_images, stderr};

/// A run of a moment.
const TINY: &str = "data = \"images\"\nbudget = 0.9\nbatch_size = 32\nrandom_policies = 1\nmax_steps = 1\n\
                    [model]\npatch_size = 14\nembed_dim = 4\ndepth = 1\nnum_heads = 1\n\
                    [dense]\nepochs = 1\n[adaptive]\nepochs = 1\n";

/// A folder with images and the settings of such a run.
fn prepared() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    made_images(folder.path(), 0);
    fs::write(folder.path().join("tiny.toml"), TINY).unwrap();
    folder
}

/// Two processes of the same command, started at once.
fn two(folder: &Path, args: &[&str]) -> [Output; 2] {
    let start = || {
        Command::new(env!("CARGO_BIN_EXE_adavit"))
            .args(args)
            .current_dir(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    [start(), start()].map(|child| child.wait_with_output().unwrap())
}

fn codes(outputs: &[Output; 2]) -> [i32; 2] {
    let mut codes = [0, 1].map(|i| outputs[i].status.code().unwrap());
    codes.sort_unstable();
    codes
}

/// Times that two processes are started.
const ROUNDS: usize = 20;

#[test]
fn two_runs_without_a_folder_take_two_folders() {
    let folder = prepared();
    let runs = folder.path().join("runs");
    let train = ["train", "--config", "tiny.toml", "--threads", "1"];
    for _ in 0..ROUNDS {
        let outputs = two(folder.path(), &train);
        let said = [0, 1].map(|i| stderr(&outputs[i]));
        assert_eq!(codes(&outputs), [0, 0], "{said:?}");
        let entries = fs::read_dir(&runs).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["train", "train-2"]);
        assert!(
            names
                .iter()
                .all(|name| runs.join(name).join("summary.json").exists())
        );
        fs::remove_dir_all(&runs).unwrap();
    }
}

#[test]
fn of_two_runs_in_one_folder_one_is_refused() {
    let folder = prepared();
    let out = folder.path().join("run");
    for round in 0..ROUNDS {
        let mut train = vec![
            "train",
            "--config",
            "tiny.toml",
            "--threads",
            "1",
            "--out",
            "run",
        ];
        if round % 2 == 1 {
            // The folder holds a run.
            train.push("--force");
        } else {
            let _ = fs::remove_dir_all(&out);
        }
        let outputs = two(folder.path(), &train);
        let said = [0, 1].map(|i| stderr(&outputs[i]));
        // With force the second may begin after the first has ended.
        let both = train.contains(&"--force") && codes(&outputs) == [0, 0];
        assert!(both || codes(&outputs) == [0, 2], "{said:?}");
        for output in outputs.iter().filter(|output| !output.status.success()) {
            assert_refusal(output, "run: ");
        }
        assert!(out.join("summary.json").exists());
    }
}

#[test]
fn a_folder_in_use_is_refused_by_every_command_that_writes_it() {
    let folder = prepared();
    let path = folder.path();
    let train = ["train", "--config", "tiny.toml", "--out", "run"];
    assert!(adavit(path, &train).status.success());
    let sweep =
        "recipe = \"tiny.toml\"\nseeds = [0]\nbudgets = [0.9]\nrivals = []\nevit_blocks = []\n";
    fs::write(path.join("sweep.toml"), sweep).unwrap();
    fs::create_dir(path.join("sweep")).unwrap();
    let lock = |name: &str| {
        let file = fs::File::create(path.join(name).join(".lock")).unwrap();
        file.lock().unwrap();
        file
    };
    let _locks = [lock("run"), lock("sweep")];
    for command in [
        &["train", "--resume", "run"][..],
        &["train", "--resume", "run", "--epochs", "3"],
        &["train", "--config", "tiny.toml", "--out", "run", "--force"],
        &["calibrate", "run", "--budget", "0.9"],
        &["convert", "run", "run/best", "--force"],
        &["sweep", "--config", "sweep.toml", "--out", "sweep"],
    ] {
        assert_refusal(&adavit(path, command), "another process");
    }
    // What is only read, or written elsewhere, is not refused.
    let convert = ["convert", "run", "elsewhere"];
    assert!(adavit(path, &convert).status.success());
    assert_refusal(&adavit(path, &convert), "exists already");
}

#[test]
fn a_run_resumes_from_another_current_folder() {
    let folder = prepared();
    let path = folder.path();
    let elsewhere = path.join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let stop = [
        "train",
        "--config",
        "tiny.toml",
        "--out",
        "my run",
        "--max-hours",
        "0.0000001",
    ];
    assert_eq!(adavit(path, &stop).status.code(), Some(130));
    let resume = ["train", "--resume", "../my run"];
    let resumed = adavit(&elsewhere, &resume);
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    // Images that were moved are given again.
    fs::rename(path.join("images"), path.join("moved")).unwrap();
    assert_refusal(
        &adavit(&elsewhere, &resume),
        "which is not there; give their place",
    );
    let given = adavit(&elsewhere, &[&resume[..], &["--data", "../moved"]].concat());
    assert!(given.status.success(), "{}", stderr(&given));
}

#[test]
fn a_relative_path_of_an_older_run_is_said_to_be_relative() {
    let folder = prepared();
    let path = folder.path();
    fs::create_dir(path.join("old")).unwrap();
    fs::create_dir(path.join("elsewhere")).unwrap();
    fs::write(path.join("old/config.toml"), TINY).unwrap();
    let resume = ["train", "--resume", "../old"];
    let refused = adavit(&path.join("elsewhere"), &resume);
    assert_refusal(
        &refused,
        "data: images of this run is relative to the folder",
    );
    assert!(adavit(path, &["train", "--resume", "old"]).status.success());
}

#[test]
fn a_finished_run_is_extended_and_its_report_is_made_again() {
    let folder = prepared();
    let path = folder.path();
    let settings = TINY.replace("max_steps = 1\n", "");
    fs::write(path.join("tiny.toml"), settings).unwrap();
    let train = ["train", "--config", "tiny.toml", "--out", "run"];
    assert!(adavit(path, &train).status.success());
    let report = || fs::read_to_string(path.join("run/report.html")).unwrap();
    let before = report();
    let extended = adavit(path, &["train", "--resume", "run", "--epochs", "2"]);
    assert!(extended.status.success(), "{}", stderr(&extended));
    assert!(report() != before);
    let metrics = fs::read_to_string(path.join("run/metrics.csv")).unwrap();
    assert_eq!(metrics.lines().count(), 1 + 3, "{metrics}");
    let fewer = adavit(path, &["train", "--resume", "run", "--epochs", "1"]);
    assert_refusal(&fewer, "epochs: expected at least 2");
}

#[test]
fn calibration_warns_of_images_that_the_checkpoint_may_have_learnt() {
    let folder = prepared();
    let path = folder.path();
    let train = [
        "train",
        "--config",
        "tiny.toml",
        "--seed",
        "3",
        "--out",
        "run",
    ];
    assert!(adavit(path, &train).status.success());
    assert!(adavit(path, &["convert", "run", "alone"]).status.success());
    let warnings = |args: &[&str]| {
        let calibrate = [
            "calibrate",
            "alone",
            "--budget",
            "0.9",
            "--out",
            "calibrated",
        ];
        let said = stderr(&adavit(path, &[&calibrate[..], args].concat()));
        let lines = said.lines().filter(|line| line.contains("trained"));
        lines.map(str::to_string).collect::<Vec<_>>()
    };
    let same = warnings(&["--data", "images"]);
    assert!(same.len() == 1 && same[0].contains("seed 3"), "{same:?}");
    let other = warnings(&["--data", "images", "--seed", "4", "--held-out", "0.5"]);
    assert!(
        other[1].contains("warning: ") && other[1].contains("held_out 0.1, not 0.5; seed 3, not 4"),
        "{other:?}"
    );
    // Who trained it knows where its images are.
    let unknown = adavit(path, &["calibrate", "alone", "--budget", "0.9"]);
    assert_refusal(&unknown, "a folder called images");
    // A checkpoint of an older version records nothing.
    let mut old = Checkpoint::load(&path.join("alone")).unwrap();
    old.config.trained_on = None;
    old.save(&path.join("alone")).unwrap();
    let old = warnings(&["--data", "images"]);
    assert!(old[1].contains("does not record"), "{old:?}");
}

#[test]
fn a_run_and_its_snapshots_are_not_replaced_by_another_checkpoint() {
    let folder = prepared();
    let path = folder.path();
    let train = ["train", "--config", "tiny.toml", "--out", "run"];
    assert!(adavit(path, &train).status.success());
    assert!(adavit(path, &["convert", "run", "alone"]).status.success());
    let before = fs::read(path.join("run/last/model.safetensors")).unwrap();
    for (out, said) in [
        ("run/last", "resumes from this snapshot"),
        ("run", "holds a run"),
    ] {
        let convert = adavit(path, &["convert", "alone", out, "--force"]);
        assert_refusal(&convert, said);
        let calibrate = ["calibrate", "run", "--budget", "0.9", "--out", out];
        assert_refusal(&adavit(path, &calibrate), said);
    }
    assert_eq!(
        fs::read(path.join("run/last/model.safetensors")).unwrap(),
        before
    );
    assert!(!path.join("run/config.json").exists());
    let dense = adavit(path, &["calibrate", "run/dense", "--budget", "0.9"]);
    assert_refusal(
        &dense,
        "run/dense: expected an adaptive model, found a dense one",
    );
}

#[test]
fn outputs_that_cannot_be_written_are_refused_before_the_work() {
    let folder = prepared();
    let path = folder.path();
    let train = ["train", "--config", "tiny.toml", "--out", "run"];
    assert!(adavit(path, &train).status.success());
    let config = fs::read(path.join("run/config.toml")).unwrap();
    for out in ["nowhere/x.csv", "images", "run/config.toml"] {
        for option in ["--csv", "--per-image"] {
            let refused = adavit(path, &["eval", "run", "--data", "images", option, out]);
            assert_refusal(&refused, out);
            assert!(!stderr(&refused).contains("top-1"));
        }
        assert_refusal(&adavit(path, &["report", "run", "--out", out]), out);
    }
    assert_eq!(fs::read(path.join("run/config.toml")).unwrap(), config);
    let written = adavit(path, &["eval", "run", "--data", "images", "--csv", "x.csv"]);
    assert!(written.status.success(), "{}", stderr(&written));
}

#[test]
fn weights_that_are_not_finite_are_refused_by_name() {
    let folder = prepared();
    let path = folder.path();
    let train = ["train", "--config", "tiny.toml", "--out", "run"];
    assert!(adavit(path, &train).status.success());
    let mut broken = Checkpoint::load(&path.join("run/dense")).unwrap();
    let bias = broken.tensors.get_mut("head.bias").unwrap();
    *bias = (&*bias * f64::NAN).unwrap();
    broken.save(&path.join("broken")).unwrap();
    for args in [
        &["eval", "broken", "--data", "images"][..],
        &["predict", "broken", "."],
    ] {
        assert_refusal(
            &adavit(path, args),
            "head.bias holds a value that is not finite",
        );
    }
    let diverged = [
        "train",
        "--config",
        "tiny.toml",
        "--lr",
        "1e30",
        "--out",
        "diverged",
    ];
    let diverged = adavit(path, &diverged);
    assert_eq!(diverged.status.code(), Some(3));
    assert!(
        stderr(&diverged).contains("learning rate"),
        "{}",
        stderr(&diverged)
    );
}

#[test]
fn the_shipped_checkpoints_record_the_full_data_set() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for name in ["dense", "adaptive-0.4545", "adaptive-0.2857"] {
        let folder = root.join("data/fashion-mnist-nano").join(name);
        let record = Checkpoint::load(&folder)
            .unwrap()
            .config
            .trained_on
            .unwrap();
        assert_eq!(
            (record.data.as_str(), record.images),
            ("fashion-mnist", 60_000)
        );
        assert_eq!((record.held_out * 60_000.0, record.seed), (5_000.0, 0));
    }
}
