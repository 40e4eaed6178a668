//! Counts of the files in folders that are not called like a picture that is read.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::decoding::endings::{is_hidden, unread_format};

/// How many files were left out, and as what. Written out, it is a sentence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnreadFiles {
    unread: BTreeMap<&'static str, usize>,
    others: usize,
}

impl UnreadFiles {
    /// Counts a file by its name, which is not that of a picture that is read. Hidden files do not
    /// count.
    pub fn add(&mut self, path: &Path) {
        if let Some(format) = unread_format(path) {
            *self.unread.entry(format).or_default() += 1;
        } else if !is_hidden(path) {
            self.others += 1;
        }
    }

    /// Returns the number of files that are called like pictures of formats that are not read.
    pub fn unread(&self) -> usize {
        self.unread.values().sum()
    }

    /// Returns the number of files that are not called like a picture.
    pub fn others(&self) -> usize {
        self.others
    }
}

impl fmt::Display for UnreadFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let counts = self.unread.iter();
        let counts: Vec<String> = counts.map(|(name, n)| format!("{name}: {n}")).collect();
        let counts = counts.join(", ");
        match self.unread() {
            0 => {}
            1 => parts.push(format!(
                "1 file is a picture of a format that is not read ({counts})"
            )),
            n => parts.push(format!(
                "{n} files are pictures of formats that are not read ({counts})"
            )),
        }
        match self.others {
            0 => {}
            1 => parts.push("1 file is not called like a picture".into()),
            n => parts.push(format!("{n} files are not called like pictures")),
        }
        match parts.as_slice() {
            [] => f.write_str("no file was left out"),
            parts => f.write_str(&parts.join("; ")),
        }
    }
}

/// A [`UnreadFiles`] that grows while files are found, perhaps on another thread.
#[derive(Debug, Clone, Default)]
pub struct UnreadCounter(Arc<Mutex<UnreadFiles>>);

impl UnreadCounter {
    /// Returns the counts so far.
    pub fn get(&self) -> UnreadFiles {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn add(&self, path: &Path) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.add(path);
    }
}
