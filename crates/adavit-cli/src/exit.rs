//! How a command ends, and which exit status says so.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything was done.
    Done,
    /// A check failed, or some inputs were skipped.
    CheckFailed,
    /// The command line or an input cannot be used; nothing was written.
    BadInput,
    /// Something failed while running; the last snapshot is intact.
    Failed,
    /// Stopped by a signal or a time limit; the state is saved.
    Interrupted,
}

impl From<Exit> for u8 {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => 0,
            Exit::CheckFailed => 1,
            Exit::BadInput => 2,
            Exit::Failed => 3,
            Exit::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(u8::from(exit))
    }
}

impl From<&anyhow::Error> for Exit {
    /// Separates what other input can mend from what failed while running.
    fn from(error: &anyhow::Error) -> Self {
        let mut causes = error.chain();
        if causes.any(|cause| is_input_error(cause) == Some(true)) {
            Self::BadInput
        } else {
            Self::Failed
        }
    }
}

/// An argument, or a combination of arguments, that this program cannot use.
#[derive(Debug)]
pub(crate) struct BadInput(String);

impl std::fmt::Display for BadInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadInput {}

/// Returns the error of input that cannot be used: what was expected, what was found, what to do.
pub(crate) fn bad_input(message: impl Into<String>) -> anyhow::Error {
    BadInput(message.into()).into()
}

/// Whether an error's cause is what the user gave; none for errors that are not of this project. Our
/// own errors name their causes in their messages.
pub(crate) fn is_input_error(error: &(dyn std::error::Error + 'static)) -> Option<bool> {
    if error.is::<BadInput>() {
        return Some(true);
    }
    let data = error.downcast_ref::<adavit_data::Error>();
    let model = error.downcast_ref::<adavit_model::Error>();
    let train = error.downcast_ref::<adavit_train::Error>();
    let experiment = error.downcast_ref::<adavit_experiment::Error>();
    data.map(adavit_data::Error::is_input_error)
        .or_else(|| model.map(adavit_model::Error::is_input_error))
        .or_else(|| train.map(adavit_train::Error::is_input_error))
        .or_else(|| experiment.map(adavit_experiment::Error::is_input_error))
}
