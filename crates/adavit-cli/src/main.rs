//! The command `adavit`: trains, evaluates and measures adaptive vision transformers.
//!
//! Exit codes: 0 done; 1 a check failed; 2 bad usage or bad input, nothing written; 3 failed while
//! running, the last snapshot intact; 130 interrupted, state saved.

mod args;
mod calibrate;
mod checkpoint;
mod device;
mod eval;
mod macs;
mod output;
mod predict;
mod profile;
mod progress;
mod recorded;
mod report;
mod shell;
mod sweep;
mod throughput;
mod train;
mod verify;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::args::{Args, Command};

const CHECK_FAILED: u8 = 1;
const FAILED: u8 = 3;
const BAD_INPUT: u8 = 2;
const INTERRUPTED: u8 = 130;

/// How a command that did not fail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Done,
    /// A check failed.
    Failed,
    Interrupted,
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        // No command at all: the whole help says which there are.
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            return ExitCode::from(BAD_INPUT);
        }
        Err(error) if error.use_stderr() => {
            output::tell(&output::usage_error(&error));
            return ExitCode::from(BAD_INPUT);
        }
        // Help and version, on standard output.
        Err(error) => {
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
    };
    let ended = match args.command {
        Command::Train(args) => train::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Macs(args) => macs::run(&args),
        Command::Throughput(args) => throughput::run(&args),
        Command::Inspect(args) => checkpoint::inspect(&args),
        Command::Convert(args) => checkpoint::convert(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Calibrate(args) => calibrate::run(&args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Completions(args) => shell::completions(&args),
        Command::Man => shell::man(),
    };
    match ended {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::Failed) => ExitCode::from(CHECK_FAILED),
        Ok(Ended::Interrupted) => ExitCode::from(INTERRUPTED),
        Err(error) => {
            output::tell(&format!("error: {}", output::one_line(&error)));
            ExitCode::from(exit_code(&error))
        }
    }
}

/// 2 where the user can mend it by other input, 3 where something failed.
fn exit_code(error: &anyhow::Error) -> u8 {
    let input = error.chain().any(|cause| {
        if let Some(error) = cause.downcast_ref::<adavit_train::Error>() {
            error.is_input_error()
        } else if let Some(error) = cause.downcast_ref::<adavit_experiment::Error>() {
            error.is_input_error()
        } else if let Some(error) = cause.downcast_ref::<adavit_data::Error>() {
            error.is_input_error()
        } else if let Some(error) = cause.downcast_ref::<adavit_model::Error>() {
            error.is_input_error()
        } else {
            false
        }
    });
    if input { BAD_INPUT } else { FAILED }
}
