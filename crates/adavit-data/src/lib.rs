#![doc = include_str!("../README.md")]

mod augmentation;
mod dataset;
#[cfg(feature = "pictures")]
mod decoding;
mod error;
mod formats;
mod loader;
mod normalization;
mod picture;
mod preprocessing;
pub mod rng;
mod source;
mod splits;

// Main types: data sets and their batches.
pub use dataset::Dataset;
#[cfg(feature = "pictures")]
pub use formats::image_folder::{FolderClasses, ImageFolder};
pub use loader::{Batch, Labelled, batches, epoch_order, make_batch};
pub use source::{KNOWN_NAMES, Splits, load};

// How images are split, varied and turned into numbers.
pub use augmentation::augment::{Augment, KeyedAugment};
pub use normalization::Normalization;
pub use picture::{DecodedPicture, Interpolation, Picture, resize_plane};
pub use preprocessing::{CropMode, InputConfig, Preprocessing};
pub use splits::{Split, class_balanced, held_out};

// Files.
#[cfg(feature = "pictures")]
pub use decoding::{
    find::{FileError, find_pictures},
    read_ahead::read_ahead,
};
pub use error::{Error, Result};
pub use formats::idx::{Part, write_part};
