//! The one list of checks, cheapest first.

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::command::{cargo, debug_binary, run, tell};

/// The rules on imports and messages. They are not part of this program: their parser would be built
/// at the start of every training.
pub(crate) fn layers() -> Command {
    let mut command = cargo();
    command.args(["run", "--quiet", "--locked", "--package", "xtask-layers"]);
    command
}

/// Runs every check; the first that fails ends it.
fn run_all(checks: Vec<(&str, Command)>) -> Result<()> {
    for (name, mut command) in checks {
        tell(&format!("== {name}"));
        let start = Instant::now();
        if !run(&mut command)?.success() {
            bail!("check failed: {name}");
        }
        tell(&format!(
            "== {name}: {:.0} s",
            start.elapsed().as_secs_f64()
        ));
    }
    Ok(())
}

pub(crate) fn run_checks() -> Result<()> {
    let with = |args: &[&str]| {
        let mut command = cargo();
        command.args(args);
        command
    };
    let mut docs = with(&["doc", "--workspace", "--no-deps", "--locked"]);
    docs.env("RUSTDOCFLAGS", "-D warnings");
    let folder = std::env::temp_dir().join(format!("adavit-ci-{}", std::process::id()));
    // The tests build the program; its dependencies that compute are optimised in every profile.
    let mut smoke = Command::new(debug_binary()?);
    smoke
        .args(["train", "--max-steps", "20", "--tensorboard", "--out"])
        .arg(&folder);
    let mut eval = Command::new(debug_binary()?);
    eval.args(["eval", "--json", "--checkpoint"]).arg(&folder);
    let mut checks = vec![
        ("format", with(&["fmt", "--all", "--check"])),
        ("layers", layers()),
        (
            "lints",
            with(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--locked",
                "--",
                "-D",
                "warnings",
            ]),
        ),
        (
            "the model alone, without the features that other crates turn on",
            with(&["check", "--package", "adavit-model", "--locked"]),
        ),
        ("docs", docs),
        ("tests", with(&["test", "--workspace", "--locked"])),
        ("a short training", smoke),
        ("its evaluation", eval),
    ];
    // A Python with TensorBoard, and a browser beside it, look at what the run left.
    match std::env::var_os("ADAVIT_CI_PYTHON") {
        Some(python) => {
            let mut look = Command::new(python);
            look.arg("tools/ci/look.py").arg(&folder);
            checks.push(("its report and events, in a browser and TensorBoard", look));
        }
        None => tell("without ADAVIT_CI_PYTHON nothing opens the report: see .ci/run"),
    }
    let checked = run_all(checks);
    let _ = std::fs::remove_dir_all(&folder);
    checked
}
