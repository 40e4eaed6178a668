//! Tar shards with WebDataset's names.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::formats::picture_set::PictureSet;
use crate::formats::tar_shards::NAME_FILES;
use crate::packing::target::{ending, prepare, refuse_others, shards, write_names, write_whole};

/// Writes `PART-000000.tar`, ... of at most `shard_size` pictures each, and `classnames.txt`, into the
/// folder `dir`; returns the archives.
///
/// A picture's key is its index in nine digits; its bytes stay as they are. [`open`](crate::open) gives
/// the same index, label and bytes again.
///
/// # Errors
/// If shards of the part or other classes are there, a picture cannot be read, or writing fails.
pub fn write_tar(
    dir: &Path,
    part: &str,
    set: &PictureSet,
    shard_size: usize,
) -> Result<Vec<PathBuf>> {
    prepare(dir, part)?;
    refuse_others(dir, part, ".tar")?;
    let ranges = shards(set, shard_size)?;
    write_names(&dir.join(NAME_FILES[0]), set)?;
    let mut written = Vec::new();
    for (number, range) in ranges.into_iter().enumerate() {
        let path = dir.join(format!("{part}-{number:06}.tar"));
        write_whole(&path, |out| {
            let fail = || Error::io("writing", &path);
            let mut tar = tar::Builder::new(out);
            for i in range {
                let bytes = set.bytes(i)?;
                let ending = ending(&bytes).ok_or_else(|| Error::Picture {
                    path: set.place(i).into(),
                    message: "the bytes begin like no picture; remove or convert the file".into(),
                })?;
                append(&mut tar, &format!("{i:09}.{ending}"), &bytes).map_err(fail())?;
                let label = set.label(i).to_string();
                append(&mut tar, &format!("{i:09}.cls"), label.as_bytes()).map_err(fail())?;
            }
            tar.finish().map_err(fail())
        })?;
        written.push(path);
    }
    Ok(written)
}

/// Owner and time are fixed: the same pictures give the same archive.
fn append(
    tar: &mut tar::Builder<impl std::io::Write>,
    name: &str,
    bytes: &[u8],
) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, bytes)
}
