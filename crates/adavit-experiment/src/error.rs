//! The one error type of this crate.

use std::path::{Path, PathBuf};

/// What can go wrong while comparing, measuring or drawing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of a sweep or of a run that cannot be read as what it should be.
    #[error("{path}: {message}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was expected, what was found, what to do.
        message: String,
    },
    /// A setting that is out of range, or that does not go with another one.
    #[error("{0}")]
    Setting(String),
    /// Settings or results that could not be written as text.
    #[error("writing {what}: {message}")]
    Encode {
        /// What was written, as in `sweep.toml`.
        what: &'static str,
        /// The serializer's error.
        message: String,
    },
    /// A chart or a picture that could not be drawn.
    #[error("drawing {what}: {message}")]
    Drawing {
        /// What was drawn.
        what: &'static str,
        /// The library's error.
        message: String,
    },
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
    /// A data set or one of its files is at fault.
    #[error(transparent)]
    Data(#[from] adavit_data::Error),
    /// The model or its checkpoint is at fault.
    #[error(transparent)]
    Model(#[from] adavit_model::Error),
    /// A training or an evaluation failed.
    #[error(transparent)]
    Train(#[from] adavit_train::Error),
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whether the cause is what the user gave, not something that failed while running.
    pub fn is_input_error(&self) -> bool {
        match self {
            Self::Setting(_) | Self::File { .. } => true,
            Self::Drawing { .. } | Self::Encode { .. } | Self::Io { .. } | Self::Candle(_) => false,
            Self::Data(error) => error.is_input_error(),
            Self::Model(error) => error.is_input_error(),
            Self::Train(error) => error.is_input_error(),
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
