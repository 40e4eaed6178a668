//! The one error type of this crate.

use std::path::{Path, PathBuf};

/// What can go wrong in building, running, loading or saving a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration that describes no model.
    #[error("{0}")]
    Config(String),
    /// Images or a policy that do not fit the model.
    #[error("{0}")]
    Input(String),
    /// A token reduction that the model cannot do.
    #[error("token reduction: {0}")]
    Reduction(String),
    /// Options of an import that do not fit the checkpoint.
    #[error("{0}")]
    Import(String),
    /// Tensors that are not exactly those of the model.
    #[error("{path}: {}", mismatch(.missing, .unused, .misshapen), path = path.display())]
    Tensors {
        /// The checkpoint.
        path: PathBuf,
        /// Names of those that the model needs and the checkpoint lacks, sorted.
        missing: Vec<String>,
        /// Names of those that the model has no place for, sorted.
        unused: Vec<String>,
        /// `NAME (expected SHAPE floats, found SHAPE DTYPE)`, sorted.
        misshapen: Vec<String>,
    },
    /// A model whose outputs are not finite numbers.
    #[error("the model gives a logit of {value}: its weights are not usable")]
    NonFiniteLogit {
        /// The logit.
        value: f32,
    },
    /// A file or folder that is no checkpoint, or one that is not understood.
    #[error("{path}: {message}", path = path.display())]
    Checkpoint {
        /// The file or folder.
        path: PathBuf,
        /// What was expected, what was found, what to do.
        message: String,
    },
    /// A recording that is damaged, or whose config is not that of its numbers.
    #[error("{path}: {message}", path = path.display())]
    Recording {
        /// The file.
        path: PathBuf,
        /// What was expected, what was found, what to do.
        message: String,
    },
    /// A file that cannot be written where it is asked for.
    #[error("{path}: {message}", path = path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What was expected, what was found, what to do.
        message: String,
    },
    /// A file of the user's that cannot be read.
    #[error("{path}: cannot be read: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Writing failed.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried, as in `writing`.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Images or their settings are at fault.
    #[error(transparent)]
    Data(#[from] adavit_data::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whether the cause is what the user gave, not something that failed while running.
    pub fn is_input_error(&self) -> bool {
        match self {
            Self::Data(error) => error.is_input_error(),
            Self::NonFiniteLogit { .. } | Self::Io { .. } | Self::Candle(_) => false,
            _ => true,
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

/// Everything that does not fit, at once.
fn mismatch(missing: &[String], unused: &[String], misshapen: &[String]) -> String {
    let parts = [
        (missing, "missing"),
        (unused, "without a place in the model"),
        (misshapen, "of another shape"),
    ];
    let parts = parts.iter().filter(|(names, _)| !names.is_empty());
    let parts =
        parts.map(|(names, what)| format!("{} {what}: {}", count(names.len()), names.join(", ")));
    parts.collect::<Vec<_>>().join("; ")
}

fn count(n: usize) -> String {
    if n == 1 {
        "1 tensor".into()
    } else {
        format!("{n} tensors")
    }
}
