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
use crate::{Error, Result, Tensors};

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
    let mut start = Vec::new();
    let opened = File::open(path).and_then(|file| file.take(16).read_to_end(&mut start));
    opened.map_err(|error| fail(format!("cannot be read: {error}")))?;
    if start.starts_with(b"PK") {
        return pytorch::read_zip(path).map_err(fail);
    }
    if start.first() == Some(&0x80) {
        return pytorch::read_legacy(path).map_err(fail);
    }
    if start.get(8) != Some(&b'{') {
        return Err(fail(
            "neither a safetensors file nor one that torch.save wrote (damaged, a tar archive of \
             PyTorch before 0.1.10, or something else); in Python, write the state dict by \
             safetensors.torch.save_file"
                .into(),
        ));
    }
    let tensors = SafetensorsFile::open(path)?.read_all()?;
    Ok(StateDict::bare(tensors, "safetensors"))
}

/// A tensor of these bytes, as float32 where it is a float, on the CPU.
fn tensor_of(bytes: &[u8], dtype: DType, shape: &[usize]) -> candle_core::Result<Tensor> {
    let tensor = Tensor::from_raw_buffer(bytes, dtype, shape, &Device::Cpu)?;
    if dtype.is_float() {
        tensor.to_dtype(DType::F32)
    } else {
        Ok(tensor)
    }
}
