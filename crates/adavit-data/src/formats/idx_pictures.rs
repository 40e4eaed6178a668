//! IDX files as pictures: grey ones of three dimensions, grey or coloured ones of four.

use std::path::Path;

use crate::error::{Error, Result};
use crate::formats::idx::{NAME_FILE, Part, RawImages, has_part, read_images};
use crate::formats::left_out::LeftOut;
use crate::formats::part_name::PartName;
use crate::formats::pixels::{Layout, Shape, png};
use crate::formats::store::{Labels, Listed, RawPart, Store, names_of, read_text};
use crate::picture::Picture;

/// Pictures of one size in memory.
#[derive(Debug)]
struct Pixels {
    place: String,
    shape: Shape,
    bytes: Vec<u8>,
}

impl Pixels {
    fn picture(&self, entry: usize) -> Result<Picture> {
        let size = self.shape.bytes();
        let picture = self
            .shape
            .picture(&self.bytes[entry * size..(entry + 1) * size]);
        picture.map_err(|message| Error::data(Path::new(&self.place), message))
    }
}

impl Store for Pixels {
    fn bytes(&self, entry: usize) -> Result<Vec<u8>> {
        png(&self.picture(entry)?).map_err(|message| Error::data(Path::new(&self.place), message))
    }

    fn place(&self, entry: usize) -> String {
        format!("{}: image {entry}", self.place)
    }

    fn pixels(&self, entry: usize) -> Option<Result<Picture>> {
        Some(self.picture(entry))
    }
}

/// Reads the parts that a folder has; `None` if there is none.
///
/// # Errors
/// If a file is damaged, or images and labels do not fit.
pub(crate) fn open(folder: &Path) -> Result<Option<Listed>> {
    let mut parts = Vec::new();
    for (name, part) in [(PartName::Train, Part::Train), (PartName::Test, Part::Test)] {
        if has_part(folder, part) {
            parts.push(raw(name, read_images(folder, part)?)?);
        }
    }
    if parts.is_empty() {
        return Ok(None);
    }
    let names = folder.join(NAME_FILE);
    let class_names = if names.is_file() {
        names_of(&read_text(&names)?)
    } else {
        Vec::new()
    };
    Ok(Some(Listed {
        format: "IDX files",
        carrier: "labels",
        parts,
        class_names,
        left_out: LeftOut::default(),
    }))
}

fn raw(part: PartName, images: RawImages) -> Result<RawPart> {
    let shape = shape(&images.dims).map_err(|message| Error::data(&images.path, message))?;
    let mut labels = Labels::default();
    let class_of = images
        .labels
        .iter()
        .map(|label| labels.place(&label.to_string()))
        .collect();
    Ok(RawPart {
        part: Some(part),
        classes: labels.classes,
        class_of,
        empty_classes: Vec::new(),
        by_path: false,
        store: Box::new(Pixels {
            place: images.path.display().to_string(),
            shape,
            bytes: images.bytes,
        }),
    })
}

/// The dimension of 1 or 3 is that of the channels.
pub(crate) fn shape(dims: &[usize]) -> Result<Shape, String> {
    let is_channels = |n: usize| n == 1 || n == 3;
    let (channels, height, width, layout) = match *dims {
        [height, width] => (1, height, width, Layout::ChannelsLast),
        [c, height, width] if is_channels(c) && !is_channels(width) => {
            (c, height, width, Layout::ChannelsFirst)
        }
        [height, width, c] if is_channels(c) && !is_channels(height) => {
            (c, height, width, Layout::ChannelsLast)
        }
        _ => {
            return Err(format!(
                "expected images of (channels, height, width) or (height, width, channels) with 1 or 3 \
                 channels, found {dims:?}"
            ));
        }
    };
    Ok(Shape {
        channels,
        height,
        width,
        layout,
    })
}
