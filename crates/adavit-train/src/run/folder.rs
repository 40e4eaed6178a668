//! A run folder: what is in it, and how it comes to be.
//!
//! ```text
//! config.toml    the resolved settings
//! metrics.csv    one row per epoch
//! dense/         the plain model, best on the held-out images
//! best/          the adaptive model, best on the held-out images
//! last/          the newest snapshot, previous/ the one before
//! epochs/        checkpoints of more epochs, on request
//! events.*       for TensorBoard, on request
//! run.json       what each start of it ran on
//! summary.json   what it came to
//! report.html    the same with pictures
//! ```

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use adavit_model::{Checkpoint, write_file};

use crate::config::train_config::TrainConfig;
use crate::error::{Error, Result};
use crate::run::progress::{MetricsRow, Stage};
use crate::run::snapshot::{remove, rename};
use crate::run::summary::Summary;
use crate::run::tensorboard;

const CONFIG: &str = "config.toml";
const METRICS: &str = "metrics.csv";
const SUMMARY: &str = "summary.json";
const STARTS: &str = "run.json";
/// The report of a run, which `adavit-experiment` draws.
pub const REPORT: &str = "report.html";
const EPOCHS: &str = "epochs";
/// What of a run is a checkpoint, or holds them.
const CHECKPOINTS: [&str; 5] = ["dense", "best", "last", "previous", EPOCHS];
const FOLDERS: [&str; 10] = [
    EPOCHS,
    ".dense.old",
    ".best.old",
    "last",
    "previous",
    ".last.new",
    ".last.refused",
    ".keep.new",
    "dense",
    "best",
];
const FILES: [&str; 5] = [CONFIG, METRICS, SUMMARY, STARTS, REPORT];
/// How the names of files begin that are not renamed yet.
const LEFTOVER: &str = ".adavit-";

/// The folder of one run, which no other process works on meanwhile.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    mark: u32,
    /// Holds the lock until the run ends, however it ends.
    _lock: File,
}

impl RunFolder {
    /// Makes the folder and writes the settings into it.
    ///
    /// # Errors
    /// If it is not empty and `force` is not given, if it holds no run that `force` could replace,
    /// or cannot be written: input errors.
    pub(crate) fn create(path: &Path, force: bool, config: &TrainConfig) -> Result<Self> {
        let text = config.to_toml()?;
        let unusable = |error: &dyn std::fmt::Display| {
            Error::Input(format!(
                "{}: cannot write a run here ({error}); give another folder by --out",
                path.display()
            ))
        };
        if path.exists() {
            check_replaceable(path, force)?;
            // A run that another process works on stays.
            let there = Self::holds_run(path).then(|| Self::locked(path, ""));
            let _there = there.transpose()?;
            clear(path).map_err(|error| unusable(&error))?;
        }
        fs::create_dir_all(path).map_err(|error| unusable(&error))?;
        write_file(&path.join(CONFIG), text.as_bytes()).map_err(|error| unusable(&error))?;
        Self::locked(path, &text)
    }

    /// Opens the folder of a run that was started.
    pub(crate) fn open(path: &Path) -> Result<(Self, TrainConfig)> {
        let text = read_config_text(path)?;
        let config = parse_config(path, &text)?;
        let folder = Self::locked(path, &text)?;
        for target in [folder.dense(), folder.best()] {
            let old = aside(&target);
            if old.exists() && !target.exists() {
                rename(&old, &target)?;
            }
        }
        remove_leftovers(path)?;
        Ok((folder, config))
    }

    /// Whether a run was started in a folder.
    pub(crate) fn holds_run(path: &Path) -> bool {
        path.join(CONFIG).exists()
    }

    /// The run that a path is, or that has it among its checkpoints.
    pub(crate) fn around(path: &Path) -> Option<&Path> {
        path.ancestors().find(|folder| {
            let inside = path.strip_prefix(folder).ok();
            let first = inside.and_then(|inside| inside.iter().next());
            let own = |name: &OsStr| CHECKPOINTS.iter().any(|own| name == *own);
            Self::holds_run(folder) && first.is_none_or(own)
        })
    }

    /// Reads the settings of the run in a folder.
    pub fn read_config(path: &Path) -> Result<TrainConfig> {
        parse_config(path, &read_config_text(path)?)
    }

    fn locked(path: &Path, text: &str) -> Result<Self> {
        let file = path.join(CONFIG);
        let lock = File::open(&file).map_err(Error::io("opening", &file))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_path_buf(),
                mark: crc32fast::hash(text.as_bytes()),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(Error::Input(format!(
                "{}: another process is working on this run; wait for it or stop it",
                path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(Error::io("locking", &file)(error)),
        }
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

    /// The checkpoint of an epoch that is kept besides the best one.
    pub(crate) fn epoch(&self, stage: Stage, epoch: u64) -> PathBuf {
        let name = format!("{}-{epoch:03}", stage.name());
        self.path.join(EPOCHS).join(name)
    }

    /// Where the starts of the run are written down.
    pub(crate) fn starts(&self) -> PathBuf {
        self.path.join(STARTS)
    }

    /// Puts a checkpoint in the place of the one in `target`: whole or not at all.
    pub(crate) fn keep(&self, checkpoint: &Checkpoint, target: &Path) -> Result<()> {
        let new = self.path.join(".keep.new");
        remove(&new)?;
        checkpoint.save(&new)?;
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(Error::io("creating", parent))?;
        }
        // Aside first: at any moment either the old or the new one is there to be found.
        let old = aside(target);
        remove(&old)?;
        if target.exists() {
            rename(target, &old)?;
        }
        rename(&new, target)?;
        remove(&old)
    }

    /// Writes every finished epoch: a resumed run has each of them once.
    pub(crate) fn write_metrics(&self, rows: &[MetricsRow]) -> Result<()> {
        let path = self.path.join(METRICS);
        let mut writer = csv::Writer::from_writer(Vec::new());
        let written = rows.iter().try_for_each(|row| writer.serialize(row));
        let bytes = written
            .map_err(std::io::Error::other)
            .and_then(|()| writer.into_inner().map_err(std::io::Error::other))
            .map_err(Error::io("writing", &path))?;
        Ok(write_file(&path, &bytes)?)
    }

    /// What a finished run came to; none if it is not finished.
    pub(crate) fn read_summary(&self) -> Option<Summary> {
        Self::read_summary_of(&self.path)
    }

    /// As [`Self::read_summary`] of the run in a folder.
    pub fn read_summary_of(path: &Path) -> Option<Summary> {
        let text = fs::read_to_string(path.join(SUMMARY)).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Reads every finished epoch of the run in a folder.
    pub fn read_metrics(path: &Path) -> Result<Vec<MetricsRow>> {
        let path = path.join(METRICS);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let unreadable = |error: csv::Error| Error::File {
            path: path.clone(),
            message: format!("not the metrics of a run: {error}"),
        };
        let reader = csv::Reader::from_path(&path).map_err(unreadable)?;
        let rows = reader.into_deserialize();
        rows.map(|row| row.map_err(unreadable)).collect()
    }

    pub(crate) fn write_summary(&self, summary: &Summary) -> Result<()> {
        let path = self.path.join(SUMMARY);
        let json = serde_json::to_string_pretty(summary)
            .map_err(std::io::Error::other)
            .map_err(Error::io("writing", &path))?;
        Ok(write_file(&path, format!("{json}\n").as_bytes())?)
    }
}

/// Where a folder is while another takes its place.
fn aside(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.old"))
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

fn read_config_text(path: &Path) -> Result<String> {
    let file = path.join(CONFIG);
    fs::read_to_string(&file).map_err(|error| {
        Error::Input(format!(
            "{}: no run is here ({error}); expected the folder of a run",
            file.display()
        ))
    })
}

fn parse_config(path: &Path, text: &str) -> Result<TrainConfig> {
    TrainConfig::from_toml(text)
        .map_err(|error| Error::Input(format!("{}: {error}", path.join(CONFIG).display())))
}

/// Checks that a folder that exists may be written: empty, or a run to be replaced by `force`. Files
/// that a killed process had not renamed yet do not count.
fn check_replaceable(path: &Path, force: bool) -> Result<()> {
    let unreadable = |error: std::io::Error| {
        Error::Input(format!("{}: cannot be read: {error}", path.display()))
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with(LEFTOVER) {
            names.push(name.into_owned());
        }
    }
    let is_run = RunFolder::read_config(path).is_ok();
    if !names.is_empty() && !force {
        let instead = if is_run {
            format!(
                "go on with the run in it by --resume {}, or replace the run by --force",
                path.display()
            )
        } else {
            format!(
                "it has no {CONFIG} of a run to go on with; move what it holds away, or give another \
                 folder by --out"
            )
        };
        return Err(Error::Input(format!(
            "{}: the folder is not empty; {instead}",
            path.display()
        )));
    }
    let of_a_run = |name: &String| {
        let name = name.as_str();
        let fixed = FOLDERS.contains(&name) || FILES.contains(&name);
        fixed || name.starts_with(tensorboard::FILE_PREFIX)
    };
    if let Some(name) = names.iter().find(|name| of_a_run(name))
        && !is_run
    {
        return Err(Error::Input(format!(
            "{}: holds {name}, but no {CONFIG} of a run, so --force does not remove it; give another \
             folder by --out",
            path.display()
        )));
    }
    Ok(())
}

/// Removes what a run leaves, and nothing else.
fn clear(path: &Path) -> Result<()> {
    remove_leftovers(path)?;
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

/// Removes files that a killed process had not renamed yet.
fn remove_leftovers(folder: &Path) -> Result<()> {
    remove_files(folder, LEFTOVER)
}

/// Removes the files of a folder whose names begin with `prefix`.
fn remove_files(folder: &Path, prefix: &str) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with(prefix) && path.is_file() {
            fs::remove_file(&path).map_err(Error::io("removing", &path))?;
        }
    }
    Ok(())
}
