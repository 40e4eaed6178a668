//! What the tasks share: commands, the folders that cargo uses, and messages.

use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result};

pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

pub(crate) fn run(command: &mut Command) -> Result<ExitStatus> {
    let program = command.get_program().display().to_string();
    command
        .status()
        .with_context(|| format!("starting {program}"))
}

/// Where cargo puts the program that the tests built.
pub(crate) fn debug_binary() -> Result<PathBuf> {
    Ok(target()?.join("debug").join("adavit"))
}

/// Where cargo builds.
pub(crate) fn target() -> Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => Ok(PathBuf::from(folder)),
        None => Ok(workspace()?.join("target")),
    }
}

pub(crate) fn workspace() -> Result<PathBuf> {
    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let root = package.parent().context("the workspace of xtask")?;
    Ok(root.to_path_buf())
}

#[expect(clippy::print_stderr, reason = "a program talks to people")]
pub(crate) fn tell(text: &str) {
    eprintln!("{text}");
}
