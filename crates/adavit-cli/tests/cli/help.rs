//! Help, completions and the manual page cover every command; defaults in help are those of the code.

use std::fs;
use std::path::PathBuf;

use adavit_train::TrainConfig;

use super::helpers::adavit;

const COMMANDS: [&str; 14] = [
    "data",
    "train",
    "eval",
    "predict",
    "calibrate",
    "report",
    "verify",
    "inspect",
    "convert",
    "macs",
    "throughput",
    "sweep",
    "completions",
    "man",
];

/// Compares with a file of `tests/cli/help`; `UPDATE_HELP=1` writes it.
fn assert_help(name: &str, found: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/cli/help")
        .join(name);
    if std::env::var_os("UPDATE_HELP").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "the help of {name} differs from {}; if it is right, update it with UPDATE_HELP=1 cargo test \
         -p adavit-cli help:\n{found}",
        path.display()
    );
}

#[test]
fn help_is_as_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let text = |args: &[&str]| {
        let output = adavit(folder.path(), args);
        assert!(output.status.success(), "{args:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let program = text(&["--help"]);
    assert_help("adavit.txt", &program);
    for command in COMMANDS {
        assert!(program.contains(&format!("\n  {command} ")), "{command}");
        assert_help(&format!("{command}.txt"), &text(&[command, "--help"]));
    }
    let listed = program
        .split("Commands:")
        .nth(1)
        .unwrap()
        .split("Options:")
        .next()
        .unwrap();
    assert_eq!(
        listed
            .lines()
            .filter(|line| line.starts_with("  ") && line.as_bytes()[2] != b' ')
            .count(),
        COMMANDS.len() + 1
    );
}

#[test]
fn shells_and_manual_readers_get_every_command() {
    let folder = tempfile::tempdir().unwrap();
    for args in [
        &["completions", "bash"][..],
        &["completions", "zsh"],
        &["completions", "fish"],
        &["man"],
    ] {
        let output = adavit(folder.path(), args);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success());
        for word in ["predict", "throughput", "tensorboard"] {
            assert!(text.contains(word), "{args:?}: {word}");
        }
    }
}

#[test]
fn the_defaults_in_the_help_of_train_are_those_of_the_code() {
    let folder = tempfile::tempdir().unwrap();
    let help = adavit(folder.path(), &["train", "-h"]);
    let help = String::from_utf8(help.stdout).unwrap();
    let default = TrainConfig::default();
    let (dense, adaptive) = (&default.dense, &default.adaptive);
    let both = |dense: String, adaptive: String| format!("{dense} dense, {adaptive} adaptive");
    for (option, value) in [
        ("--data <", default.data.clone()),
        ("--preset <", default.preset.clone()),
        ("--budget <", default.budget.to_string()),
        ("--batch-size <", default.batch_size.to_string()),
        ("--seed <", default.seed.to_string()),
        ("--keep <", default.keep.to_string()),
        (
            "--epochs <",
            both(dense.epochs.to_string(), adaptive.epochs.to_string()),
        ),
        (
            "--lr <",
            both(
                dense.optimizer.lr.to_string(),
                adaptive.optimizer.lr.to_string(),
            ),
        ),
        ("--device <", default.device.clone()),
    ] {
        let (_, text) = help.split_once(option).unwrap();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let (_, text) = text.split_once("[default: ").unwrap();
        assert_eq!(text.split_once(']').unwrap().0, value, "{option}");
    }
    assert!(default.targets.is_none() && default.max_steps.is_none());
    assert!(default.patience.is_none() && default.dense_checkpoint.is_none());
}
