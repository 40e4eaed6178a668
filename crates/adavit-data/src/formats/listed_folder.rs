//! What a folder holds itself, as it is listed and kept.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::formats::left_out::Reason;

/// What a folder holds itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Folder {
    /// When entries were last added or removed: seconds and nanoseconds since 1970.
    pub(crate) modified: Option<(u64, u32)>,
    pub(crate) pictures: Vec<String>,
    pub(crate) others: Vec<String>,
    pub(crate) folders: Vec<String>,
    /// Folders that links lead to.
    pub(crate) links: Vec<String>,
    pub(crate) left_out: Vec<(Reason, String)>,
}

/// Seconds and nanoseconds since 1970.
pub(crate) fn since_1970(time: SystemTime) -> Option<(u64, u32)> {
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    Some((since.as_secs(), since.subsec_nanos()))
}
