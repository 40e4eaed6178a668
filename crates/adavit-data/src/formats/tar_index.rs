//! The files of a tar archive: found in one pass over its headers, read by their place.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::decoding::endings::{Ending, ending};
use crate::error::{Error, Result};
use crate::formats::left_out::Reason;
use crate::formats::store::{MOST_FILE_BYTES, Store};
use crate::loader::streamed::Spot;

/// Bytes of a block: files start at multiples of it, and a block of zeros marks the end.
const BLOCK: u64 = 512;

/// The largest text of an archive that is read.
pub(crate) const MOST_TEXT: u64 = 1 << 24;

/// A file of an archive.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// The archive's place in the list.
    pub(crate) shard: u32,
    pub(crate) path: String,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    /// What a `.cls` or `.json` says.
    pub(crate) label: Option<String>,
}

/// Pictures in archives, by their place.
#[derive(Debug)]
pub(crate) struct Members {
    pub(crate) shards: Vec<PathBuf>,
    pub(crate) members: Vec<Member>,
}

impl Store for Members {
    fn bytes(&self, entry: usize) -> Result<Vec<u8>> {
        let member = &self.members[entry];
        read_member(&self.shards[member.shard as usize], member)
    }

    fn place(&self, entry: usize) -> String {
        let member = &self.members[entry];
        format!(
            "{}: {}",
            self.shards[member.shard as usize].display(),
            member.path
        )
    }

    fn spot(&self, entry: usize) -> Option<Spot> {
        let member = &self.members[entry];
        Some(Spot {
            shard: member.shard,
            offset: member.offset,
            bytes: member.length,
        })
    }
}

pub(crate) fn read_member(shard: &Path, member: &Member) -> Result<Vec<u8>> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(shard)?;
        file.seek(SeekFrom::Start(member.offset))?;
        let mut bytes = Vec::new();
        file.take(member.length).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let fail = |message: String| Error::data(shard, format!("{}: {message}", member.path));
    let bytes = read().map_err(|error| fail(format!("cannot be read: {error}")))?;
    if (bytes.len() as u64) < member.length {
        return Err(fail(format!(
            "expected {} bytes, found {}; the archive has been changed since it was opened",
            member.length,
            bytes.len()
        )));
    }
    Ok(bytes)
}

/// The files of an archive, and what is wrong with others.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) members: Vec<Member>,
    pub(crate) faults: Vec<(Reason, String)>,
    pub(crate) left_out: Vec<(Reason, String)>,
}

/// Reads the headers of an archive.
pub(crate) fn index(path: &Path, shard: u32) -> Index {
    let mut index = Index::default();
    let mut found = || -> std::io::Result<()> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut end = 0;
        let mut archive = tar::Archive::new(file);
        for entry in archive.entries_with_seek()? {
            let mut entry = entry?;
            end = entry.raw_file_position().saturating_add(entry.size());
            let name = String::from_utf8(entry.path_bytes().into_owned());
            let name = match name {
                Ok(name) => name,
                Err(error) => {
                    let name = String::from_utf8_lossy(error.as_bytes()).into_owned();
                    index.left_out.push((Reason::NotUtf8, name));
                    continue;
                }
            };
            let member = Member {
                shard,
                path: name,
                offset: entry.raw_file_position(),
                length: entry.size(),
                label: None,
            };
            let kind = entry.header().entry_type();
            let member = match key(&member.path).1 {
                "cls" | "json" if kind.is_file() && member.length <= MOST_TEXT => Member {
                    label: label(&mut entry, &member.path)?,
                    ..member
                },
                _ => member,
            };
            index.add(member, kind, size)?;
        }
        check_end(path, end.next_multiple_of(BLOCK))
    };
    if let Err(error) = found() {
        let message =
            format!("the archive is damaged or ends early: {error}; copy or download it again");
        index.faults.push((Reason::Damaged, message));
    }
    index
}

/// Checks that the mark of the end follows the last file, at `end`, and nothing else.
fn check_end(path: &Path, end: u64) -> std::io::Result<()> {
    let fail = |message: &str| Err(std::io::Error::other(message));
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(end))?;
    let mut read = 0;
    let mut bytes = vec![0; 1 << 16];
    loop {
        let n = file.read(&mut bytes)?;
        if n == 0 {
            break;
        }
        read += n as u64;
        if bytes[..n].iter().any(|byte| *byte != 0) {
            return fail("more data follow its end, as where archives were joined");
        }
    }
    if read < BLOCK {
        return fail("the mark of its end is missing");
    }
    Ok(())
}

/// Reads the label that a file next to a picture says.
fn label(entry: &mut impl Read, path: &str) -> std::io::Result<Option<String>> {
    let mut bytes = Vec::new();
    entry.take(MOST_TEXT).read_to_end(&mut bytes)?;
    let Ok(text) = String::from_utf8(bytes) else {
        return Ok(None);
    };
    let label = match key(path).1 {
        "json" => json_label(&text),
        _ => Some(text.trim().to_owned()),
    };
    Ok(label.filter(|label| !label.is_empty()))
}

impl Index {
    /// Takes a file of an archive of `size` bytes.
    fn add(&mut self, mut member: Member, kind: tar::EntryType, size: u64) -> std::io::Result<()> {
        while let Some(rest) = member.path.strip_prefix("./") {
            member.path = rest.into();
        }
        let name = member.path.clone();
        if kind.is_dir() || kind.is_pax_global_extensions() {
            return Ok(());
        }
        let pieces: Vec<&str> = name.split('/').collect();
        if name.starts_with('/') || pieces.contains(&"..") {
            let message =
                format!("{name:?} leads outside of the archive; pack the data again without it");
            self.faults.push((Reason::Outside, message));
            return Ok(());
        }
        let end = member.offset.checked_add(member.length);
        if end.is_none_or(|end| end > size) {
            return Err(std::io::Error::other(format!(
                "{name} needs {} bytes from {}, the archive has {size}",
                member.length, member.offset
            )));
        }
        let reason = if pieces.iter().any(|piece| piece.starts_with('.')) {
            Some(Reason::Hidden)
        } else if pieces.contains(&"__MACOSX") {
            Some(Reason::SystemFolder)
        } else if !(kind.is_file() || kind.is_contiguous()) {
            Some(Reason::Unreadable)
        } else {
            match ending(&name) {
                Ending::OtherPicture => Some(Reason::UnreadKind),
                Ending::Picture if member.length == 0 => Some(Reason::Empty),
                Ending::Picture if member.length > MOST_FILE_BYTES => Some(Reason::Unreadable),
                _ => None,
            }
        };
        match reason {
            Some(reason) => self.left_out.push((reason, name)),
            None => self.members.push(member),
        }
        Ok(())
    }
}

/// WebDataset's key: the path up to the first dot of the file's name; and the ending after it.
pub(crate) fn key(path: &str) -> (&str, &str) {
    let name = path.rfind('/').map_or(0, |at| at + 1);
    match path[name..].find('.') {
        Some(dot) => (&path[..name + dot], &path[name + dot + 1..]),
        None => (path, ""),
    }
}

fn json_label(text: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    let label = ["label", "class", "target", "cls"]
        .iter()
        .find_map(|name| value.get(name))?;
    match label {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_ends_at_the_first_dot_of_the_file_name() {
        assert_eq!(key("a.b/000.input.jpg"), ("a.b/000", "input.jpg"));
        assert_eq!(key("000.cls"), ("000", "cls"));
        assert_eq!(key("a.b/c"), ("a.b/c", ""));
    }
}
