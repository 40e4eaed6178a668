//! The workspace's members, their manifests and the files that their targets begin with.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use toml::{Table, Value};

/// The root folder, its manifest and its members.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) manifest: Table,
    pub(crate) members: Vec<Member>,
}

/// One package of the workspace. Paths are relative to the workspace's root.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    /// The text of its `Cargo.toml`.
    pub(crate) manifest: String,
    /// The root files of its library, programs, benches and examples.
    pub(crate) targets: Vec<PathBuf>,
}

impl Member {
    pub(crate) fn manifest_path(&self) -> PathBuf {
        self.folder.join("Cargo.toml")
    }
}

impl Workspace {
    /// Reads the manifest in `root` and those of its members.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let manifest: Table = read(&root.join("Cargo.toml"))?.parse()?;
        let patterns = manifest
            .get("workspace")
            .and_then(|workspace| workspace.get("members"))
            .and_then(Value::as_array)
            .context("Cargo.toml: expected workspace.members")?;
        let mut members = Vec::new();
        for pattern in patterns.iter().filter_map(Value::as_str) {
            for folder in folders(root, pattern)? {
                members.push(member(root, folder)?);
            }
        }
        Ok(Self {
            root: root.to_path_buf(),
            manifest,
            members,
        })
    }
}

pub(crate) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

/// The folders that a pattern of `members` names: one folder, or `folder/*`.
fn folders(root: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    let Some(parent) = pattern.strip_suffix("/*") else {
        return Ok(vec![PathBuf::from(pattern)]);
    };
    let mut found = Vec::new();
    let entries =
        fs::read_dir(root.join(parent)).with_context(|| format!("reading the folder {parent}"))?;
    for entry in entries {
        let folder = Path::new(parent).join(entry?.file_name());
        if root.join(&folder).join("Cargo.toml").is_file() {
            found.push(folder);
        }
    }
    found.sort();
    Ok(found)
}

fn member(root: &Path, folder: PathBuf) -> Result<Member> {
    let path = folder.join("Cargo.toml");
    let text = read(&root.join(&path))?;
    let table: Table = text
        .parse()
        .with_context(|| format!("reading {}", path.display()))?;
    let name = table
        .get("package")
        .and_then(|package| package.get("name"))
        .and_then(Value::as_str)
        .with_context(|| format!("{}: expected package.name", path.display()))?
        .to_string();
    let targets = targets(root, &folder, &table);
    Ok(Member {
        name,
        folder,
        manifest: text,
        targets,
    })
}

/// The root files at cargo's usual places and those that the manifest names.
fn targets(root: &Path, folder: &Path, manifest: &Table) -> Vec<PathBuf> {
    let mut found = vec![folder.join("src/lib.rs"), folder.join("src/main.rs")];
    let named = |target: &Value| {
        let path = target.get("path").and_then(Value::as_str)?;
        Some(folder.join(path))
    };
    found.extend(manifest.get("lib").and_then(named));
    for kind in ["bin", "bench", "example"] {
        let targets = manifest.get(kind).and_then(Value::as_array);
        found.extend(targets.into_iter().flatten().filter_map(named));
    }
    found.retain(|path| root.join(path).is_file());
    found.sort();
    found.dedup();
    found
}
