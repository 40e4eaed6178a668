//! How a data set is opened.

use std::path::PathBuf;

/// What happens to an entry that is wrong: a missing file of a list, a picture of an archive without
/// a label, a name that occurs twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Faulty {
    /// It is an error that names the entry.
    #[default]
    Refuse,
    /// It is left out and counted.
    LeaveOut,
}

/// How a data set is opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpenOptions {
    /// How many classes there are, as in a model that exists; `None` takes those of the data.
    pub num_classes: Option<usize>,
    /// The names of the classes in the order of their numbers, as in a model that exists; empty where
    /// they have none.
    pub class_names: Vec<String>,
    /// A file that gives each folder or label its class: a CSV of two columns `folder,class`, or a
    /// JSON object. A class is a number or a name.
    pub class_map: Option<PathBuf>,
    /// What happens to an entry that is wrong.
    pub faulty: Faulty,
    /// The folder that keeps the lists of large folders; `None` keeps none. See [`user_cache`].
    pub cache: Option<PathBuf>,
}

/// Returns the folder for lists of large folders: `ADAVIT_CACHE`, or else `adavit` in the user's
/// folder for such files (`XDG_CACHE_HOME`, `LOCALAPPDATA` or `~/.cache`).
///
/// It is not the folder of the data, which is often shared or cannot be written to, and whose
/// modification time would change with each list.
pub fn user_cache() -> Option<PathBuf> {
    let folder = |name: &str| {
        let value = std::env::var_os(name).filter(|value| !value.is_empty());
        value.map(PathBuf::from)
    };
    let general = || {
        folder("XDG_CACHE_HOME")
            .or_else(|| folder("LOCALAPPDATA"))
            .or_else(|| Some(folder("HOME")?.join(".cache")))
    };
    folder("ADAVIT_CACHE").or_else(|| Some(general()?.join("adavit")))
}
