//! Checkpoints: a model's tensors by name, its configuration beside them, and the files of others.

pub(crate) mod file;
pub(crate) mod import;
pub(crate) mod native;
pub(crate) mod tensors;
