//! File formats of data sets.

#[cfg(feature = "parquet")]
mod blocks;
#[cfg(feature = "pictures")]
mod cifar;
#[cfg(feature = "pictures")]
mod disk;
#[cfg(feature = "pictures")]
mod folders;
#[cfg(feature = "hub")]
pub(crate) mod hub;
pub(crate) mod idx;
#[cfg(feature = "pictures")]
pub(crate) mod idx_pictures;
#[cfg(feature = "pictures")]
pub(crate) mod left_out;
#[cfg(feature = "pictures")]
mod listed_folder;
#[cfg(feature = "pictures")]
mod listing;
#[cfg(feature = "pictures")]
mod listing_cache;
#[cfg(feature = "pictures")]
mod manifest;
#[cfg(feature = "pictures")]
pub(crate) mod open;
#[cfg(feature = "pictures")]
pub(crate) mod options;
#[cfg(feature = "parquet")]
mod parquet_columns;
#[cfg(feature = "parquet")]
mod parquet_shards;
#[cfg(feature = "pictures")]
pub(crate) mod part_name;
#[cfg(feature = "pictures")]
mod paths;
#[cfg(feature = "pictures")]
pub(crate) mod picture_set;
#[cfg(feature = "pictures")]
pub(crate) mod pixels;
#[cfg(feature = "parquet")]
mod shard_names;
#[cfg(feature = "pictures")]
pub(crate) mod store;
#[cfg(feature = "tar")]
mod tar_index;
#[cfg(feature = "tar")]
pub(crate) mod tar_shards;
