//! Tensors as a file holds them.

use candle_core::{DType, Device, Tensor};

use crate::checkpoint::tensors::Tensors;

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
    pub(super) fn bare(tensors: Tensors, format: &'static str) -> Self {
        Self {
            tensors,
            format,
            wrapper: None,
            beside: Vec::new(),
            no_tensors: Vec::new(),
        }
    }
}

/// The elements of a shape, if neither they nor their bytes are too many for this machine, whichever
/// dimensions are 0.
pub(super) fn checked_elements(shape: &[usize], dtype: DType) -> Option<usize> {
    let mut sides = shape.iter().map(|side| (*side).max(1));
    sides.try_fold(dtype.size_in_bytes().max(1), usize::checked_mul)?;
    Some(shape.iter().product())
}

/// A tensor of these bytes, as float32 where it is a float, on the CPU.
pub(super) fn tensor_of(bytes: &[u8], dtype: DType, shape: &[usize]) -> Result<Tensor, String> {
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
