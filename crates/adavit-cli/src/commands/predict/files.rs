//! The files that the arguments of `adavit predict` name.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use adavit_train::Found;
use adavit_train::data::is_called_picture;
use walkdir::WalkDir;

/// Returns every file that the paths name: files as they are, pictures in folders, what matches a
/// pattern, and for `-` what standard input lists. A path that names nothing is an error.
pub(super) fn files(paths: &[PathBuf]) -> impl Iterator<Item = Found> + Send + use<> {
    let paths = paths.to_vec();
    paths.into_iter().flat_map(named)
}

fn named(path: PathBuf) -> Box<dyn Iterator<Item = Found> + Send> {
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
                path.map_err(|error| (error.path().to_path_buf(), error.error().to_string()))
            });
            Box::new(or_nothing(found, path, "no file matches this pattern"))
        }
        Err(error) => Box::new(std::iter::once(Err((path, error.to_string())))),
    }
}

/// Returns the items, or the message where there are none.
fn or_nothing(
    items: impl Iterator<Item = Found> + Send,
    path: PathBuf,
    message: &'static str,
) -> impl Iterator<Item = Found> + Send {
    let mut items = items.peekable();
    let none = items.peek().is_none().then(|| Err((path, message.into())));
    items.chain(none)
}

/// Returns the paths on standard input, one per line.
fn listed() -> impl Iterator<Item = Found> + Send {
    let lines = std::io::BufReader::new(std::io::stdin()).split(b'\n');
    lines.filter_map(|line| match line {
        Ok(mut line) => {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            (!line.is_empty()).then(|| path_of(line))
        }
        Err(error) => Some(Err(("-".into(), error.to_string()))),
    })
}

#[cfg(unix)]
#[expect(
    clippy::unnecessary_wraps,
    reason = "on other systems not every name is valid"
)]
fn path_of(bytes: Vec<u8>) -> Found {
    use std::os::unix::ffi::OsStringExt;
    Ok(std::ffi::OsString::from_vec(bytes).into())
}

#[cfg(not(unix))]
fn path_of(bytes: Vec<u8>) -> Found {
    let path = String::from_utf8(bytes);
    path.map(PathBuf::from).map_err(|error| {
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        (text.into(), "the name is not UTF-8".into())
    })
}

/// Pictures of a folder and of its subfolders, in the order of their names. What only has a picture's
/// ending is returned too, so that it is reported.
fn in_folder(folder: &Path) -> impl Iterator<Item = Found> + Send + use<> {
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
            Some(Err((path, io.unwrap_or_else(|| error.to_string()))))
        }
    })
}
