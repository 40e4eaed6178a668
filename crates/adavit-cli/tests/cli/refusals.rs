//! What cannot be used is refused on one line, with exit status 2 and nothing written.

use std::fs;
use std::process::Command;

use adavit_model::{Checkpoint, ModelConfig, initial_tensors};

use super::helpers::{adavit, assert_refused, made_images, picture_model, stderr};

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
    let said = "expected a checkpoint of nano_patch4_28, found nano_patch7_28";
    assert_refused(&args, said, |folder| {
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

#[test]
fn work_that_cannot_be_measured_is_refused() {
    let cases = [
        (&["--batch-size", "0"][..], "expected between 1 and"),
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
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("ADAVIT_SIMD") && text.lines().count() == 1,
        "{text}"
    );
}

/// Commands, and their options that take a number.
const NUMBERS: [(&str, &[&str]); 8] = [
    (
        "eval model --data images",
        &["--batch-size", "--threads", "--num-heads", "--img-size"],
    ),
    ("predict model images", &["--batch-size", "--top-k"]),
    (
        "inspect model",
        &["--num-classes", "--img-size", "--num-heads"],
    ),
    ("macs --preset t2t_vit_7", &["--img-size", "--num-classes"]),
    ("macs --preset nano_conv_patch4_28", &["--img-size"]),
    (
        "throughput model --seconds 0.01",
        &["--batch-size", "--img-size", "--num-classes"],
    ),
    (
        "calibrate model --budget 0.5 --data images",
        &["--held-out", "--batch-size"],
    ),
    (
        "train --data images --max-steps 1",
        &[
            "--epochs",
            "--batch-size",
            "--num-classes",
            "--img-size",
            "--max-hours",
            "--keep",
            "--lr",
            "--patience",
            "--log-interval",
        ],
    ),
];

/// Settings that take a number, which no option sets.
const SETTINGS: [&str; 12] = [
    "model.depth",
    "model.embed_dim",
    "model.num_heads",
    "model.patch_size",
    "model.in_chans",
    "model.mlp_ratio",
    "augment.crop_padding",
    "dense.warmup_epochs",
    "eval_batch_size",
    "snapshot_seconds",
    "held_out",
    "gates.keep_logit",
];

#[test]
fn no_number_ends_in_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    made_images(folder, 0);
    picture_model(&folder.join("model"), &[]);
    let (big, signed) = (u64::MAX.to_string(), i64::MAX.to_string());
    let square = format!("{big}x{big}");
    let mut given = Vec::new();
    for value in [&*big, &*square, "0", "-1", "nan", "inf", "1e400", ""] {
        for (command, options) in NUMBERS {
            let options = options.iter();
            given.extend(options.map(|option| format!("{command} {option}={value}")));
        }
    }
    for value in [&*signed, "0", "-1", "nan", "inf", "[]", "{}", "word"] {
        let set = SETTINGS.iter();
        let train = "train --data images --max-steps 1 --set";
        given.extend(set.map(|key| format!("{train} {key}={value}")));
    }
    for command in given {
        let output = adavit(folder, &command.split(' ').collect::<Vec<_>>());
        // 101 is a panic, no status a signal.
        let (status, said) = (output.status.code(), stderr(&output));
        let ended = matches!(status, Some(0..=3));
        assert!(
            ended && !said.contains("panicked"),
            "{command}: {status:?} {said}"
        );
        let _ = fs::remove_dir_all(folder.join("runs"));
    }
}
