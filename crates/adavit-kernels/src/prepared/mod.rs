//! Inference on slices: weights packed once, outputs into buffers that the caller keeps, no graph.

pub(crate) mod convolution;
pub(crate) mod linear;
