//! Loops over float32 slices on the CPU, which the operations and the prepared layers share.

pub(crate) mod affine;
pub(crate) mod gelu;
pub(crate) mod head;
pub(crate) mod lanes;
pub(crate) mod math;
pub(crate) mod norm;
pub(crate) mod packed;
pub(crate) mod parts;
pub(crate) mod pools;
pub(crate) mod rows;
pub(crate) mod shared;
pub(crate) mod simd;
pub(crate) mod threads;
pub(crate) mod tile;
pub(crate) mod transposed;
