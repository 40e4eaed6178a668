//! Writes a set of pictures in another format: index, label, bytes and names of classes stay.

pub(crate) mod idx;
#[cfg(feature = "parquet")]
pub(crate) mod parquet;
#[cfg(feature = "tar")]
pub(crate) mod tar;
mod target;
