//! Float32 loops on the CPU: what the operations and the prepared layers compute with.

pub(crate) mod head;
pub(crate) mod lanes;
pub(crate) mod math;
pub(crate) mod packed;
pub(crate) mod parts;
pub(crate) mod pools;
pub(crate) mod rows;
pub(crate) mod shared;
pub(crate) mod simd;
pub(crate) mod threads;
pub(crate) mod tile;
pub(crate) mod transposed;
