//! What people and programs read: tables and JSON on standard output, the rest on standard error.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::exit::is_input_error;

/// How results are printed.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct OutputArgs {
    /// Print one JSON object on standard output, everything else on standard error
    #[arg(long)]
    pub(crate) json: bool,
}

/// Writes a line on standard error; a closed standard error is no failure.
pub(crate) fn message(line: &str) {
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

/// Returns an error on one line, with its causes unless its own message names them.
pub(crate) fn error_line(error: &anyhow::Error) -> String {
    let text = if is_input_error(&**error).is_some() {
        error.to_string()
    } else {
        format!("{error:#}")
    };
    joined(text.lines())
}

/// Returns what is wrong with the command line, on one line.
pub(crate) fn usage_error(error: &clap::Error) -> String {
    let text = error.to_string();
    let said = text.split("\nUsage:").next().unwrap_or_default();
    let said = said
        .split("For more information")
        .next()
        .unwrap_or_default();
    // Paragraphs are the error and its tips.
    let paragraphs = said.split("\n\n").map(|text| joined(text.lines()));
    let mut said: Vec<String> = paragraphs.filter(|text| !text.is_empty()).collect();
    said.push("see --help".into());
    said.join("; ")
}

fn joined<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let lines = lines.map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}

/// Returns a path as a word that can be pasted into a shell.
pub(crate) fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text;
    }
    if cfg!(windows) {
        return format!("\"{text}\"");
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Returns multiply-adds with a unit that people read.
pub(crate) fn macs(macs: f64) -> String {
    if macs >= 1e8 {
        format!("{:.3} GMACs", macs / 1e9)
    } else {
        format!("{:.3} MMACs", macs / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_where_a_shell_would_split_or_expand_them() {
        let word = |path: &str| shell_word(Path::new(path));
        assert_eq!(word("runs/train-2"), "runs/train-2");
        if cfg!(unix) {
            assert_eq!(word("my run"), "'my run'");
            assert_eq!(word("it's $HOME"), r"'it'\''s $HOME'");
            assert_eq!(word("~/runs"), "'~/runs'");
            assert_eq!(word(""), "''");
        }
    }
}
