//! The formats that data are packed into.

use std::path::{Path, PathBuf};

use adavit_data::{Found, Part, PictureSet, write_idx, write_tar};
use anyhow::Result;
use clap::ValueEnum;

use crate::exit::bad_input;

/// A format that data are packed into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Shards of tar, as WebDataset's.
    Tar,
    /// Shards of parquet, as on the Hugging Face hub.
    Parquet,
    /// IDX files, as MNIST's: decoded pictures of one size.
    Idx,
}

/// Writes every part into the folder `out`; returns the files, or the folder for IDX.
pub(super) fn pack(
    found: &Found,
    format: Format,
    out: &Path,
    shard_size: usize,
) -> Result<Vec<PathBuf>> {
    let parts = [
        ("train", &found.train),
        ("val", &found.val),
        ("test", &found.test),
        ("train", &found.whole),
    ];
    let mut written = Vec::new();
    for (name, set) in parts {
        let Some(set) = set else { continue };
        match format {
            Format::Tar => written.extend(write_tar(out, name, set, shard_size)?),
            Format::Parquet => written.extend(parquet(out, name, set, shard_size)?),
            Format::Idx => {
                idx(out, name, set)?;
                written = vec![out.to_path_buf()];
            }
        }
    }
    Ok(written)
}

#[cfg(feature = "parquet")]
fn parquet(out: &Path, part: &str, set: &PictureSet, shard_size: usize) -> Result<Vec<PathBuf>> {
    Ok(adavit_data::write_parquet(out, part, set, shard_size)?)
}

#[cfg(not(feature = "parquet"))]
fn parquet(_: &Path, _: &str, _: &PictureSet, _: usize) -> Result<Vec<PathBuf>> {
    Err(bad_input(
        "this program is built without the feature parquet; build it with the feature, or pack as tar",
    ))
}

fn idx(out: &Path, name: &str, set: &PictureSet) -> Result<()> {
    let part = match name {
        "train" => Part::Train,
        "test" => Part::Test,
        other => {
            return Err(bad_input(format!(
                "IDX files have the parts train and test, found {other}; pack as tar or parquet"
            )));
        }
    };
    let grey = set.picture(0, 3)?.is_grey();
    Ok(write_idx(out, part, set, if grey { 1 } else { 3 })?)
}
