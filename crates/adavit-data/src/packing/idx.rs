//! IDX files of pictures of one size.

use std::path::Path;

use crate::error::{Error, Result};
use crate::formats::idx::{NAME_FILE, Part, write_images};
use crate::formats::idx_pictures::shape;
use crate::formats::picture_set::PictureSet;
use crate::packing::target::{prepare, write_names};

/// The largest part that is packed: it is in memory.
const MOST_BYTES: usize = 1 << 32;

/// Writes the pixels of a set, all of one size, as two gzip IDX files and `classnames.txt` into the
/// folder `dir`. Pictures of 1 channel have three dimensions, those of 3 have four: (N, height,
/// width, 3).
///
/// # Errors
/// If sizes differ, a label does not fit a byte, a picture cannot be read, or writing fails.
pub fn write_idx(dir: &Path, part: Part, set: &PictureSet, channels: usize) -> Result<()> {
    prepare(dir, part.prefix())?;
    if let Some(label) = set
        .labels()
        .iter()
        .find(|label| **label > u32::from(u8::MAX))
    {
        return Err(Error::Setting(format!(
            "IDX files hold labels up to 255, found {label}; pack as tar or parquet"
        )));
    }
    let labels: Vec<u8> = set.labels().iter().map(|label| *label as u8).collect();
    let mut pixels = Vec::new();
    let mut first = None;
    for i in 0..set.len() {
        let picture = set.picture(i, channels)?;
        let (height, width) = picture.size();
        let (h, w) = *first.get_or_insert((height, width));
        if (h, w) != (height, width) {
            return Err(Error::Picture {
                path: set.place(i).into(),
                message: format!(
                    "IDX files hold pictures of one size: expected {w}x{h} pixels, found {width}x{height}; \
                     pack as tar or parquet"
                ),
            });
        }
        pixels.extend_from_slice(picture.bytes());
        if pixels.len() > MOST_BYTES {
            return Err(Error::Setting(format!(
                "IDX files of more than {MOST_BYTES} bytes are not written; pack as tar or parquet"
            )));
        }
    }
    let (height, width) = first.unwrap_or((0, 0));
    let dims = match channels {
        1 => vec![height, width],
        _ => vec![height, width, channels],
    };
    shape(&dims).map_err(Error::Setting)?;
    write_names(&dir.join(NAME_FILE), set)?;
    write_images(dir, part, &dims, &pixels, &labels)
}
