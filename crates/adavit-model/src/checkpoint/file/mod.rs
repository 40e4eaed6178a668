//! Files with tensors: safetensors, and what `torch.save` writes.
//!
//! Whatever a file claims of itself is checked against its length before memory is asked for, and
//! tensors are read one by one. A pickle is read as data: nothing in it is ever run.

mod pickle;
mod pytorch;
mod safetensors;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

pub(crate) use self::safetensors::SafetensorsFile;
use crate::checkpoint::tensors::Tensors;
use crate::error::{Error, Result};

/// The tensors of a file, and how they were found.
#[derive(Debug)]
pub(crate) struct StateDict {
    pub(crate) tensors: Tensors,
    /// The file's format, for people.
    pub(crate) format: &'static str,
    /// The keys, outermost first, under which the tensors were; none where they are on top.
    pub(crate) wrapper: Option<String>,
    /// What lies beside that key.
    pub(crate) beside: Vec<String>,
    /// Entries among the tensors that are none.
    pub(crate) no_tensors: Vec<String>,
}

impl StateDict {
    fn bare(tensors: Tensors, format: &'static str) -> Self {
        Self {
            tensors,
            format,
            wrapper: None,
            beside: Vec::new(),
            no_tensors: Vec::new(),
        }
    }
}

/// Reads the tensors of a safetensors file or a file of `torch.save`, whatever its name ends with.
pub(crate) fn read_state_dict(path: &Path) -> Result<StateDict> {
    let fail = |message: String| Error::Checkpoint {
        path: path.to_path_buf(),
        message,
    };
    let start = start_of(path).map_err(|error| fail(format!("cannot be read: {error}")))?;
    if start.get(8) == Some(&b'{') {
        let tensors = SafetensorsFile::open(path)?.read_all()?;
        return Ok(StateDict::bare(tensors, "safetensors"));
    }
    if start.starts_with(b"PK") {
        return pytorch::read_zip(path).map_err(fail);
    }
    if start.first() == Some(&0x80) {
        return pytorch::read_legacy(path).map_err(fail);
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

/// The elements of a shape, if neither they nor their bytes are too many for this machine, whichever
/// dimensions are 0.
fn checked_elements(shape: &[usize], dtype: DType) -> Option<usize> {
    let mut sides = shape.iter().map(|side| (*side).max(1));
    sides.try_fold(dtype.size_in_bytes().max(1), usize::checked_mul)?;
    Some(shape.iter().product())
}

/// A tensor of these bytes, as float32 where it is a float, on the CPU.
fn tensor_of(bytes: &[u8], dtype: DType, shape: &[usize]) -> Result<Tensor, String> {
    if checked_elements(shape, dtype).is_none() {
        return Err(format!("a shape beyond memory: {shape:?}"));
    }
    let tensor = Tensor::from_raw_buffer(bytes, dtype, shape, &Device::Cpu);
    let tensor = tensor.and_then(|tensor| {
        if dtype.is_float() {
            tensor.to_dtype(DType::F32)
        } else {
            Ok(tensor)
        }
    });
    tensor.map_err(|error| error.to_string())
}
