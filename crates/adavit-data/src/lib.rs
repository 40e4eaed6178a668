#![doc = include_str!("../README.md")]

mod augmentation;
mod dataset;
#[cfg(feature = "pictures")]
mod decoding;
mod error;
mod formats;
mod loader;
mod preprocessing;
pub mod rng;
mod source;
mod splits;

pub use augmentation::augment::{Augment, KeyedAugment};
pub use dataset::Dataset;
#[cfg(feature = "pictures")]
pub use decoding::find::find_pictures;
#[cfg(feature = "pictures")]
pub use decoding::read_ahead::{FileError, read_ahead};
pub use error::{Error, Result};
pub use formats::idx::{Part, write_part};
#[cfg(feature = "pictures")]
pub use formats::image_folder::{FolderClasses, ImageFolder, is_called_picture};
pub use loader::{Batch, Labelled, batches, epoch_order, make_batch};
pub use preprocessing::{
    CropMode, DecodedPicture, InputConfig, Interpolation, Normalization, Picture, Preprocessing,
    resize_plane,
};
pub use source::{KNOWN_NAMES, Splits, load};
pub use splits::{Split, class_balanced, held_out};
