//! Checkpoints: the tensors of a model, its configuration beside them, and the files of others.

pub(crate) mod file;
pub(crate) mod import;
pub(crate) mod native;
pub(crate) mod tensors;
