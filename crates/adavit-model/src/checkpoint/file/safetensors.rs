//! A safetensors file, read tensor by tensor: no more memory than its tensors and one of them again.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};
use safetensors::tensor::{Metadata, TensorInfo};

use super::state_dict::tensor_of;
use crate::checkpoint::tensors::Tensors;
use crate::error::{Error, Result};

/// The longest header that the format allows, in bytes.
const LONGEST_HEADER: u64 = 100_000_000;

#[derive(Debug)]
pub(crate) struct SafetensorsFile {
    path: PathBuf,
    file: File,
    /// Where the tensors begin, in bytes.
    start: u64,
    header: Metadata,
}

/// Reads every tensor of a safetensors file, as float32 where it is a float, one after the other.
///
/// # Errors
/// If the file is missing, truncated or not of the format.
pub fn read_tensors(path: &Path) -> Result<Tensors> {
    SafetensorsFile::open(path)?.read_all()
}

impl SafetensorsFile {
    /// Opens a file and checks that its header fits its length.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let fail = |message: String| Error::Checkpoint {
            path: path.to_path_buf(),
            message,
        };
        let unreadable = |source| Error::Unreadable {
            path: path.to_path_buf(),
            source,
        };
        let damaged = |what: &str| fail(format!("not a whole safetensors file: {what}"));
        let mut file = File::open(path).map_err(unreadable)?;
        let len = file.metadata().map_err(unreadable)?.len();
        let mut size = [0; 8];
        if len < 8 {
            return Err(damaged(&format!("{len} bytes")));
        }
        file.read_exact(&mut size).map_err(unreadable)?;
        let size = u64::from_le_bytes(size);
        if size > LONGEST_HEADER || size > len - 8 {
            return Err(damaged(&format!(
                "a header of {size} bytes in a file of {len}"
            )));
        }
        let header = BufReader::new(&file).take(size);
        let header: Metadata = serde_json::from_reader(header)
            .map_err(|error| damaged(&format!("header: {error}")))?;
        let ends = header.tensors().into_values();
        let end = ends.map(|info| info.data_offsets.1).max().unwrap_or(0);
        if end as u64 != len - 8 - size {
            return Err(damaged(&format!(
                "expected {end} bytes of tensors, found {}",
                len - 8 - size
            )));
        }
        Ok(Self {
            path: path.to_path_buf(),
            file,
            start: 8 + size,
            header,
        })
    }

    /// The free text of the header, by key.
    pub(crate) fn metadata(&self) -> HashMap<String, String> {
        self.header.metadata().clone().unwrap_or_default()
    }

    /// Reads every tensor.
    pub(crate) fn read_all(&mut self) -> Result<Tensors> {
        let mut tensors = Tensors::new();
        // In the order of the file.
        for name in self.header.offset_keys() {
            let Some(info) = self.header.info(&name).cloned() else {
                continue;
            };
            let tensor = self.read(&info).map_err(|message| Error::Checkpoint {
                path: self.path.clone(),
                message: format!("{name}: {message}"),
            })?;
            tensors.insert(name, tensor);
        }
        Ok(tensors)
    }

    fn read(&mut self, info: &TensorInfo) -> Result<Tensor, String> {
        let dtype = DType::try_from(info.dtype)
            .map_err(|_| format!("elements of type {:?} are not understood", info.dtype))?;
        let (start, end) = info.data_offsets;
        let mut bytes = vec![0; end - start];
        self.file
            .seek(SeekFrom::Start(self.start + start as u64))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(|error| format!("cannot be read: {error}"))?;
        tensor_of(&bytes, dtype, &info.shape)
    }
}
