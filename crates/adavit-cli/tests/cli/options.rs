//! Every option of `train` changes the settings, and what is learnt.

use std::fs;
use std::path::Path;

use super::helpers::{adavit, made_images, stderr};

/// The three targets go together.
const TARGETS: &[&str] = &[
    "--target-tokens",
    "0.45",
    "--target-heads",
    "0.6",
    "--target-blocks",
    "0.7",
];

/// Each option of `train` that is a setting, and the line that it gives in `config.toml`.
const SETTINGS: [(&[&str], &str); 17] = [
    (
        &["--preset", "nano_patch4_28"],
        "preset = \"nano_patch4_28\"",
    ),
    (&["--budget", "0.7"], "budget = 0.7"),
    (&["--epochs", "2"], "epochs = 2"),
    (&["--max-steps", "3"], "max_steps = 3"),
    (&["--batch-size", "8"], "batch_size = 8"),
    (&["--seed", "5"], "seed = 5"),
    (&["--patience", "4"], "patience = 4"),
    (&["--keep", "1"], "keep = 1"),
    (&["--tensorboard"], "tensorboard = true"),
    (&["--threads", "1"], "threads = 1"),
    (&["--device", "cpu"], "device = \"cpu\""),
    (
        &["--data", "mnist", "--data-dir", "images"],
        "data_dir = \"FOLDER/images\"",
    ),
    (&["--config", "other.toml"], "held_out = 0.25"),
    (
        &["--dense-checkpoint", "dense"],
        "dense_checkpoint = \"FOLDER/dense\"",
    ),
    (TARGETS, "tokens = 0.45"),
    (TARGETS, "heads = 0.6"),
    (TARGETS, "blocks = 0.7"),
];

/// Those that change what is learnt: the others change where, how fast or what is written.
const LEARNT: [&[&str]; 9] = [
    &["--preset", "nano_patch4_28"],
    &["--budget", "0.7"],
    &["--batch-size", "8"],
    &["--seed", "5"],
    &["--max-steps", "1"],
    &["--data", "others"],
    &["--config", "other.toml"],
    &["--dense-checkpoint", "dense"],
    TARGETS,
];

/// Trains two steps of each stage; a given option takes the place of the same one here.
fn train(folder: &Path, out: &str, options: &[&str]) -> (String, Vec<u8>) {
    let mut args = vec!["train", "--out", out];
    for pair in [
        ["--data", "images"],
        ["--max-steps", "2"],
        ["--batch-size", "16"],
        ["--threads", "2"],
    ] {
        if !options.contains(&pair[0]) {
            args.extend(pair);
        }
    }
    if !options.contains(&"--config") {
        args.extend(["--config", "two.toml"]);
    }
    args.extend(options);
    let output = adavit(folder, &args);
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    let config = fs::read_to_string(folder.join(out).join("config.toml")).unwrap();
    let weights = fs::read(folder.join(out).join("last/model.safetensors")).unwrap();
    (config, weights)
}

#[test]
fn every_option_changes_the_settings_and_what_is_learnt() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    made_images(path, 0);
    // The same images with the other labels.
    fs::create_dir(path.join("others")).unwrap();
    for entry in fs::read_dir(path.join("images")).unwrap() {
        let entry = entry.unwrap();
        let name = entry
            .file_name()
            .to_string_lossy()
            .replace("t10k", "TEMP")
            .replace("train", "t10k");
        fs::copy(
            entry.path(),
            path.join("others").join(name.replace("TEMP", "train")),
        )
        .unwrap();
    }
    let two = "random_policies = 1\n";
    fs::write(path.join("two.toml"), two).unwrap();
    fs::write(path.join("other.toml"), format!("held_out = 0.25\n{two}")).unwrap();
    let (plain, weights) = train(path, "plain", &[]);
    fs::create_dir(path.join("dense")).unwrap();
    for file in ["model.safetensors", "config.json"] {
        fs::copy(
            path.join("plain/last").join(file),
            path.join("dense").join(file),
        )
        .unwrap();
    }
    let dense = adavit_model::Checkpoint::load(&path.join("plain/dense")).unwrap();
    let mut tensors = dense.tensors.clone();
    let head = (&tensors["head.weight"] * 2.0).unwrap();
    tensors.insert("head.weight".into(), head);
    let config = dense.config;
    adavit_model::Checkpoint { config, tensors }
        .save(&path.join("dense"))
        .unwrap();
    for (number, (options, line)) in SETTINGS.into_iter().enumerate() {
        let (config, _) = train(path, &format!("setting-{number}"), options);
        // A path is kept so that it is found from any current folder.
        let line = line.replace(
            "FOLDER",
            &path.canonicalize().unwrap().display().to_string(),
        );
        let has = |config: &str| config.lines().any(|found| found == line);
        assert!(has(&config), "{options:?}: {config}");
        let given = options[0] == "--device" || options[0] == "--threads";
        assert!(given || !has(&plain), "{line} is the default");
    }
    for (number, options) in LEARNT.into_iter().enumerate() {
        let (_, found) = train(path, &format!("learnt-{number}"), options);
        assert!(found != weights, "{options:?} changes nothing");
    }
    // More steps than an epoch has.
    let nine = ["--max-steps", "9"];
    let one_epoch = [&["--epochs", "1"], &nine[..]].concat();
    assert!(train(path, "one-epoch", &one_epoch).1 != train(path, "nine", &nine).1);
    assert!(train(path, "again", &[]).1 == weights);
}
