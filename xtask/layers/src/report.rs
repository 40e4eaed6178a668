//! What a rule reports: where, what was found and what to do.

use std::fmt;
use std::path::{Path, PathBuf};

/// One place that breaks a rule. Findings sort by file and line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    pub(crate) file: PathBuf,
    pub(crate) line: usize,
    pub(crate) found: String,
    pub(crate) fix: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            found,
            fix,
        } = self;
        write!(f, "{}:{line}: {found}\n    {fix}", file.display())
    }
}

/// What one rule found in the workspace, sorted and without repetition.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) rule: &'static str,
    findings: Vec<Finding>,
}

impl Report {
    pub(crate) fn new(rule: &'static str, mut findings: Vec<Finding>) -> Self {
        findings.sort();
        findings.dedup();
        Self { rule, findings }
    }

    pub(crate) fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The findings of the folder `crates/NAME`, or of another member's folder.
    pub(crate) fn count_in(&self, folder: &Path) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.file.starts_with(folder))
            .count()
    }
}
