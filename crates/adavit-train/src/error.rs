//! The one error type of this crate.

use std::path::{Path, PathBuf};

/// What can go wrong while training or evaluating.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of a run that cannot be read as what it should be.
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
    /// Images, tensors, model or checkpoint that do not fit together.
    #[error("{0}")]
    Mismatch(String),
    /// A folder that cannot be used as asked: it holds no run, is not empty, or another process
    /// works in it.
    #[error("{path}: {message}", path = path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What was expected, what was found, what to do.
        message: String,
    },
    /// Settings or results that could not be written as text.
    #[error("writing {what}: {message}")]
    Encode {
        /// What was written, as in `config.toml`.
        what: &'static str,
        /// The serializer's error.
        message: String,
    },
    /// A snapshot that is truncated, damaged or not ours.
    #[error("{path}: {message}", path = path.display())]
    Snapshot {
        /// The file or folder.
        path: PathBuf,
        /// What was expected, what was found, what to do.
        message: String,
    },
    /// A loss, a gradient or a weight is no longer a finite number.
    #[error(
        "{what} is not finite at step {step}: lower the learning rate (lr), or the weight of that term"
    )]
    NonFinite {
        /// The term of the loss, or the name of the parameter.
        what: String,
        /// The optimizer step, counted from 0 in its stage.
        step: u64,
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
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whether the cause is what the user gave (arguments, configuration, data, a checkpoint),
    /// not something that failed while running.
    pub fn is_input_error(&self) -> bool {
        match self {
            Self::Setting(_)
            | Self::Mismatch(_)
            | Self::Folder { .. }
            | Self::File { .. }
            | Self::Snapshot { .. } => true,
            Self::Data(error) => error.is_input_error(),
            Self::Model(error) => error.is_input_error(),
            Self::NonFinite { .. } | Self::Encode { .. } | Self::Io { .. } | Self::Candle(_) => {
                false
            }
        }
    }

    pub(crate) fn encode(what: &'static str, error: &dyn std::fmt::Display) -> Self {
        Self::Encode {
            what,
            message: error.to_string(),
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
