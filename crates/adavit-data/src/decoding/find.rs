//! From paths, folders and patterns to the picture files that they name.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::formats::image_folder::is_called_picture;

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
/// names; files are found while the iterator runs.
pub fn find_pictures(paths: &[PathBuf]) -> impl Iterator<Item = FoundFile> + Send + use<> {
    let paths = paths.to_vec();
    paths.into_iter().flat_map(named)
}

fn named(path: PathBuf) -> Box<dyn Iterator<Item = FoundFile> + Send> {
    if path == Path::new("-") {
        return Box::new(listed());
    }
    if path.is_dir() {
        return Box::new(or_nothing(
            in_folder(&path),
            path,
            "no pictures in this folder",
        ));
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
            Box::new(or_nothing(found, path, "no file matches this pattern"))
        }
        Err(error) => Box::new(std::iter::once(Err(FileError {
            path,
            message: error.to_string(),
        }))),
    }
}

/// The items; where there are none, an error with `message`.
fn or_nothing(
    items: impl Iterator<Item = FoundFile> + Send,
    path: PathBuf,
    message: &'static str,
) -> impl Iterator<Item = FoundFile> + Send {
    let mut items = items.peekable();
    let none = items.peek().is_none().then(|| {
        Err(FileError {
            path,
            message: message.into(),
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

/// Pictures of a folder and its sub-folders, in the order of their names. The name decides: a file
/// or folder with the ending of a picture is an item too.
fn in_folder(folder: &Path) -> impl Iterator<Item = FoundFile> + Send + use<> {
    let root = folder.to_path_buf();
    let entries = WalkDir::new(folder).follow_links(true).sort_by_file_name();
    entries.into_iter().filter_map(move |entry| match entry {
        Ok(entry) => {
            let path = entry.into_path();
            (path != root && is_called_picture(&path)).then_some(Ok(path))
        }
        Err(error) => {
            let path = error.path().map_or_else(|| root.clone(), Path::to_path_buf);
            let io = error.io_error().map(ToString::to_string);
            let message = io.unwrap_or_else(|| error.to_string());
            Some(Err(FileError { path, message }))
        }
    })
}
