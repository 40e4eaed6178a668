//! Inference on slices: weights packed once, outputs into buffers that the caller keeps, no graph.
//!
//! Every function takes the rows, heads or ranges to compute; it neither reads nor writes the others.
//! Results are bit-identical to those of the differentiable operations, except [`SmallLinear`], which
//! adds in another order. A row's result does not depend on which other rows are computed.
//!
//! [`SmallLinear`]: linear::SmallLinear

pub(crate) mod attention;
pub(crate) mod convolution;
pub(crate) mod layer_norm;
pub(crate) mod linear;
mod weights;
pub(crate) mod workspace;
