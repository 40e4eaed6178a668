//! A run folder: what is in it.
//!
//! ```text
//! .lock          what a process locks that works on the run
//! config.toml    the resolved settings
//! metrics.csv    one row per epoch
//! dense/         the dense model, best on the held-out images
//! best/          the adaptive model, best on the held-out images
//! last/          the newest snapshot, previous/ the one before
//! epochs/        checkpoints of more epochs, on request
//! events.*       for TensorBoard, on request
//! run.json       what each start of it ran on
//! summary.json   its results on the test images
//! report.html    the results with pictures
//! ```

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use adavit_model::{Checkpoint, write_file};

use crate::config::train_config::TrainConfig;
use crate::error::{Error, Result};
use crate::run::lock::FolderLock;
use crate::run::progress::{MetricsRow, Stage};
use crate::run::snapshot::{STATE_JSON, remove, rename};
use crate::run::summary::Summary;

pub(super) const CONFIG: &str = "config.toml";
const METRICS: &str = "metrics.csv";
const SUMMARY: &str = "summary.json";
const STARTS: &str = "run.json";
/// The report of a run, which `adavit-experiment` draws.
pub const REPORT: &str = "report.html";
const EPOCHS: &str = "epochs";
/// What of a run is a checkpoint, or holds them.
const CHECKPOINTS: [&str; 5] = ["dense", "best", "last", "previous", EPOCHS];
pub(super) const FOLDERS: [&str; 10] = [
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
pub(super) const FILES: [&str; 5] = [CONFIG, METRICS, SUMMARY, STARTS, REPORT];
/// How the names of files begin that are not renamed yet.
pub(super) const LEFTOVER: &str = ".adavit-";

/// The folder of one run, which no other process works on while this value lives.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    mark: u32,
    /// Held until the run ends.
    _lock: FolderLock,
}

impl RunFolder {
    /// The folder of a run whose `config.toml` is `text`.
    pub(crate) fn of(path: PathBuf, text: &str, lock: FolderLock) -> Self {
        Self {
            path,
            mark: config_mark(text),
            _lock: lock,
        }
    }

    /// Opens the folder of a run that was started.
    pub(crate) fn open(path: &Path) -> Result<(Self, TrainConfig)> {
        Self::read_config(path)?;
        let lock = FolderLock::claim(path)?;
        // Read under the lock: another process may have extended the run meanwhile.
        let text = read_config_text(path)?;
        let config = parse_config(path, &text)?;
        let folder = Self::of(path.to_path_buf(), &text, lock);
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

    /// Replaces the settings: what binds snapshots to them changes, too.
    pub(crate) fn replace_config(&mut self, text: &str) -> Result<()> {
        write_file(&self.path.join(CONFIG), text.as_bytes())?;
        self.mark = config_mark(text);
        Ok(())
    }

    /// Removes the results of the whole run.
    pub(crate) fn remove_results(&self) -> Result<()> {
        for name in [SUMMARY, REPORT] {
            let file = self.path.join(name);
            if file.exists() {
                fs::remove_file(&file).map_err(Error::io("removing", &file))?;
            }
        }
        Ok(())
    }

    /// Reads the settings of the run in a folder.
    pub fn read_config(path: &Path) -> Result<TrainConfig> {
        parse_config(path, &read_config_text(path)?)
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
        let failed = |error: &dyn std::fmt::Display| Error::encode(METRICS, error);
        written.map_err(|error| failed(&error))?;
        let bytes = writer.into_inner().map_err(|error| failed(&error))?;
        Ok(write_file(&path, &bytes)?)
    }

    /// The results of a finished run; none if it is not finished.
    pub(crate) fn read_summary(&self) -> Option<Summary> {
        Self::read_summary_of(&self.path)
    }

    /// Reads the results of the run in a folder; none if it is not finished.
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
            .map_err(|error| Error::encode(SUMMARY, &error))?;
        Ok(write_file(&path, format!("{json}\n").as_bytes())?)
    }
}

/// Claims the folder of a checkpoint for writing: with the run that it belongs to, if there is one.
///
/// # Errors
/// If the folder is a run or one of its snapshots, which a checkpoint would spoil; and as for
/// [`FolderLock::claim`].
pub fn claim_checkpoint(folder: &Path) -> Result<FolderLock> {
    let refused = |message: &str| {
        Err(Error::Folder {
            path: folder.to_path_buf(),
            message: message.into(),
        })
    };
    if RunFolder::holds_run(folder) {
        return refused("holds a run, which a checkpoint would spoil; choose another folder");
    }
    if folder.join(STATE_JSON).exists() {
        return refused(
            "a run resumes from this snapshot, which must not change; choose another folder",
        );
    }
    let whole = folder.canonicalize();
    let run = whole.as_deref().ok().and_then(RunFolder::around);
    FolderLock::claim(run.unwrap_or(folder))
}

/// Where a folder is while another takes its place.
fn aside(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.old"))
}

fn read_config_text(path: &Path) -> Result<String> {
    let file = path.join(CONFIG);
    fs::read_to_string(&file).map_err(|error| Error::File {
        path: file,
        message: format!("no run is here ({error}); expected the folder of a run"),
    })
}

fn parse_config(path: &Path, text: &str) -> Result<TrainConfig> {
    TrainConfig::from_toml(text).map_err(|error| Error::File {
        path: path.join(CONFIG),
        message: error.to_string(),
    })
}

/// What binds snapshots to settings.
pub(super) fn config_mark(text: &str) -> u32 {
    crc32fast::hash(text.as_bytes())
}

/// Removes files that a killed process had not renamed yet.
fn remove_leftovers(folder: &Path) -> Result<()> {
    remove_files(folder, LEFTOVER)
}

/// Removes the files of a folder whose names begin with `prefix`.
pub(super) fn remove_files(folder: &Path, prefix: &str) -> Result<()> {
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
