//! What people and programs read: tables and JSON on standard output, the rest on standard error.

use std::io::Write;

use anyhow::{Context, Result};
use serde::Serialize;

/// Writes a line on standard error; nobody listening is no failure.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Writes text on standard output.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        // The reader has seen enough, as in `adavit macs | head`.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("writing to standard output"),
    }
}

/// Writes one JSON object on standard output.
pub(crate) fn print_json(value: &impl Serialize) -> Result<()> {
    print(&serde_json::to_string(value)?)
}

/// The error on one line, with its causes where it does not name them itself.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let complete = error.is::<adavit_train::Error>()
        || error.is::<adavit_model::Error>()
        || error.is::<adavit_data::Error>()
        || error.is::<adavit_experiment::Error>();
    let text = if complete {
        error.to_string()
    } else {
        format!("{error:#}")
    };
    join_lines(&text)
}

/// What is wrong with the command line, on one line.
pub(crate) fn usage_error(error: &clap::Error) -> String {
    let text = error.to_string();
    let said = text.split("\nUsage:").next().unwrap_or_default();
    let said = said
        .split("For more information")
        .next()
        .unwrap_or_default();
    format!("{}; see --help", join_lines(said))
}

fn join_lines(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}

/// Multiply-adds with a unit that people read.
pub(crate) fn macs(macs: f64) -> String {
    if macs >= 1e8 {
        format!("{:.3} GMACs", macs / 1e9)
    } else {
        format!("{:.3} MMACs", macs / 1e6)
    }
}
