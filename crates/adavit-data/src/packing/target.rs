//! What all packed formats share: names, and files that appear whole or not at all.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::error::{Error, Result};
use crate::formats::picture_set::PictureSet;

/// Creates the folder, and checks the name of a part: letters, digits, `-` and `_`.
pub(crate) fn prepare(dir: &Path, part: &str) -> Result<()> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if part.is_empty() || !part.chars().all(is_plain) {
        return Err(Error::Setting(format!(
            "part: expected a name of letters, digits, - and _, found {part:?}"
        )));
    }
    fs::create_dir_all(dir).map_err(Error::io("creating", dir))
}

/// Refuses a folder that holds files of the part: shards of two packings would mix.
#[cfg(any(feature = "parquet", feature = "tar"))]
pub(crate) fn refuse_others(dir: &Path, part: &str, ending: &str) -> Result<()> {
    let start = format!("{part}-");
    for entry in fs::read_dir(dir).map_err(Error::io("reading", dir))? {
        let entry = entry.map_err(Error::io("reading", dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&start) && name.ends_with(ending) {
            return Err(Error::data(
                &entry.path(),
                format!("shards of {part} are there already; remove them or choose another folder"),
            ));
        }
    }
    Ok(())
}

/// Writes a file next to `path`, then renames it.
pub(crate) fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
) -> Result<()> {
    let fail = Error::io("writing", path);
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    // A temporary file is private by default; this one becomes an ordinary file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let (file, place) = match builder.tempfile_in(dir) {
        Ok(file) => file.into_parts(),
        Err(error) => return Err(fail(error)),
    };
    let mut out = BufWriter::new(file);
    write(&mut out)?;
    let finish = || -> std::io::Result<()> {
        out.flush()?;
        out.get_ref().sync_all()?;
        place.persist(path).map_err(|error| error.error)
    };
    finish().map_err(fail)
}

/// Writes the names of the classes, one in each line.
///
/// # Errors
/// If a file of other classes is there, or a name has a line break.
pub(crate) fn write_names(path: &Path, set: &PictureSet) -> Result<()> {
    let names = set.class_names();
    if let Some(name) = names
        .iter()
        .find(|name| name.contains(['\n', '\r']) || name.trim() != *name)
    {
        return Err(Error::Setting(format!(
            "class {name:?}: expected a name without line breaks and spaces around it"
        )));
    }
    let text: String = names
        .iter()
        .flat_map(|name| [name.as_str(), "\n"])
        .collect();
    match fs::read_to_string(path) {
        Ok(there) if there == text => Ok(()),
        Ok(_) => Err(Error::data(
            path,
            "other classes are there already; choose another folder",
        )),
        Err(_) => write_whole(path, |out| {
            out.write_all(text.as_bytes())
                .map_err(Error::io("writing", path))
        }),
    }
}

/// Returns the ranges of indices of each shard.
#[cfg(any(feature = "parquet", feature = "tar"))]
pub(crate) fn shards(set: &PictureSet, shard_size: usize) -> Result<Vec<std::ops::Range<usize>>> {
    if shard_size == 0 {
        return Err(Error::Setting(
            "shard_size: expected at least 1 picture, found 0".into(),
        ));
    }
    let starts = (0..set.len()).step_by(shard_size);
    Ok(starts
        .map(|start| start..(start + shard_size).min(set.len()))
        .collect())
}

/// Returns the usual ending of a picture's bytes.
#[cfg(feature = "tar")]
pub(crate) fn ending(bytes: &[u8]) -> Option<&'static str> {
    let starts = |start: &[u8]| bytes.starts_with(start);
    let found = match bytes {
        _ if starts(b"\xff\xd8\xff") => "jpg",
        _ if starts(b"\x89PNG") => "png",
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => "webp",
        _ if starts(b"GIF8") => "gif",
        _ if starts(b"BM") => "bmp",
        _ if starts(b"II*\0") || starts(b"MM\0*") => "tif",
        _ if starts(b"qoif") => "qoi",
        [b'P', b'1'..=b'6', ..] => "pnm",
        _ => return None,
    };
    Some(found)
}
