//! Small source trees for the tests of the rules.

use std::fs;

use anyhow::Result;
use tempfile::TempDir;

use crate::report::Report;
use crate::tree::Tree;
use crate::workspace::Workspace;

/// Files in a folder that lasts as long as the value.
#[derive(Debug)]
pub(crate) struct Files(TempDir);

impl Files {
    /// Writes files, each given by its path and text.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(folder)
    }

    /// Writes a workspace of one crate, `crates/NAME`, whose sources are given below `src`.
    pub(crate) fn of_crate(name: &str, sources: &[(&str, &str)]) -> Self {
        let manifest = format!("crates/{name}/Cargo.toml");
        let package = format!("[package]\nname = \"{name}\"\n");
        let sources: Vec<_> = sources
            .iter()
            .map(|(path, text)| (format!("crates/{name}/src/{path}"), *text))
            .collect();
        let mut files = vec![
            ("Cargo.toml", "[workspace]\nmembers = [\"crates/*\"]\n"),
            (&manifest, &package),
        ];
        files.extend(sources.iter().map(|(path, text)| (path.as_str(), *text)));
        Self::new(&files)
    }

    /// What a rule of manifests reports.
    pub(crate) fn findings(&self, check: impl Fn(&Workspace) -> Result<Report>) -> Vec<String> {
        texts(&check(&self.workspace()).unwrap())
    }

    /// What a rule of sources reports.
    pub(crate) fn findings_in_sources(&self, check: impl Fn(&[Tree]) -> Report) -> Vec<String> {
        let workspace = self.workspace();
        let targets = workspace.members.iter().flat_map(|member| &member.targets);
        let trees: Vec<_> = targets
            .map(|target| Tree::read(&workspace, target).unwrap())
            .collect();
        texts(&check(&trees))
    }

    fn workspace(&self) -> Workspace {
        Workspace::read(self.0.path()).unwrap()
    }
}

fn texts(report: &Report) -> Vec<String> {
    report.findings().iter().map(ToString::to_string).collect()
}
