//! What every fused operation needs from candle: whether the fused path applies, and tensors as
//! slices.

use std::ops::{Deref, Range};

use candle_core::{CpuStorage, DType, Layout, Result, Shape, Storage, StorageRef, Tensor, bail};

/// Returns whether all tensors are f32 on the CPU. Otherwise the operation takes the composed path.
pub(crate) fn applies(tensors: &[&Tensor]) -> bool {
    tensors
        .iter()
        .all(|xs| xs.dtype() == DType::F32 && xs.device().is_cpu())
}

/// Returns the values of a contiguous f32 storage, as `cpu_fwd` gets it.
pub(crate) fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("fused operation: expected a contiguous layout, found {layout:?}");
    };
    Ok(&storage.as_slice::<f32>()?[within(start, end)])
}

/// The range of a view; an empty one may lie beyond its storage.
fn within(start: usize, end: usize) -> Range<usize> {
    if start == end { 0..0 } else { start..end }
}

/// A read lock on the values of a contiguous f32 tensor.
pub(crate) struct TensorValues<'a> {
    guard: StorageRef<'a>,
    range: Range<usize>,
}

impl Deref for TensorValues<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.guard {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.range.clone()],
            _ => &[],
        }
    }
}

/// Returns the values of a contiguous f32 tensor on the CPU.
pub(crate) fn values(xs: &Tensor) -> Result<TensorValues<'_>> {
    let (guard, layout) = xs.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("fused operation: expected a contiguous tensor, found {layout:?}");
    };
    if !matches!(&*guard, Storage::Cpu(CpuStorage::F32(_))) {
        bail!(
            "fused operation: expected f32 on the CPU, found {:?}",
            xs.dtype()
        );
    }
    Ok(TensorValues {
        guard,
        range: within(start, end),
    })
}

/// Returns a tensor of `values`, shaped like `like`, outside of any graph.
pub(crate) fn tensor(values: Vec<f32>, like: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(values, like.dims(), like.device())
}

/// Returns the shape `(.., O)` of the output of an affine map for inputs `(.., I)`.
pub(crate) fn output_shape(layout: &Layout, n_out: usize) -> Shape {
    let mut dims = layout.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = n_out;
    }
    Shape::from(dims)
}
