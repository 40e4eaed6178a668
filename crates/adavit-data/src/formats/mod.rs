//! File formats of data sets.

#[cfg(feature = "hub")]
pub(crate) mod hub;
pub(crate) mod idx;
#[cfg(feature = "pictures")]
pub(crate) mod image_folder;
