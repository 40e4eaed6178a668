//! Checks the repository's rules on imports and messages; `cargo xtask layers` and `cargo xtask ci`
//! run it.
//!
//! It reads manifests and sources, and builds nothing. It is a package of its own because `syn`
//! would be built at the start of every `cargo xtask train`.

mod collect;
mod report;
mod resolve;
mod rules;
mod tree;
mod workspace;

#[cfg(test)]
mod testing;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::report::Report;
use crate::rules::{circles, crates, flags, imports};
use crate::tree::Tree;
use crate::workspace::Workspace;

fn main() -> ExitCode {
    match check() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(found) => {
            tell(&format!("error: expected no findings, found {found}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            tell(&format!("error: {error:#}"));
            ExitCode::from(2)
        }
    }
}

/// Reports what breaks a rule, and how many places do.
fn check() -> Result<usize> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let workspace = Workspace::read(root.context("the workspace of xtask")?)?;
    let trees = trees(&workspace)?;
    let reports = [
        crates::check(&workspace)?,
        circles::check(&trees),
        imports::check(&trees),
        flags::check(&trees),
    ];
    for report in &reports {
        show(&workspace, report);
    }
    Ok(reports.iter().map(|report| report.findings().len()).sum())
}

fn trees(workspace: &Workspace) -> Result<Vec<Tree>> {
    let targets = workspace.members.iter().flat_map(|member| &member.targets);
    targets
        .map(|target| Tree::read(workspace, target))
        .collect()
}

fn show(workspace: &Workspace, report: &Report) {
    for finding in report.findings() {
        tell(&finding.to_string());
    }
    let counts: Vec<_> = workspace
        .members
        .iter()
        .map(|member| (&member.name, report.count_in(&member.folder)))
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if counts.is_empty() {
        tell(&format!("{}: holds", report.rule));
    } else {
        tell(&format!(
            "{}: broken ({})\n",
            report.rule,
            counts.join(", ")
        ));
    }
}

#[expect(clippy::print_stderr, reason = "a program talks to people")]
fn tell(text: &str) {
    eprintln!("{text}");
}
