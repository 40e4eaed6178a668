//! What the dense stage does with a checkpoint that was given.

use serde::{Deserialize, Serialize};

/// What the dense stage does with a dense checkpoint to start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FineTune {
    /// Nothing: the stage is skipped.
    #[default]
    Off,
    /// It trains the checkpoint.
    On,
    /// It trains the checkpoint with a new head.
    NewHead,
}

impl FineTune {
    /// Whether the stage is skipped.
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes a reference"
    )]
    pub(crate) fn is_off(&self) -> bool {
        *self == Self::Off
    }
}
