//! Snapshots: `last` and `previous` in the run folder, each with all that a resume needs.
//!
//! ```text
//! model.safetensors   weights as the optimizer left them
//! config.json         the model, so that `last` is a checkpoint too
//! state.safetensors   optimizer moments and averaged weights
//! state.json          progress, the run that it belongs to, size and CRC of the other files
//! ```
//!
//! A snapshot is written whole into a hidden folder next to them and renamed: `last` becomes `previous`,
//! the new one `last`. Whenever the process dies, one of the two is whole.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use adavit_model::{Checkpoint, Tensors, read_tensors, write_file, write_tensors};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::run::progress::Progress;

const LAST: &str = "last";
const PREVIOUS: &str = "previous";
const NEW: &str = ".last.new";
const REFUSED: &str = ".last.refused";
pub(super) const STATE_JSON: &str = "state.json";
const STATE_TENSORS: &str = "state.safetensors";
const FORMAT: u32 = 1;

/// The state of a run between two steps.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) progress: Progress,
    pub(crate) model: Checkpoint,
    pub(crate) state: Tensors,
}

/// What was found in a run folder.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) snapshot: Option<Snapshot>,
    /// Why the last snapshot was refused, if the previous one is used in its place.
    pub(crate) warning: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile {
    format: u32,
    /// CRC-32 of the run's `config.toml` and data: a snapshot of another run is refused.
    run: u32,
    files: BTreeMap<String, FileMark>,
    progress: Progress,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileMark {
    bytes: u64,
    crc32: u32,
}

impl Snapshot {
    /// Makes this the last snapshot of the run in `folder` whose configuration has CRC `run`.
    pub(crate) fn write(&self, folder: &Path, run: u32) -> Result<()> {
        let new = folder.join(NEW);
        remove(&new)?;
        let written = self.write_files(&new, run);
        if written.is_err() {
            // The disk may be full: give back what was taken. The first error is the one to report.
            let _ = remove(&new);
            return written;
        }
        sync(&new)?;
        let (last, previous) = (folder.join(LAST), folder.join(PREVIOUS));
        if last.is_dir() {
            remove(&previous)?;
            rename(&last, &previous)?;
        }
        rename(&new, &last)
    }

    fn write_files(&self, folder: &Path, run: u32) -> Result<()> {
        self.model.save(folder)?;
        write_tensors(&folder.join(STATE_TENSORS), &self.state)?;
        let mut files = BTreeMap::new();
        for name in ["model.safetensors", "config.json", STATE_TENSORS] {
            files.insert(name.to_string(), mark(&folder.join(name))?);
        }
        let state = StateFile {
            format: FORMAT,
            run,
            files,
            progress: self.progress.clone(),
        };
        let json = serde_json::to_vec(&state).map_err(|error| Error::encode(STATE_JSON, &error))?;
        Ok(write_file(&folder.join(STATE_JSON), &json)?)
    }

    /// Finds the newest whole snapshot of the run in `folder`. A refused one is moved aside, so that
    /// the next snapshot takes its place and not that of the whole one.
    ///
    /// # Errors
    /// If there are snapshots but none is whole and of this run; the error names the last one.
    pub(crate) fn find(folder: &Path, run: u32) -> Result<Found> {
        let mut refused: Option<Error> = None;
        for name in [LAST, PREVIOUS] {
            let path = folder.join(name);
            if !path.exists() {
                continue;
            }
            match Self::read(&path, run) {
                Ok(snapshot) => {
                    if refused.is_some() {
                        remove(&folder.join(REFUSED))?;
                        rename(&folder.join(LAST), &folder.join(REFUSED))?;
                    }
                    return Ok(Found {
                        snapshot: Some(snapshot),
                        warning: refused
                            .map(|error| format!("{error}; resuming from {}", path.display())),
                    });
                }
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        match refused {
            Some(error) => Err(error),
            None => Ok(Found {
                snapshot: None,
                warning: None,
            }),
        }
    }

    fn read(folder: &Path, run: u32) -> Result<Self> {
        let path = folder.join(STATE_JSON);
        let bytes =
            fs::read(&path).map_err(|error| refuse(&path, &format!("not a snapshot: {error}")))?;
        let state: StateFile = serde_json::from_slice(&bytes)
            .map_err(|error| refuse(&path, &format!("truncated or not a snapshot: {error}")))?;
        if state.format != FORMAT {
            let message = format!(
                "expected snapshot format {FORMAT}, found {}; use the version that wrote it",
                state.format
            );
            return Err(refuse(&path, &message));
        }
        if state.run != run {
            let message = "this snapshot belongs to a run with another config.toml or other data";
            return Err(refuse(folder, message));
        }
        for (name, expected) in &state.files {
            let path = folder.join(name);
            let found = mark(&path).map_err(|error| refuse(&path, &error.to_string()))?;
            if found != *expected {
                let message = format!(
                    "damaged: expected {} bytes with CRC {:08x}, found {} with {:08x}",
                    expected.bytes, expected.crc32, found.bytes, found.crc32
                );
                return Err(refuse(&path, &message));
            }
        }
        Ok(Self {
            progress: state.progress,
            model: Checkpoint::load(folder)?,
            state: read_tensors(&folder.join(STATE_TENSORS))?,
        })
    }
}

fn refuse(path: &Path, message: &str) -> Error {
    Error::Snapshot {
        path: path.to_path_buf(),
        message: message.to_string(),
    }
}

fn mark(path: &Path) -> Result<FileMark> {
    let bytes = fs::read(path).map_err(Error::io("reading", path))?;
    Ok(FileMark {
        bytes: bytes.len() as u64,
        crc32: crc32fast::hash(&bytes),
    })
}

/// Removes a folder if it is there.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(Error::io("removing", folder))?;
    }
    Ok(())
}

/// Renames a folder, for good.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(Error::io("renaming", from))?;
    sync(to.parent().unwrap_or(Path::new(".")))
}

/// Makes what was renamed into a folder outlive a power cut.
fn sync(folder: &Path) -> Result<()> {
    let file = fs::File::open(folder).map_err(Error::io("opening", folder))?;
    file.sync_all().map_err(Error::io("flushing", folder))
}

#[cfg(test)]
mod tests {
    use adavit_model::{ModelConfig, initial_tensors};

    use super::*;
    use crate::run::progress::Stage;

    fn snapshot(step: u64) -> Snapshot {
        let config = ModelConfig::preset("nano_patch7_28").unwrap();
        let tensors = initial_tensors(&config, step, 0.0).unwrap();
        let mut progress = Progress::new(Stage::Dense);
        progress.step = step;
        progress.seconds = 0.1 + 0.2;
        Snapshot {
            progress,
            state: Tensors::from([("x.exp_avg".into(), tensors["norm.bias"].clone())]),
            model: Checkpoint { config, tensors },
        }
    }

    fn step_found(folder: &Path) -> Option<u64> {
        let found = Snapshot::find(folder, 1).unwrap();
        found.snapshot.map(|snapshot| snapshot.progress.step)
    }

    #[test]
    fn what_was_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let written = snapshot(3);
        written.write(folder.path(), 1).unwrap();
        let read = Snapshot::find(folder.path(), 1).unwrap().snapshot.unwrap();
        assert_eq!(read.progress, written.progress);
        assert_eq!(read.model.config, written.model.config);
        assert_eq!(read.state.keys().collect::<Vec<_>>(), ["x.exp_avg"]);
    }

    #[test]
    fn nothing_is_found_in_an_empty_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(step_found(folder.path()), None);
    }

    #[test]
    fn every_truncation_of_the_last_snapshot_is_refused_and_the_previous_one_works() {
        let folder = tempfile::tempdir().unwrap();
        let files = [
            "state.json",
            "model.safetensors",
            "state.safetensors",
            "config.json",
        ];
        for name in files {
            for cut in [0, 1, 2] {
                snapshot(1).write(folder.path(), 1).unwrap();
                snapshot(2).write(folder.path(), 1).unwrap();
                let file = folder.path().join("last").join(name);
                let bytes = fs::read(&file).unwrap();
                let kept = [0, bytes.len() / 2, bytes.len() - 1][cut];
                fs::write(&file, &bytes[..kept]).unwrap();
                let found = Snapshot::find(folder.path(), 1).unwrap();
                assert!(found.warning.unwrap().contains(name), "{name}");
                assert_eq!(found.snapshot.unwrap().progress.step, 1);
            }
            snapshot(1).write(folder.path(), 1).unwrap();
            snapshot(2).write(folder.path(), 1).unwrap();
            fs::remove_file(folder.path().join("last").join(name)).unwrap();
            assert_eq!(step_found(folder.path()), Some(1));
        }
    }

    #[test]
    fn a_flipped_bit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        snapshot(1).write(folder.path(), 1).unwrap();
        let file = folder.path().join("last/model.safetensors");
        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&file, bytes).unwrap();
        let error = Snapshot::find(folder.path(), 1).unwrap_err();
        assert!(error.is_input_error());
        assert!(error.to_string().contains("model.safetensors: damaged"));
    }

    #[test]
    fn a_snapshot_of_another_run_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        snapshot(1).write(folder.path(), 1).unwrap();
        let error = Snapshot::find(folder.path(), 2).unwrap_err();
        assert!(error.to_string().contains("last: this snapshot belongs to"));
    }

    #[test]
    fn death_between_any_two_renames_leaves_a_whole_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        snapshot(1).write(folder.path(), 1).unwrap();
        snapshot(2).write(folder.path(), 1).unwrap();
        // Half a snapshot was written.
        fs::create_dir(path(NEW)).unwrap();
        fs::write(path(NEW).join(STATE_JSON), "{").unwrap();
        assert_eq!(step_found(folder.path()), Some(2));
        // `previous` is gone.
        fs::remove_dir_all(path(PREVIOUS)).unwrap();
        assert_eq!(step_found(folder.path()), Some(2));
        // `last` was moved away, the new one is not in its place.
        fs::rename(path(LAST), path(PREVIOUS)).unwrap();
        assert_eq!(step_found(folder.path()), Some(2));
        snapshot(3).write(folder.path(), 1).unwrap();
        assert_eq!(step_found(folder.path()), Some(3));
    }

    #[test]
    fn a_damaged_snapshot_never_takes_the_place_of_the_whole_one() {
        let folder = tempfile::tempdir().unwrap();
        snapshot(1).write(folder.path(), 1).unwrap();
        snapshot(2).write(folder.path(), 1).unwrap();
        fs::write(folder.path().join("last/state.json"), "{").unwrap();
        assert_eq!(step_found(folder.path()), Some(1));
        snapshot(3).write(folder.path(), 1).unwrap();
        fs::remove_dir_all(folder.path().join("last")).unwrap();
        assert_eq!(step_found(folder.path()), Some(1));
    }
}
