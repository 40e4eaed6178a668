#![doc = include_str!("../README.md")]

mod augmentation;
#[cfg(feature = "pictures")]
mod class_map;
#[cfg(feature = "pictures")]
mod classes;
mod dataset;
#[cfg(feature = "pictures")]
mod decoding;
mod error;
mod formats;
mod labelled;
mod loader;
mod normalization;
#[cfg(feature = "pictures")]
mod packing;
mod picture;
mod preprocessing;
pub mod rng;
mod scenes;
#[cfg(feature = "pictures")]
mod sized_pictures;
#[cfg(feature = "pictures")]
mod sized_splits;
mod source;
mod splits;
#[cfg(feature = "pictures")]
mod statistics;
#[cfg(feature = "pictures")]
mod subset;
#[cfg(feature = "pictures")]
mod survey;

// Main types: data sets and their batches.
pub use dataset::Dataset;
pub use labelled::{Labelled, all_indices};
pub use loader::{
    batch::{Batch, Broken, Skipped, make_batch, make_readable_batch},
    order::{batches, epoch_order},
    streamed::{StoredRuns, stored_order},
    workers::{BatchPlan, Batches, Loader, LoaderOptions},
};
pub use source::{Datasets, KNOWN_NAMES, Splits, load};

// Scenes built from garments, whose content is known.
#[cfg(feature = "pictures")]
pub use scenes::pictures::open_scenes;
pub use scenes::{
    open::load_splits,
    protocol::FASHION_SCENES,
    truth::{GarmentBox, SceneTruth},
};

// Pictures that are read one by one, in any format.
#[cfg(feature = "pictures")]
pub use formats::{
    left_out::{Count, LeftOut, Reason},
    open::{Found, open},
    options::{Faulty, OpenOptions, user_cache},
    part_name::PartName,
    picture_set::PictureSet,
};
#[cfg(feature = "pictures")]
pub use packing::idx::write_idx;
#[cfg(feature = "parquet")]
pub use packing::parquet::write_parquet;
#[cfg(feature = "tar")]
pub use packing::tar::write_tar;
#[cfg(feature = "pictures")]
pub use sized_pictures::SizedPictures;
#[cfg(feature = "pictures")]
pub use sized_splits::SplitOptions;
#[cfg(feature = "pictures")]
pub use subset::Subset;
#[cfg(feature = "pictures")]
pub use survey::{Duplicates, PartSurvey, Survey};

// How images are split, varied and turned into numbers.
pub use augmentation::{
    augment::KeyedAugment,
    auto_augment::{AutoAugment, Surroundings},
    color_jitter::ColorJitter,
    interpolation::TrainInterpolation,
    mixup::{Mixup, MixupMode},
    ops::{
        affine::{Filter as AffineFilter, Sampling},
        op::Op,
    },
    rand_augment::RandAugment,
    random_erasing::{ErasingMode, RandomErasing},
    repeats::{RepeatedSample, repeated_order},
    resized_crop::RandomResizedCrop,
    settings::{Augment, TrainCrop},
    simple_crop::SimpleRandomCrop,
    targets::{TargetOptions, mixed_targets, smoothed_targets},
};
pub use normalization::Normalization;
pub use picture::{DecodedPicture, Interpolation, Picture, Window, resize_plane};
pub use preprocessing::{CropMode, InputConfig, Preprocessing};
pub use splits::{Split, class_balanced, held_out};

// Files.
#[cfg(feature = "pictures")]
pub use decoding::{
    decode::DecodeOptions,
    find::{FileError, FoundPictures, find_pictures},
    read_ahead::read_ahead,
    unread_files::{UnreadCounter, UnreadFiles},
};
pub use error::{Error, Result};
pub use formats::idx::{Part, holds_unnamed_idx, write_part};
