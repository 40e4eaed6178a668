#![doc = include_str!("../README.md")]

mod augment;
mod dataset;
mod error;
mod formats;
mod loader;
mod preprocessing;
pub mod rng;
mod source;
mod splits;

#[cfg(feature = "pictures")]
mod decoding;
#[cfg(feature = "pictures")]
mod finder;
#[cfg(feature = "pictures")]
mod reader;

pub use augment::{Augment, KeyedAugment};
pub use dataset::Dataset;
pub use error::{Error, Result};
#[cfg(feature = "pictures")]
pub use finder::find_pictures;
pub use formats::idx::{Part, write_part};
#[cfg(feature = "pictures")]
pub use formats::image_folder::{FolderClasses, ImageFolder, is_called_picture};
pub use loader::{Batch, Labelled, batches, epoch_order, make_batch};
pub use preprocessing::{
    CropMode, DecodedPicture, InputConfig, Interpolation, Normalization, Picture, Preprocessing,
    resize_plane,
};
#[cfg(feature = "pictures")]
pub use reader::{FileError, read_ahead};
pub use source::{KNOWN_NAMES, Splits, load};
pub use splits::{Split, class_balanced, held_out};
