//! The one error type of this crate.

use std::path::{Path, PathBuf};

/// What can go wrong from a name or a picture to a batch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of a data set is missing, damaged or inconsistent.
    #[error("{path}: {message}", path = path.display())]
    Data {
        /// The file or folder.
        path: PathBuf,
        /// What was expected, what was found, what to do.
        message: String,
    },
    /// A picture that cannot be read or decoded.
    #[error("{path}: {message}", path = path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// No data set has this name, or there is no place to take it from.
    #[error("{0}")]
    Unavailable(String),
    /// A setting that cannot be used with these images.
    #[error("{0}")]
    Setting(String),
    /// Images in memory whose sizes, labels or classes do not fit together.
    #[error("data set {name}: {message}")]
    Inconsistent {
        /// The data set.
        name: String,
        /// What was expected and what was found.
        message: String,
    },
    /// A thread that makes batches failed.
    #[error("a loader's thread {0}")]
    Worker(String),
    /// Reading or writing failed.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried, as in `writing`.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whether the cause is what the user gave (a name, a setting, a file), not something that
    /// failed while running.
    pub fn is_input_error(&self) -> bool {
        match self {
            Self::Data { .. }
            | Self::Picture { .. }
            | Self::Unavailable(_)
            | Self::Setting(_)
            | Self::Inconsistent { .. } => true,
            Self::Worker(_) | Self::Io { .. } | Self::Candle(_) => false,
        }
    }

    /// Returns an error about a file or folder of a data set.
    pub(crate) fn data(path: &Path, message: impl Into<String>) -> Self {
        Self::Data {
            path: path.to_path_buf(),
            message: message.into(),
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
