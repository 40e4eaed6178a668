//! The files of a folder and its sub-folders: listed in parallel, links followed.

use std::fs::{self, DirEntry};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use crate::decoding::endings::{Ending, ending};
use crate::error::{Error, Result};
use crate::formats::folders::Tree;
use crate::formats::left_out::{LeftOut, Reason};
use crate::formats::listed_folder::{Folder, since_1970};
use crate::formats::listing_cache::Cache;

/// Folders of systems and archivers.
const SYSTEM_FOLDERS: [&str; 5] = [
    "__MACOSX",
    "@eaDir",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
];

/// A folder that is to be read.
#[derive(Debug)]
struct Open {
    /// Relative to the root, with `/`; the root is empty.
    path: String,
    /// The folder without links in its path.
    real: PathBuf,
    /// Where links on the way to it were.
    left: Arc<Vec<PathBuf>>,
}

/// Lists a folder. `cache` keeps the lists of large folders.
///
/// # Errors
/// If the folder cannot be read, or a link leads back to a folder above it.
pub(crate) fn list(root: &Path, cache: Option<&Path>) -> Result<(Tree, LeftOut)> {
    let fail = |error: std::io::Error| Error::data(root, format!("cannot be read: {error}"));
    let real = fs::canonicalize(root).map_err(fail)?;
    fs::read_dir(root).map_err(fail)?;
    let cache = cache.map(|folder| Cache::open(folder, &real));
    let mut open = vec![Open {
        path: String::new(),
        real,
        left: Arc::default(),
    }];
    let mut read: Vec<(String, Folder)> = Vec::new();
    while !open.is_empty() {
        let found: Vec<Folder> = open
            .par_iter()
            .map(|folder| {
                let known = cache.as_ref().and_then(|cache| cache.folder(&folder.path));
                read_or_known(&root.join(&folder.path), known)
            })
            .collect();
        let mut next = Vec::new();
        for (folder, found) in open.into_iter().zip(found) {
            for name in &found.folders {
                next.push(Open {
                    path: join(&folder.path, name),
                    real: folder.real.join(name),
                    left: Arc::clone(&folder.left),
                });
            }
            for name in &found.links {
                next.extend(follow(root, &folder, name)?);
            }
            read.push((folder.path, found));
        }
        open = next;
    }
    if let Some(cache) = cache {
        cache.keep(&read);
    }
    Ok(tree(read))
}

/// Joins a path and a name by `/`.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}/{name}")
    }
}

/// Follows a link to a folder; `None` if it leads to none any more.
fn follow(root: &Path, folder: &Open, name: &str) -> Result<Option<Open>> {
    let path = join(&folder.path, name);
    let Ok(target) = fs::canonicalize(root.join(&path)) else {
        return Ok(None);
    };
    let mut above = folder.left.iter().chain([&folder.real]);
    if above.any(|left| left.starts_with(&target)) {
        return Err(Error::data(
            &root.join(&path),
            format!(
                "this link leads back to {}, a folder above it; remove the link",
                target.display()
            ),
        ));
    }
    let mut left = folder.left.to_vec();
    left.push(folder.real.clone());
    Ok(Some(Open {
        path,
        real: target,
        left: Arc::new(left),
    }))
}

fn tree(read: Vec<(String, Folder)>) -> (Tree, LeftOut) {
    let mut tree = Tree::default();
    let mut left = Vec::new();
    for (path, folder) in read {
        let names = |names: Vec<String>| -> Vec<String> {
            names.iter().map(|name| join(&path, name)).collect()
        };
        tree.pictures.extend(names(folder.pictures));
        tree.others.extend(names(folder.others));
        let place = |(reason, name): (Reason, String)| (join(&path, &name), reason);
        left.extend(folder.left_out.into_iter().map(place));
        if !path.is_empty() {
            tree.folders.push(path);
        }
    }
    tree.pictures.par_sort_unstable();
    tree.others.par_sort_unstable();
    tree.folders.par_sort_unstable();
    left.sort_unstable();
    let mut left_out = LeftOut::default();
    for other in &tree.others {
        left_out.add(Reason::NotAPicture, other);
    }
    for (place, reason) in left {
        left_out.add(reason, &place);
    }
    (tree, left_out)
}

/// When the entries of a folder last changed.
fn modified(path: &Path) -> Option<(u64, u32)> {
    let time = fs::metadata(path).and_then(|data| data.modified()).ok()?;
    since_1970(time)
}

fn read_or_known(path: &Path, known: Option<&Folder>) -> Folder {
    // Before its entries: a change in between shows as a newer time.
    let modified = modified(path);
    if let Some(known) = known.filter(|known| modified.is_some() && known.modified == modified) {
        return known.clone();
    }
    let entries = fs::read_dir(path).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let mut folder = Folder {
        modified,
        ..Folder::default()
    };
    match entries {
        Ok(entries) => {
            let kinds: Vec<_> = entries.par_iter().map(kind).collect();
            for kind in kinds {
                folder.add(kind);
            }
        }
        Err(error) => {
            folder.modified = None;
            let name = format!("({error})");
            folder.left_out.push((Reason::Unreadable, name));
        }
    }
    folder
}

/// What an entry of a folder is.
enum Kind {
    Picture(String),
    Other(String),
    Folder(String),
    Link(String),
    LeftOut(Reason, String),
}

impl Folder {
    fn add(&mut self, kind: Kind) {
        match kind {
            Kind::Picture(name) => self.pictures.push(name),
            Kind::Other(name) => self.others.push(name),
            Kind::Folder(name) => self.folders.push(name),
            Kind::Link(name) => self.links.push(name),
            Kind::LeftOut(reason, name) => self.left_out.push((reason, name)),
        }
    }
}

fn kind(entry: &DirEntry) -> Kind {
    let name = match entry.file_name().into_string() {
        Ok(name) => name,
        Err(name) => return Kind::LeftOut(Reason::NotUtf8, name.to_string_lossy().into_owned()),
    };
    if name.starts_with('.') {
        return Kind::LeftOut(Reason::Hidden, name);
    }
    let Ok(mut kind) = entry.file_type() else {
        return Kind::LeftOut(Reason::Unreadable, name);
    };
    let is_link = kind.is_symlink();
    let ending = ending(&name);
    if !is_link && kind.is_file() && ending == Ending::NoPicture {
        return Kind::Other(name);
    }
    let data = if is_link || kind.is_file() {
        fs::metadata(entry.path())
    } else {
        entry.metadata()
    };
    let data = match data {
        Ok(data) => data,
        Err(error) if error.kind() == ErrorKind::NotFound && ending == Ending::NoPicture => {
            return Kind::Other(name);
        }
        Err(_) => return Kind::LeftOut(Reason::Unreadable, name),
    };
    kind = data.file_type();
    if kind.is_dir() {
        return match SYSTEM_FOLDERS.contains(&name.as_str()) {
            true => Kind::LeftOut(Reason::SystemFolder, name),
            false if is_link => Kind::Link(name),
            false => Kind::Folder(name),
        };
    }
    match ending {
        Ending::NoPicture => Kind::Other(name),
        _ if !kind.is_file() => Kind::LeftOut(Reason::Unreadable, name),
        Ending::OtherPicture => Kind::LeftOut(Reason::UnreadKind, name),
        Ending::Picture if data.len() == 0 => Kind::LeftOut(Reason::Empty, name),
        Ending::Picture => Kind::Picture(name),
    }
}
