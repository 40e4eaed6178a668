//! The command `adavit`: trains, evaluates and measures adaptive vision transformers.
//!
//! Exit status: 0 done; 1 a check failed or some inputs were skipped; 2 bad usage or bad input,
//! nothing written; 3 failed while running, the last snapshot intact; 130 interrupted, state saved.

mod allowance;
mod cli;
mod commands;
mod exit;
mod machine;
mod output;
mod progress;
mod source;
mod stop;
mod values;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::cli::{Cli, checkpoint_first};
use crate::exit::Exit;
use crate::output::{error_line, message, usage_error};

fn main() -> ExitCode {
    let arguments = checkpoint_first(std::env::args_os());
    let exit = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli.command.run().unwrap_or_else(|error| {
            message(&format!("error: {}", error_line(&error)));
            Exit::from(&error)
        }),
        Err(error) => refuse(&error),
    };
    exit.into()
}

/// Prints what clap has to say: help and version on standard output, mistakes on standard error.
fn refuse(error: &clap::Error) -> Exit {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // No command at all: the whole help lists them.
        let _ = error.print();
        return Exit::BadInput;
    }
    if error.use_stderr() {
        message(&usage_error(error));
        return Exit::BadInput;
    }
    let _ = error.print();
    Exit::Done
}
