//! What a format gives: entries in their order, and where their bytes come from.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};
use crate::formats::left_out::LeftOut;
use crate::formats::part_name::PartName;
use crate::loader::streamed::Spot;
use crate::picture::Picture;

/// The largest file of a picture.
pub(crate) const MOST_FILE_BYTES: u64 = 1 << 30;

/// Where the pictures of a part come from, by the number of their entry.
pub(crate) trait Store: Send + Sync + std::fmt::Debug {
    /// Returns the encoded bytes of an entry.
    fn bytes(&self, entry: usize) -> Result<Vec<u8>>;

    /// Returns where an entry is, for messages.
    fn place(&self, entry: usize) -> String;

    /// Returns where in its shard an entry lies; `None` where entries are files of their own, or lie in
    /// memory.
    fn spot(&self, _entry: usize) -> Option<Spot> {
        None
    }

    /// Returns the picture itself where the store holds pixels; `None` where it holds encoded bytes.
    fn pixels(&self, _entry: usize) -> Option<Result<Picture>> {
        None
    }
}

/// A part as a format lists it.
#[derive(Debug)]
pub(crate) struct RawPart {
    /// `None` where the data has no parts.
    pub(crate) part: Option<PartName>,
    /// The different labels, as text: names or numbers.
    pub(crate) classes: Vec<String>,
    /// For each entry its place in `classes`.
    pub(crate) class_of: Vec<u32>,
    /// Folders of classes without a picture.
    pub(crate) empty_classes: Vec<String>,
    /// Whether entries are in the order of their paths, and go behind the order of classes.
    pub(crate) by_path: bool,
    pub(crate) store: Box<dyn Store>,
}

/// What a format finds.
#[derive(Debug)]
pub(crate) struct Listed {
    /// The format, as `ImageFolder`.
    pub(crate) format: &'static str,
    /// What carries the labels: `folders` or `labels`.
    pub(crate) carrier: &'static str,
    pub(crate) parts: Vec<RawPart>,
    /// Names of the classes by number, if the data states them.
    pub(crate) class_names: Vec<String>,
    pub(crate) left_out: LeftOut,
}

/// Gives different labels their places, in the order in which they come.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    pub(crate) classes: Vec<String>,
    places: std::collections::HashMap<String, u32>,
}

impl Labels {
    /// Takes different labels in their order.
    #[cfg(feature = "tar")]
    pub(crate) fn with(classes: Vec<String>) -> Self {
        let places = classes.iter().cloned().zip(0..).collect();
        Self { classes, places }
    }

    pub(crate) fn place(&mut self, label: &str) -> u32 {
        if let Some(place) = self.places.get(label) {
            return *place;
        }
        let place = self.classes.len() as u32;
        self.classes.push(label.to_owned());
        self.places.insert(label.to_owned(), place);
        place
    }
}

/// Reads a whole file of at most `most` bytes.
pub(crate) fn read_file(path: &Path, most: u64) -> Result<Vec<u8>> {
    let fail = |message: String| Error::data(path, message);
    let read = || -> std::io::Result<(Vec<u8>, bool)> {
        let file = File::open(path)?;
        let mut bytes = Vec::new();
        let size = file.metadata()?.len();
        if size <= most {
            bytes.reserve(size as usize);
        }
        file.take(most + 1).read_to_end(&mut bytes)?;
        let fits = bytes.len() as u64 <= most;
        Ok((bytes, fits))
    };
    match read() {
        Ok((bytes, true)) => Ok(bytes),
        Ok((_, false)) => Err(fail(format!("expected at most {most} bytes, found more"))),
        Err(error) => Err(fail(format!("cannot be read: {error}"))),
    }
}

/// Reads a text file: UTF-8, with or without a byte order mark.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let bytes = read_file(path, MOST_FILE_BYTES)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::data(path, "expected text in UTF-8, found other bytes"))?;
    Ok(text
        .strip_prefix('\u{feff}')
        .map_or(text.clone(), str::to_owned))
}

/// Reads a list of names, one in each line.
pub(crate) fn names_of(text: &str) -> Vec<String> {
    let lines = text.trim_end().lines();
    lines.map(|line| line.trim().to_owned()).collect()
}
