//! Opening a file by what it begins with, whatever its name.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::pytorch::archive::read_zip;
use super::pytorch::legacy::read_legacy;
use super::safetensors::SafetensorsFile;
use super::state_dict::StateDict;
use crate::error::{Error, Result};

/// Reads the tensors of a safetensors file or a file of `torch.save`, whatever its name ends with.
pub(crate) fn read_state_dict(path: &Path) -> Result<StateDict> {
    let fail = |message: String| Error::Checkpoint {
        path: path.to_path_buf(),
        message,
    };
    let start = start_of(path).map_err(|source| Error::Unreadable {
        path: path.to_path_buf(),
        source,
    })?;
    if start.get(8) == Some(&b'{') {
        let tensors = SafetensorsFile::open(path)?.read_all()?;
        return Ok(StateDict::bare(tensors, "safetensors"));
    }
    if start.starts_with(b"PK") {
        return read_zip(path).map_err(fail);
    }
    if start.first() == Some(&0x80) {
        return read_legacy(path).map_err(fail);
    }
    Err(fail(
        "neither a safetensors file nor one that torch.save wrote (damaged, a tar archive of PyTorch \
         before 0.1.10, or something else); in Python, write the state dict by \
         safetensors.torch.save_file"
            .into(),
    ))
}

/// Whether a file begins as safetensors do: a length of 8 bytes, then a JSON object.
pub(crate) fn is_safetensors(path: &Path) -> bool {
    start_of(path).is_ok_and(|start| start.get(8) == Some(&b'{'))
}

/// The first bytes of a file.
fn start_of(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut start = Vec::new();
    File::open(path)?.take(16).read_to_end(&mut start)?;
    Ok(start)
}
