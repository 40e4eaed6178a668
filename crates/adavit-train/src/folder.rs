//! A run folder: what is in it, and how it comes to be.
//!
//! ```text
//! config.toml    the resolved settings
//! metrics.csv    one row per epoch
//! dense/         the plain model, best on the held-out images
//! best/          the adaptive model, best on the held-out images
//! last/          the newest snapshot, previous/ the one before
//! summary.json   what it came to
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use adavit_model::{Checkpoint, write_file};

use crate::config::TrainConfig;
use crate::progress::MetricsRow;
use crate::snapshot::remove;
use crate::summary::Summary;
use crate::{Error, Result};

const CONFIG: &str = "config.toml";
const METRICS: &str = "metrics.csv";
const SUMMARY: &str = "summary.json";
const FOLDERS: [&str; 6] = [
    "last",
    "previous",
    ".last.new",
    ".keep.new",
    "dense",
    "best",
];
/// How the names of files begin that are not renamed yet.
const LEFTOVER: &str = ".adavit-";

/// The folder of one run.
#[derive(Debug)]
pub(crate) struct RunFolder {
    path: PathBuf,
    mark: u32,
}

impl RunFolder {
    /// Makes the folder and writes the settings into it.
    ///
    /// # Errors
    /// If it is not empty and `force` is not given, or cannot be written: input errors.
    pub(crate) fn create(path: &Path, force: bool, config: &TrainConfig) -> Result<Self> {
        let unusable = |error: &dyn std::fmt::Display| {
            Error::Input(format!(
                "{}: cannot write a run here ({error}); give another folder by --out",
                path.display()
            ))
        };
        if path.exists() {
            remove_leftovers(path).map_err(|error| unusable(&error))?;
            let mut entries = fs::read_dir(path).map_err(|error| unusable(&error))?;
            if entries.next().is_some() && !force {
                return Err(Error::Input(format!(
                    "{}: the folder is not empty; go on with the run in it by --resume {0}, or \
                     replace the run by --force",
                    path.display()
                )));
            }
            clear(path).map_err(|error| unusable(&error))?;
        }
        fs::create_dir_all(path).map_err(|error| unusable(&error))?;
        let text = config.to_toml()?;
        write_file(&path.join(CONFIG), text.as_bytes()).map_err(|error| unusable(&error))?;
        Ok(Self {
            path: path.to_path_buf(),
            mark: crc32fast::hash(text.as_bytes()),
        })
    }

    /// Opens the folder of a run that was started.
    pub(crate) fn open(path: &Path) -> Result<(Self, TrainConfig)> {
        let file = path.join(CONFIG);
        let text = fs::read_to_string(&file).map_err(|error| {
            Error::Input(format!(
                "{}: no run to go on with ({error}); expected the folder of a run",
                file.display()
            ))
        })?;
        let config = TrainConfig::from_toml(&text)
            .map_err(|error| Error::Input(format!("{}: {error}", file.display())))?;
        remove_leftovers(path)?;
        let folder = Self {
            path: path.to_path_buf(),
            mark: crc32fast::hash(text.as_bytes()),
        };
        Ok((folder, config))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What binds snapshots to this run's settings.
    pub(crate) fn mark(&self) -> u32 {
        self.mark
    }

    pub(crate) fn dense(&self) -> PathBuf {
        self.path.join("dense")
    }

    pub(crate) fn best(&self) -> PathBuf {
        self.path.join("best")
    }

    /// Puts a checkpoint in the place of the one in `target`: whole or not at all.
    pub(crate) fn keep(&self, checkpoint: &Checkpoint, target: &Path) -> Result<()> {
        let new = self.path.join(".keep.new");
        remove(&new)?;
        checkpoint.save(&new)?;
        remove(target)?;
        fs::rename(&new, target).map_err(Error::io("renaming", &new))
    }

    /// Writes every finished epoch: a resumed run has each of them once.
    pub(crate) fn write_metrics(&self, rows: &[MetricsRow]) -> Result<()> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let path = self.path.join(METRICS);
        let failed = |error: &dyn std::fmt::Display| {
            Error::Input(format!("{}: cannot be written: {error}", path.display()))
        };
        for row in rows {
            writer.serialize(row).map_err(|error| failed(&error))?;
        }
        let bytes = writer.into_inner().map_err(|error| failed(&error))?;
        Ok(write_file(&path, &bytes)?)
    }

    /// What a finished run came to; none if it is not finished.
    pub(crate) fn read_summary(&self) -> Option<Summary> {
        let text = fs::read_to_string(self.path.join(SUMMARY)).ok()?;
        serde_json::from_str(&text).ok()
    }

    pub(crate) fn write_summary(&self, summary: &Summary) -> Result<()> {
        let path = self.path.join(SUMMARY);
        let json = serde_json::to_string_pretty(summary)
            .map_err(|error| Error::Input(format!("{}: {error}", path.display())))?;
        Ok(write_file(&path, format!("{json}\n").as_bytes())?)
    }
}

/// The first of `runs/train`, `runs/train-2`, ... under `root` that is not there yet.
pub fn next_run_folder(root: &Path) -> PathBuf {
    let mut path = root.join("train");
    let mut n = 1;
    while path.exists() {
        n += 1;
        path = root.join(format!("train-{n}"));
    }
    path
}

/// Removes what a run leaves, and nothing else.
fn clear(path: &Path) -> Result<()> {
    for name in FOLDERS {
        remove(&path.join(name))?;
    }
    for name in [CONFIG, METRICS, SUMMARY] {
        let file = path.join(name);
        if file.exists() {
            fs::remove_file(&file).map_err(Error::io("removing", &file))?;
        }
    }
    Ok(())
}

/// Removes files that a killed process had not renamed yet.
fn remove_leftovers(folder: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with(LEFTOVER) && path.is_file() {
            fs::remove_file(&path).map_err(Error::io("removing", &path))?;
        }
    }
    Ok(())
}
