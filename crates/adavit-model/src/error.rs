//! The one error type of this crate.

use std::path::{Path, PathBuf};

/// What can go wrong in building, running, loading or saving a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration that describes no model.
    #[error("{0}")]
    Config(String),
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
    /// A checkpoint that cannot be read as one.
    #[error("{path}: {message}", path = path.display())]
    Checkpoint {
        /// The file or folder.
        path: PathBuf,
        /// What was expected, what was found, what to do.
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
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whether the cause is what the user gave, not something that failed while running.
    pub fn is_input_error(&self) -> bool {
        !matches!(
            self,
            Self::NonFiniteLogit { .. } | Self::Io { .. } | Self::Candle(_)
        )
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
    let told = parts.iter().filter(|(names, _)| !names.is_empty());
    let told =
        told.map(|(names, what)| format!("{} {what}: {}", count(names.len()), names.join(", ")));
    told.collect::<Vec<_>>().join("; ")
}

fn count(n: usize) -> String {
    if n == 1 {
        "1 tensor".into()
    } else {
        format!("{n} tensors")
    }
}
