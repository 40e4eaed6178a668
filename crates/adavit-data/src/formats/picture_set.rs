//! Labelled pictures that are read one by one.

use std::fmt;

use crate::decoding::decode::DecodeOptions;
use crate::error::{Error, Result};
use crate::formats::store::{RawPart, Store};
use crate::loader::streamed::{RUN_BYTES, StoredRuns};
use crate::picture::{Picture, luma};

/// Labelled pictures of one part of a data set, read by their index from any number of threads.
///
/// The index is the place in the order of classes, then of paths, for folders, lists and tar shards;
/// the place of the row for the other formats. Packing keeps it.
pub struct PictureSet {
    name: String,
    class_names: Vec<String>,
    labels: Vec<u32>,
    /// The entry of each index.
    entries: Vec<u32>,
    store: Box<dyn Store>,
}

impl PictureSet {
    /// Joins the entries of a format with the numbers of their classes: `numbers[place]`.
    pub(crate) fn new(
        name: String,
        class_names: Vec<String>,
        part: RawPart,
        numbers: &[u32],
    ) -> Self {
        let label = |entry: &u32| numbers[part.class_of[*entry as usize] as usize];
        let mut entries: Vec<u32> = (0..part.class_of.len() as u32).collect();
        if part.by_path {
            entries.sort_by_key(label);
        }
        Self {
            name,
            class_names,
            labels: entries.iter().map(label).collect(),
            entries,
            store: part.store,
        }
    }

    /// Returns the name: the path that was opened, and the part.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the number of pictures, at least 1.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Returns whether there is no picture.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Returns the class of picture `i`.
    ///
    /// # Panics
    /// If `i` is not below [`Self::len`].
    pub fn label(&self, i: usize) -> u32 {
        self.labels[i]
    }

    /// Returns the classes of all pictures.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Returns a name for each class, in the order of the labels.
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// Returns where picture `i` is, for messages, as `shard-000.tar: cat/0001.jpg`.
    pub fn place(&self, i: usize) -> String {
        match self.entries.get(i) {
            Some(entry) => self.store.place(*entry as usize),
            None => format!("{}: picture {i} of {}", self.name, self.len()),
        }
    }

    /// Returns the encoded bytes of picture `i`; a set that holds pixels encodes them as PNG.
    ///
    /// # Errors
    /// If there is no such picture, or it cannot be read.
    pub fn bytes(&self, i: usize) -> Result<Vec<u8>> {
        self.store.bytes(self.entry(i)?)
    }

    /// Reads and decodes picture `i` with `channels` channels: 3 for colours, 1 for grey.
    ///
    /// # Errors
    /// [`Error::Picture`] with the place, if it cannot be read or decoded.
    pub fn picture(&self, i: usize, channels: usize) -> Result<Picture> {
        self.picture_with(i, &DecodeOptions::whole(channels))
    }

    /// Reads and decodes picture `i`, a large JPEG perhaps at a part of its size: see [`DecodeOptions`].
    ///
    /// # Errors
    /// As for [`Self::picture`].
    pub fn picture_with(&self, i: usize, options: &DecodeOptions) -> Result<Picture> {
        let entry = self.entry(i)?;
        let fail = |message: String| Error::Picture {
            path: self.store.place(entry).into(),
            message,
        };
        match self.store.pixels(entry) {
            Some(picture) => with_channels(picture?, options.channels).map_err(fail),
            None => Picture::decode_with(&self.store.bytes(entry)?, options).map_err(fail),
        }
    }

    /// Returns the runs of the shards that hold the pictures, if shards do.
    pub(crate) fn stored_runs(&self) -> Option<StoredRuns> {
        let spots = self
            .entries
            .iter()
            .map(|entry| self.store.spot(*entry as usize));
        let spots: Vec<_> = spots.collect::<Option<_>>()?;
        Some(StoredRuns::cut(&spots, RUN_BYTES))
    }

    /// Returns bytes that tell picture `i` from others of the set: its encoded bytes, or its pixels where
    /// the set holds pixels.
    pub(crate) fn identity(&self, i: usize) -> Result<Vec<u8>> {
        let entry = self.entry(i)?;
        match self.store.pixels(entry) {
            Some(picture) => Ok(picture?.into_bytes()),
            None => self.store.bytes(entry),
        }
    }

    fn entry(&self, i: usize) -> Result<usize> {
        let entry = self.entries.get(i).map(|entry| *entry as usize);
        entry.ok_or_else(|| Error::Inconsistent {
            name: self.name.clone(),
            message: format!("expected a picture below {}, found {i}", self.len()),
        })
    }
}

impl fmt::Debug for PictureSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PictureSet")
            .field("name", &self.name)
            .field("len", &self.len())
            .field("class_names", &self.class_names)
            .finish_non_exhaustive()
    }
}

/// Grey from colours by Pillow's weights, colours from grey by repeating it.
fn with_channels(picture: Picture, channels: usize) -> Result<Picture, String> {
    let bytes = match (picture.channels(), channels) {
        (from, to) if from == to => return Ok(picture),
        (1, 3) => picture.bytes().iter().flat_map(|x| [*x; 3]).collect(),
        (3, 1) => {
            let pixels = picture.bytes().as_chunks::<3>().0.iter();
            pixels.map(|&[r, g, b]| luma(r, g, b)).collect()
        }
        _ => {
            return Err(format!(
                "expected 1 or 3 channels for pictures, found {channels}"
            ));
        }
    };
    Picture::new(channels, picture.size(), bytes)
}
