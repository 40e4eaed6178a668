//! Training images are varied: random crop, flip and erasing.

pub(crate) mod augment;
mod erasing;
