//! Defaults, then the file, then `--set`, then other options; and one word for one thing everywhere.

use std::fs;
use std::path::Path;

use super::helpers::{
    adavit, assert_refusal, assert_refused, data_tests, json, made_images, picture_model, stderr,
};

/// The resolved settings of one step of training.
fn resolved(folder: &Path, out: &str, options: &[&str]) -> String {
    let one_step = ["train", "--out", out, "--threads", "1", "--max-steps", "1"];
    let output = adavit(folder, &[&one_step[..], options].concat());
    assert!(output.status.success(), "{options:?}: {}", stderr(&output));
    fs::read_to_string(folder.join(out).join("config.toml")).unwrap()
}

#[test]
fn a_setting_overrides_the_file_and_an_option_overrides_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    made_images(folder, 0);
    let recipe = "data = \"images\"\nrandom_policies = 1\nseed = 5\nbatch_size = 32\n\
                  [dense.optimizer]\nlr = 0.5\n\
                  [gates]\ntemperature = { schedule = \"constant\", tau = 4.0 }\n";
    fs::write(folder.join("run.toml"), recipe).unwrap();
    let file = ["--config", "run.toml"];
    let set = [
        "--set",
        "seed=6",
        "--set",
        "batch_size=8",
        "--set",
        "dense.optimizer.lr=1e-3",
        // A bare word is a string.
        "--set",
        "preset=nano_patch4_28",
        // Another schedule replaces the one of the file.
        "--set",
        "gates.temperature.schedule=cosine",
        "--set",
        "gates.temperature.start=5",
        "--set",
        "gates.temperature.end=1.0",
    ];
    let option = ["--batch-size", "16"];
    let config = resolved(folder, "run", &[&file[..], &set, &option].concat());
    for line in [
        "seed = 6",
        "batch_size = 16",
        "lr = 0.001",
        "preset = \"nano_patch4_28\"",
        "schedule = \"cosine\"",
        "start = 5.0",
    ] {
        assert!(
            config.lines().any(|found| found == line),
            "{line}: {config}"
        );
    }
    assert!(!config.contains("tau"), "{config}");
}

#[test]
fn learning_rate_image_size_and_classes_have_options() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    made_images(folder, 0);
    let data = ["--data", "images", "--set", "random_policies=1"];
    let more = ["--lr", "3e-4", "--num-classes", "2", "--img-size", "28x28"];
    let config = resolved(folder, "run", &[&data[..], &more].concat());
    assert_eq!(config.matches("\nlr = 0.0003\n").count(), 2, "{config}");
    assert!(config.contains("num_classes = 2"), "{config}");
    assert!(config.contains("img_size = [28, 28]"), "{config}");
    // The images have 28 x 28 pixels.
    let other = ["train", "--data", "images", "--img-size", "56"];
    assert_refusal(&adavit(folder, &other), "28");
}

#[test]
fn an_unknown_setting_is_refused_with_the_nearest_ones() {
    for (set, parts) in [
        (
            "dense.optimizer.lrr=1",
            &["dense.optimizer.lrr", "did you mean dense.optimizer.lr"][..],
        ),
        ("budgte=0.5", &["budgte", "did you mean budget"]),
        ("lr=1e-3", &["dense.optimizer.lr", "adaptive.optimizer.lr"]),
        ("thread=2", &["threads"]),
        ("budget=half", &["half", "budget"]),
        ("budget=2", &["budget: expected a number in (0, 1]"]),
        ("budget", &["expected key=value"]),
        ("=1", &["expected key=value"]),
    ] {
        for part in parts {
            let args = ["train", "--data", "images", "--set", set];
            assert_refused(&args, part, |_| ());
        }
    }
    let file = ["train", "--config", "bad.toml"];
    assert_refused(
        &file,
        "bad.toml: dense.epoch: no such setting; did you mean dense.epochs",
        |folder| {
            fs::write(folder.join("bad.toml"), "[dense]\nepoch = 3\n").unwrap();
        },
    );
}

#[test]
fn a_checkpoint_is_the_first_argument_or_the_option_in_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    made_images(folder, 0);
    picture_model(&folder.join("model"), &["ant", "bee", "cat"]);
    fs::create_dir_all(folder.join("photos/ant")).unwrap();
    let picture = folder.join("photos/ant/rgb.png");
    fs::copy(data_tests().join("pictures/rgb.png"), picture).unwrap();
    let small = ["--seconds", "0.01", "--batch-size", "1"];
    for (command, others) in [
        ("eval", &["--data", "photos"][..]),
        ("predict", &["photos"]),
        ("inspect", &[]),
        ("macs", &[]),
        ("convert", &["own", "--force"]),
        ("throughput", &small),
    ] {
        let words = [&[command, "model"], others].concat();
        let option = [&[command, "--checkpoint", "model"], others].concat();
        let last = [&[command], others, &["--checkpoint=model"]].concat();
        for args in [words, option, last] {
            let output = adavit(folder, &args);
            assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        }
    }
    for args in [["calibrate", "model"], ["calibrate", "--checkpoint=model"]] {
        let budget = ["--budget", "2"];
        let refused = adavit(folder, &[&args[..], &budget].concat());
        assert_refusal(&refused, "budget: expected a number in (0, 1]");
    }
}

#[test]
fn images_at_once_are_the_batch_size_in_every_command() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["train", "eval", "predict", "calibrate", "throughput"] {
        let help = adavit(folder.path(), &[command, "--help"]);
        let help = String::from_utf8(help.stdout).unwrap();
        assert!(help.contains("--batch-size <N>"), "{command}");
    }
    let batch = "throughput --preset nano_patch7_28 --batch 2 --seconds 0.01 --json";
    let output = adavit(folder.path(), &batch.split(' ').collect::<Vec<_>>());
    assert_eq!(json(&output)["batch"], 2);
}
