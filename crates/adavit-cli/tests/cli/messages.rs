//! Messages on standard error can be read, and what they tell to run can be pasted.

use std::fs;
use std::process::Command;

use super::helpers::{adavit, assert_refusal, made_images, stderr};

/// A run of a model that trains in a moment.
const TINY: &str = "data = \"images\"\nbatch_size = 32\nrandom_policies = 1\n[model]\n\
                    patch_size = 14\nembed_dim = 16\ndepth = 2\nnum_heads = 2\n\
                    [dense]\nepochs = 1\n[adaptive]\nepochs = 1\n";

#[cfg(unix)]
#[test]
fn the_command_that_resumes_a_run_can_be_pasted_into_a_shell() {
    let folder = tempfile::tempdir().unwrap();
    made_images(folder.path(), 0);
    fs::write(folder.path().join("tiny.toml"), TINY).unwrap();
    let train = ["train", "--config", "tiny.toml", "--out", "it's my run"];
    let stopped = [&train[..], &["--max-hours", "0.0000001"]].concat();
    let stopped = adavit(folder.path(), &stopped);
    assert_eq!(stopped.status.code(), Some(130));
    let said = stderr(&stopped);
    let (_, command) = said.trim_end().split_once("resume with: ").unwrap();
    let resumed = Command::new("sh")
        .args(["-c", command])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    assert!(folder.path().join("it's my run/summary.json").exists());
}

#[test]
fn a_resumed_run_says_where_it_resumes_and_that_it_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    made_images(folder.path(), 0);
    fs::write(folder.path().join("tiny.toml"), TINY).unwrap();
    let train = ["train", "--config", "tiny.toml", "--out", "run"];
    assert!(adavit(folder.path(), &train).status.success());
    let again = adavit(folder.path(), &["train", "--resume", "run"]);
    let said = stderr(&again);
    assert!(again.status.success(), "{said}");
    assert!(said.contains("this run is finished"), "{said}");
    assert!(!said.contains("done stage"), "{said}");
}

#[test]
fn mistakes_on_the_command_line_are_one_line_with_the_tip_apart() {
    let folder = tempfile::tempdir().unwrap();
    for (args, expected) in [
        (
            &["train", "--epoch", "3"][..],
            "error: unexpected argument '--epoch' found; tip: a similar argument exists: '--epochs'; \
             see --help",
        ),
        (
            &["predict"],
            "error: the following required arguments were not provided: <CKPT> <PATH>...; see --help",
        ),
        (
            &["macs"],
            "error: the following required arguments were not provided: <CKPT|--preset <P>>; see --help",
        ),
    ] {
        let output = adavit(folder.path(), args);
        assert_refusal(&output, "");
        assert_eq!(stderr(&output).trim_end(), expected);
    }
}

#[test]
fn without_a_command_the_help_begins_with_what_takes_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let output = adavit(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    let first = said.find("adavit eval data/fashion-mnist-nano").unwrap();
    assert!(first < said.find("Usage:").unwrap(), "{said}");
    // The examples name what the repository holds.
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let words = said.split_whitespace();
    let mut shipped = words.filter(|word| word.starts_with("data/"));
    assert!(shipped.all(|path| root.join(path).join("config.json").is_file()));
}
