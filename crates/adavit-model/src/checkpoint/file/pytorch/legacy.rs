//! What `torch.save` wrote before PyTorch 1.6: pickles one after the other, then the numbers.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use super::views::{Storage, Wanted, check_size, read_views, wanted};
use crate::checkpoint::file::pickle::node::Node;
use crate::checkpoint::file::pickle::{self, Pickle};
use crate::checkpoint::file::state_dict::StateDict;

/// The first of the pickles in a file of before 1.6, `0x1950a86a20f9469cfc6c`.
const MAGIC: &[u8] = &[
    0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.',
];

/// A magic number, a version, facts of the machine, the object, the storages' keys, the storages.
pub(crate) fn read_legacy(path: &Path) -> Result<StateDict, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    if !bytes.starts_with(MAGIC) {
        return Err(
            "a pickle that torch.save did not write; in Python, write the state dict by \
             safetensors.torch.save_file"
                .into(),
        );
    }
    let mut at = MAGIC.len();
    for _ in 0..2 {
        at += pickle::read(&bytes[at..])
            .map_err(|error| damaged(&error))?
            .1;
    }
    let (object, len) = pickle::read(&bytes[at..]).map_err(|error| damaged(&error))?;
    at += len;
    let Wanted { views, mut found } = wanted(&object, "torch.save (before PyTorch 1.6)")?;
    check_size(&views, bytes.len() as u64)?;
    let (keys, len) = pickle::read(&bytes[at..]).map_err(|error| damaged(&error))?;
    let places = storage_places(&bytes, at + len, &object, &keys)?;
    for (key, views) in &views {
        let place = places.get(key.as_str());
        let place = place.ok_or_else(|| damaged(&format!("storage {key} is missing")))?;
        read_views(&bytes[place.clone()], views, &mut found.tensors)?;
    }
    Ok(found)
}

/// Where each storage's bytes are, from byte `at` on; its size is known from the tensors that use
/// it, or of none.
fn storage_places<'a>(
    bytes: &[u8],
    mut at: usize,
    object: &Pickle,
    keys: &'a Pickle,
) -> Result<HashMap<&'a str, Range<usize>>, String> {
    let Node::List(ids) = keys.node(keys.root()) else {
        return Err(damaged("no list of storages"));
    };
    let sizes = storage_sizes(object);
    let mut places = HashMap::new();
    for key in ids.iter().filter_map(|id| keys.text(*id)) {
        let early = || damaged(&format!("storage {key}: the file ends too early"));
        let numel = bytes.get(at..at + 8).ok_or_else(early)?;
        let numel = u64::from_le_bytes(numel.try_into().map_err(|_| early())?);
        at += 8;
        let size = sizes.get(key).copied();
        let size = size
            .ok_or_else(|| format!("storage {key}: elements of a type that is not understood"))?;
        let end = numel
            .checked_mul(size as u64)
            .and_then(|len| len.checked_add(at as u64));
        let end = end
            .filter(|end| *end <= bytes.len() as u64)
            .ok_or_else(early)? as usize;
        places.insert(key, at..end);
        at = end;
    }
    Ok(places)
}

/// Bytes per element of every storage that the object names.
fn storage_sizes(object: &Pickle) -> HashMap<String, usize> {
    let storages = object.persistent().filter_map(|id| Storage::of(object, id));
    storages
        .map(|storage| (storage.key.clone(), storage.element_size()))
        .collect()
}

fn damaged(error: &str) -> String {
    format!("not a whole file of torch.save: {error}")
}
