//! A folder that one process at a time writes into.
//!
//! The lock is on the file `.lock` in the folder. The system releases it when the process ends,
//! however it ends. The file stays there: if it were removed or replaced, two processes could hold a
//! lock on two files of this name.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::Path;

use crate::error::{Error, Result};

/// The file that is locked.
pub(crate) const LOCK: &str = ".lock";

/// Keeps other processes of adavit from writing into a folder, until it is dropped.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Locks a folder, which is made if it is missing.
    ///
    /// # Errors
    /// Input errors if another process has locked it, or it cannot be written.
    pub fn claim(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
        let path = folder.join(LOCK);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| unwritable(folder, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Folder {
                path: folder.to_path_buf(),
                message: "another process is working in this folder; wait for it, or stop it"
                    .into(),
            }),
            Err(TryLockError::Error(error)) => Err(Error::io("locking", &path)(error)),
        }
    }

    /// Makes a folder and locks it; returns none if something is at that path already.
    ///
    /// # Errors
    /// As for [`Self::claim`].
    pub fn claim_new(folder: &Path) -> Result<Option<Self>> {
        let unwritable = |error: std::io::Error| unwritable(folder, &error);
        if let Some(parent) = folder.parent() {
            fs::create_dir_all(parent).map_err(unwritable)?;
        }
        match fs::create_dir(folder) {
            Ok(()) => Self::claim(folder).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(unwritable(error)),
        }
    }
}

/// The error of a folder that cannot be written.
pub(crate) fn unwritable(folder: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::Folder {
        path: folder.to_path_buf(),
        message: format!("cannot be written ({error}); choose another folder"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_claimed_once_at_a_time_and_its_lock_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let lock = FolderLock::claim_new(&path).unwrap().unwrap();
        assert!(FolderLock::claim_new(&path).unwrap().is_none());
        let error = FolderLock::claim(&path).unwrap_err();
        assert!(error.is_input_error());
        assert!(error.to_string().contains("another process"), "{error}");
        drop(lock);
        assert!(path.join(LOCK).exists());
        FolderLock::claim(&path).unwrap();
    }

    #[test]
    fn a_path_that_can_be_no_folder_is_an_input_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [file.clone(), file.join("below")] {
            assert!(FolderLock::claim(&path).unwrap_err().is_input_error());
        }
    }
}
