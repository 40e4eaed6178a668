//! From paths, folders and patterns to the picture files that they name.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::decoding::endings::is_called_picture;
use crate::decoding::unread_files::{UnreadCounter, UnreadFiles};

/// A path that leads to no file, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileError {
    /// The path.
    pub path: PathBuf,
    /// What is wrong with it.
    pub message: String,
}

/// A file, or why there is none at a path.
type FoundFile = Result<PathBuf, FileError>;

/// Iterates over every file that the paths name: files themselves, pictures in folders, matches of a
/// pattern, and for `-` the lines of standard input.
///
/// A path that names nothing is an item with the reason. The order is that of the paths, then of the
/// names; files are found while the iterator runs. Of a folder, files that are not called like a
/// picture that is read are left out and counted: see [`FoundPictures::unread_files`].
pub fn find_pictures(paths: &[PathBuf]) -> FoundPictures {
    let counter = UnreadCounter::default();
    let (paths, counts) = (paths.to_vec(), counter.clone());
    let items = paths.into_iter().flat_map(move |path| named(path, &counts));
    FoundPictures {
        items: Box::new(items),
        counter,
    }
}

/// The files that paths name; see [`find_pictures`].
pub struct FoundPictures {
    items: FoundFiles,
    counter: UnreadCounter,
}

type FoundFiles = Box<dyn Iterator<Item = FoundFile> + Send>;

impl FoundPictures {
    /// Returns the counter of the files that are left out of folders. It may be read while the
    /// iterator runs elsewhere, and is complete when the iterator has ended.
    pub fn unread_files(&self) -> UnreadCounter {
        self.counter.clone()
    }
}

impl Iterator for FoundPictures {
    type Item = FoundFile;

    fn next(&mut self) -> Option<FoundFile> {
        self.items.next()
    }
}

impl std::fmt::Debug for FoundPictures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut fields = f.debug_struct("FoundPictures");
        fields
            .field("counter", &self.counter)
            .finish_non_exhaustive()
    }
}

fn named(path: PathBuf, counter: &UnreadCounter) -> FoundFiles {
    if path == Path::new("-") {
        return Box::new(listed());
    }
    if path.is_dir() {
        return in_folder_or_nothing(path, counter);
    }
    let text = path.to_string_lossy().into_owned();
    if path.exists() || !text.contains(['*', '?', '[']) {
        return Box::new(std::iter::once(Ok(path)));
    }
    match glob::glob(&text) {
        Ok(found) => {
            let found = found.map(|path| {
                path.map_err(|error| FileError {
                    path: error.path().to_path_buf(),
                    message: error.error().to_string(),
                })
            });
            let message = || "no file matches this pattern".to_string();
            Box::new(or_nothing(found, path, message))
        }
        Err(error) => Box::new(std::iter::once(Err(FileError {
            path,
            message: error.to_string(),
        }))),
    }
}

/// The pictures of a folder; where there are none, an error that says what is there instead.
fn in_folder_or_nothing(path: PathBuf, counter: &UnreadCounter) -> FoundFiles {
    let here = UnreadCounter::default();
    let found = in_folder(&path, [counter.clone(), here.clone()]);
    let message = move || {
        let left_out = here.get();
        if left_out == UnreadFiles::default() {
            return "no pictures in this folder".to_string();
        }
        format!("no pictures in this folder: {left_out}")
    };
    Box::new(or_nothing(found, path, message))
}

/// The items; where there are none, an error with `message`.
fn or_nothing(
    items: impl Iterator<Item = FoundFile> + Send,
    path: PathBuf,
    message: impl FnOnce() -> String,
) -> impl Iterator<Item = FoundFile> + Send {
    let mut items = items.peekable();
    let none = items.peek().is_none().then(|| {
        Err(FileError {
            path,
            message: message(),
        })
    });
    items.chain(none)
}

/// The paths that standard input lists, one on each line.
fn listed() -> impl Iterator<Item = FoundFile> + Send {
    let lines = std::io::BufReader::new(std::io::stdin()).split(b'\n');
    lines.filter_map(|line| match line {
        Ok(mut line) => {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            (!line.is_empty()).then(|| path_of(line))
        }
        Err(error) => Some(Err(FileError {
            path: "-".into(),
            message: error.to_string(),
        })),
    })
}

#[cfg(unix)]
#[expect(
    clippy::unnecessary_wraps,
    reason = "on other systems not every line is a path"
)]
fn path_of(bytes: Vec<u8>) -> FoundFile {
    use std::os::unix::ffi::OsStringExt;
    Ok(std::ffi::OsString::from_vec(bytes).into())
}

#[cfg(not(unix))]
fn path_of(bytes: Vec<u8>) -> FoundFile {
    let path = String::from_utf8(bytes);
    path.map(PathBuf::from).map_err(|error| {
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        FileError {
            path: text.into(),
            message: "the name is not UTF-8".into(),
        }
    })
}

/// Pictures of a folder and its sub-folders, in the order of their names; the other files go to
/// `counters`. The name decides: a folder with the ending of a picture is an item too.
fn in_folder(
    folder: &Path,
    counters: [UnreadCounter; 2],
) -> impl Iterator<Item = FoundFile> + Send + use<> {
    let root = folder.to_path_buf();
    let entries = WalkDir::new(folder).follow_links(true).sort_by_file_name();
    entries.into_iter().filter_map(move |entry| match entry {
        Ok(entry) => {
            let is_folder = entry.file_type().is_dir();
            let path = entry.into_path();
            if path != root && is_called_picture(&path) {
                return Some(Ok(path));
            }
            if !is_folder {
                for counter in &counters {
                    counter.add(&path);
                }
            }
            None
        }
        Err(error) => {
            let path = error.path().map_or_else(|| root.clone(), Path::to_path_buf);
            let io = error.io_error().map(ToString::to_string);
            let message = io.unwrap_or_else(|| error.to_string());
            Some(Err(FileError { path, message }))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_that_are_not_read_are_counted_by_format() {
        let folder = tempfile::tempdir().unwrap();
        let names = [
            "a.JPG",
            "b.heic",
            "c.HEIC",
            "d.avif",
            "notes.txt",
            ".hidden.heic",
        ];
        for name in names {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let found = find_pictures(&[folder.path().to_path_buf()]);
        let counter = found.unread_files();
        let files: Vec<_> = found.collect();
        assert_eq!(files, [Ok(folder.path().join("a.JPG"))]);
        let text = counter.get().to_string();
        let expected = "3 files are pictures of formats that are not read (AVIF: 1, HEIC: 2); \
                        1 file is not called like a picture";
        assert_eq!(text, expected);
        assert_eq!((counter.get().unread(), counter.get().others()), (3, 1));
    }

    #[test]
    fn a_folder_without_pictures_says_what_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.heic"), "").unwrap();
        let paths = [folder.path().to_path_buf()];
        let found: Vec<_> = find_pictures(&paths).collect();
        let [Err(error)] = &found[..] else {
            panic!("{found:?}");
        };
        let expected = "no pictures in this folder: 1 file is a picture of a format that is not read \
                        (HEIC: 1)";
        assert_eq!(error.message, expected);
    }
}
