//! Where a new run is written, and how its folder is claimed.

use std::fs;
use std::path::{Path, PathBuf};

use adavit_model::write_file;

use crate::config::train_config::TrainConfig;
use crate::error::{Error, Result};
use crate::run::folder::{CONFIG, FILES, FOLDERS, LEFTOVER, RunFolder, remove_files};
use crate::run::lock::{FolderLock, LOCK, unwritable};
use crate::run::snapshot::remove;
use crate::run::tensorboard;

/// Where a new run is written.
#[derive(Debug, Clone, Copy)]
pub enum Destination<'a> {
    /// This folder, which must be empty or missing.
    Folder(&'a Path),
    /// This folder, in which a run is replaced.
    Replace(&'a Path),
    /// The first of `train`, `train-2`, ... in this folder that is not there yet.
    NextIn(&'a Path),
}

impl Destination<'_> {
    /// Claims the folder and writes the settings into it.
    ///
    /// # Errors
    /// If the folder is not empty, holds what is no run, cannot be written, or another process works
    /// in it: input errors.
    pub(crate) fn create(self, config: &TrainConfig) -> Result<RunFolder> {
        let text = config.to_toml()?;
        let (path, lock) = match self {
            Self::Folder(path) => (path.to_path_buf(), claim(path, false)?),
            Self::Replace(path) => (path.to_path_buf(), claim(path, true)?),
            Self::NextIn(root) => claim_next(root)?,
        };
        write_file(&path.join(CONFIG), text.as_bytes())
            .map_err(|error| unwritable(&path, &error))?;
        Ok(RunFolder::of(path, &text, lock))
    }
}

/// Claims a folder for a new run, and removes the run that is in it if that is to be replaced.
fn claim(path: &Path, replace: bool) -> Result<FolderLock> {
    // A folder that is refused stays as it is; one with a lock file may belong to a live process.
    if path.exists() && !path.join(LOCK).exists() {
        check_replaceable(path, replace)?;
    }
    let lock = FolderLock::claim(path)?;
    // Once more: another process may have been here before the lock was taken.
    check_replaceable(path, replace)?;
    clear(path).map_err(|error| unwritable(path, &error))?;
    Ok(lock)
}

fn claim_next(root: &Path) -> Result<(PathBuf, FolderLock)> {
    let mut path = root.join("train");
    let mut n = 1;
    loop {
        if let Some(lock) = FolderLock::claim_new(&path)? {
            return Ok((path, lock));
        }
        n += 1;
        path = root.join(format!("train-{n}"));
    }
}

/// Checks that a folder may be written: it is empty, or holds a run that is to be replaced. Files that
/// a killed process had not renamed yet do not count.
fn check_replaceable(path: &Path, replace: bool) -> Result<()> {
    let refused = |message: String| {
        Err(Error::Folder {
            path: path.to_path_buf(),
            message,
        })
    };
    let names = match names_in(path) {
        Ok(names) => names,
        Err(error) => return refused(format!("cannot be read: {error}")),
    };
    if names.is_empty() {
        return Ok(());
    }
    let is_run = RunFolder::read_config(path).is_ok();
    if !replace && is_run {
        return refused(
            "the folder is not empty; resume the run in it, replace the run, or choose another folder"
                .into(),
        );
    }
    if !replace {
        return refused(format!(
            "the folder is not empty, and without {CONFIG} it holds no run to resume; move its files \
             away, or choose another folder"
        ));
    }
    match names.first() {
        Some(name) if !is_run => refused(format!(
            "holds {name}, but no {CONFIG} of a run, so it is not replaced; choose another folder"
        )),
        _ => Ok(()),
    }
}

fn names_in(path: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != LOCK && !name.starts_with(LEFTOVER) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Removes what a run leaves, and nothing else; the lock file stays.
fn clear(path: &Path) -> Result<()> {
    remove_files(path, LEFTOVER)?;
    remove_files(path, tensorboard::FILE_PREFIX)?;
    for name in FOLDERS {
        remove(&path.join(name))?;
    }
    for name in FILES {
        let file = path.join(name);
        if file.exists() {
            fs::remove_file(&file).map_err(Error::io("removing", &file))?;
        }
    }
    Ok(())
}
