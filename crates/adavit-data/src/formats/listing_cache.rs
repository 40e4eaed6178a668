//! Lists of large folders, kept between runs.
//!
//! A list holds the modification time of each folder: adding, removing or renaming an entry changes
//! it, and the folder is then read again. A file whose content changes keeps its place. A cache that
//! cannot be read or written is no error: folders are listed again.

use std::collections::HashMap;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::formats::left_out::Reason;
use crate::formats::listed_folder::{Folder, since_1970};

const VERSION: u32 = 1;
/// Smaller folders are listed faster than a file is read.
const WORTH_KEEPING: usize = 10_000;
/// A folder may change twice within one step of its clock: a list of a folder that had just changed
/// is not trusted.
const SETTLED_S: u64 = 3;

/// The list of one folder, and where it is kept.
#[derive(Debug)]
pub(crate) struct Cache {
    file: PathBuf,
    root: String,
    folders: HashMap<String, Folder>,
}

/// What a file holds.
#[derive(Debug, Serialize, Deserialize)]
struct Kept<F> {
    version: u32,
    root: String,
    folders: F,
}

impl Cache {
    /// Reads the list of `root`, if there is one in the folder `cache`.
    pub(crate) fn open(cache: &Path, root: &Path) -> Self {
        let root = root.to_string_lossy().into_owned();
        let file = cache.join(format!("listing-{:016x}.json", hash(root.as_bytes())));
        let kept = fs::read(&file).ok().and_then(|bytes| {
            let kept: Kept<HashMap<String, Folder>> = serde_json::from_slice(&bytes).ok()?;
            (kept.version == VERSION && kept.root == root).then_some(kept.folders)
        });
        Self {
            file,
            root,
            folders: kept.unwrap_or_default(),
        }
    }

    /// Returns the kept list of a folder.
    pub(crate) fn folder(&self, path: &str) -> Option<&Folder> {
        self.folders.get(path)
    }

    /// Keeps what was read, if it is large and not what is kept already.
    pub(crate) fn keep(&self, read: &[(String, Folder)]) {
        let pictures: usize = read.iter().map(|(_, folder)| folder.pictures.len()).sum();
        if pictures >= WORTH_KEEPING {
            self.keep_always(read);
        }
    }

    fn keep_always(&self, read: &[(String, Folder)]) {
        let now = since_1970(SystemTime::now()).unwrap_or_default().0;
        let folders: HashMap<&str, &Folder> = read
            .iter()
            .filter(|(_, folder)| is_settled(folder, now))
            .map(|(path, folder)| (path.as_str(), folder))
            .collect();
        let same = |(path, folder): (&&str, &&Folder)| {
            let kept = self.folders.get(*path);
            kept.is_some_and(|kept| kept.modified == folder.modified)
        };
        if folders.len() == self.folders.len() && folders.iter().all(same) {
            return;
        }
        let kept = Kept {
            version: VERSION,
            root: self.root.clone(),
            folders,
        };
        // What cannot be kept is listed again next time.
        let _ = write(&self.file, &kept);
    }
}

/// Whether the list of a folder stays true as long as its modification time does.
fn is_settled(folder: &Folder, now: u64) -> bool {
    // An empty file may be one that is being written, and a link or an unreadable file may change
    // without the folder.
    let may_change = |reason| matches!(reason, Reason::Empty | Reason::Unreadable);
    folder.modified.is_some_and(|(s, _)| s + SETTLED_S <= now)
        && !folder
            .left_out
            .iter()
            .any(|(reason, _)| may_change(*reason))
}

fn write(file: &Path, kept: &impl Serialize) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut out = BufWriter::new(tempfile::NamedTempFile::new_in(folder)?);
    serde_json::to_writer(&mut out, kept)?;
    out.flush()?;
    let out = out
        .into_inner()
        .map_err(std::io::IntoInnerError::into_error)?;
    out.persist(file).map_err(|error| error.error)?;
    Ok(())
}

/// FNV-1a: the same on every machine.
fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(modified: Option<(u64, u32)>) -> (String, Folder) {
        let folder = Folder {
            modified,
            pictures: vec!["x.jpg".into()],
            ..Folder::default()
        };
        ("cat".into(), folder)
    }

    #[test]
    fn a_kept_list_comes_back_and_a_damaged_or_foreign_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = Path::new("/data/a");
        Cache::open(dir.path(), root).keep_always(&[folder(Some((1, 2)))]);
        let cache = Cache::open(dir.path(), root);
        assert_eq!(cache.folder("cat").unwrap().pictures, ["x.jpg"]);
        assert!(cache.folder("dog").is_none());
        assert!(
            Cache::open(dir.path(), Path::new("/data/b"))
                .folder("cat")
                .is_none()
        );
        fs::write(&cache.file, b"{\"version\": 1, \"ro").unwrap();
        assert!(Cache::open(dir.path(), root).folder("cat").is_none());
    }

    #[test]
    fn a_folder_that_has_just_changed_or_is_being_written_is_not_kept() {
        let (_, mut just) = folder(Some((100, 0)));
        assert!(!is_settled(&just, 102));
        assert!(is_settled(&just, 103));
        just.left_out.push((Reason::Empty, "y.jpg".into()));
        assert!(!is_settled(&just, 200));
        assert!(!is_settled(&folder(None).1, 200));
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        let cache = Cache::open(&file, Path::new("/data/a"));
        cache.keep_always(&[folder(Some((1, 2)))]);
        assert!(cache.folder("cat").is_none());
    }
}
