//! Policies: what each block computes for each image.

pub(crate) mod block;
pub(crate) mod hard;
pub(crate) mod kept;
pub(crate) mod random;
