//! Formats that data sets come in.

#[cfg(feature = "hub")]
pub(crate) mod hub;
pub(crate) mod idx;
#[cfg(feature = "pictures")]
pub(crate) mod image_folder;
