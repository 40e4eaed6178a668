//! Entry points of the repository.
//!
//! `cargo xtask train [--features F] [OPTIONS]` builds the release binary and trains; every other
//! option goes to `adavit train`. `cargo xtask curves` puts the curve that was measured last into the
//! docs, or what a sweep wrote. `cargo xtask layers` checks the rules on imports and messages.
//! `cargo xtask ci` runs every check.

mod ci;
mod command;
mod curves;
mod hub;

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::command::{cargo, run, target, tell};

const USAGE: &str = "\
usage: cargo xtask TASK

  train [--features cuda|metal|...] [OPTIONS]   build the release binary and run `adavit train OPTIONS`
  curves                                        put what `cargo bench --bench efficiency` wrote into the docs
  curves SWEEP                                  put what `adavit sweep` wrote into the folder SWEEP into the docs
  layers                                        check the rules on imports and messages; builds no crate of ours
  ci                                            run every check: format, layers, lints, docs, tests, a short training";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let task = args.next();
    let done = match task.as_deref() {
        Some("train") => train(args.collect()),
        Some("curves") => curves(&args.collect::<Vec<_>>()),
        Some("layers") => layers(),
        Some("ci") => ci::run_checks().map(|()| ExitCode::SUCCESS),
        Some("help" | "-h" | "--help") => {
            tell(USAGE);
            return ExitCode::SUCCESS;
        }
        other => {
            tell(&format!(
                "error: expected a task, found {:?}\n{USAGE}",
                other.unwrap_or("nothing")
            ));
            return ExitCode::from(2);
        }
    };
    done.unwrap_or_else(|error| {
        tell(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

/// Puts a sweep's folder into the docs, or the bench's curve.
fn curves(args: &[String]) -> Result<ExitCode> {
    match args {
        [] => curves::refresh_bench(&target()?)?,
        [sweep] => curves::refresh_sweep(Path::new(sweep))?,
        _ => {
            tell(&format!(
                "error: curves: expected at most one folder, found {}\n{USAGE}",
                args.join(" ")
            ));
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs the rules, a package of their own, and ends as they do.
fn layers() -> Result<ExitCode> {
    Ok(if run(&mut ci::layers())?.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Builds the release binary and runs it in place of this process, so that signals reach it.
fn train(args: Vec<String>) -> Result<ExitCode> {
    let (features, options) = take_features(args)?;
    let mut adavit = cargo();
    adavit.args(["run", "--release", "--locked", "--package", "adavit-cli"]);
    if let Some(features) = &features {
        adavit.args(["--features", features]);
    }
    if hub::is_needed(&options) {
        adavit.args(["--features", "hub"]);
    }
    adavit.args(["--", "train"]).args(options);
    become_process(adavit)
}

/// Takes `--features F` or `--features=F` out of the arguments.
fn take_features(args: Vec<String>) -> Result<(Option<String>, Vec<String>)> {
    let mut features = None;
    let mut options = Vec::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        if arg == "--features" {
            features = Some(args.next().context("--features: expected a value")?);
        } else if let Some(value) = arg.strip_prefix("--features=") {
            features = Some(value.to_string());
        } else {
            options.push(arg);
        }
    }
    Ok((features, options))
}

/// The program takes this process's place; `cargo run` then gives its own to what it built.
#[cfg(unix)]
fn become_process(mut program: Command) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    Err(program.exec()).with_context(|| format!("starting {}", program.get_program().display()))
}

#[cfg(not(unix))]
fn become_process(mut program: Command) -> Result<ExitCode> {
    let status = run(&mut program)?;
    Ok(ExitCode::from(status.code().unwrap_or(1) as u8))
}
