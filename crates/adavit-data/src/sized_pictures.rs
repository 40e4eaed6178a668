//! Pictures of any size, given in the size that a model takes.
//!
//! ```text
//! evaluation   decode -> resize -> crop the centre
//! training     decode -> augmentation, which crops
//! ```
//!
//! Decoded pictures stay in memory as far as they fit a limit, so that later epochs decode nothing. Shards
//! of which not all fit are streamed: see [`stored_order`](crate::stored_order).

use std::borrow::Cow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::augmentation::augment::KeyedAugment;
use crate::decoding::decode::DecodeOptions;
use crate::error::Result;
use crate::formats::picture_set::PictureSet;
use crate::labelled::Labelled;
use crate::loader::streamed::StoredRuns;
use crate::normalization::Normalization;
use crate::picture::Picture;
use crate::preprocessing::InputConfig;
use crate::statistics::pixel_statistics;

/// Pictures whose bytes identify a set.
const IDENTIFYING: usize = 64;
/// Pictures that are decoded to estimate the size of all.
const ESTIMATED_BY: usize = 16;

/// Labelled pictures in the size that a model takes, as [`Labelled`].
#[derive(Debug)]
pub struct SizedPictures {
    set: PictureSet,
    input: InputConfig,
    decoding: DecodeOptions,
    cache: Cache,
    runs: Option<StoredRuns>,
}

/// Decoded pictures, at most a number of bytes of them.
#[derive(Debug)]
struct Cache {
    pictures: Vec<OnceLock<Picture>>,
    bytes: AtomicU64,
    most: u64,
}

impl SizedPictures {
    /// Returns the pictures of `set` as a model with `input` takes them; none stays in memory.
    pub fn new(set: PictureSet, input: InputConfig) -> Self {
        Self {
            set,
            decoding: input.decode_options(false),
            input,
            cache: Cache {
                pictures: Vec::new(),
                bytes: AtomicU64::new(0),
                most: 0,
            },
            runs: None,
        }
    }

    /// Returns the same pictures, of which at most so many bytes, decoded, stay in memory. If they come from
    /// shards and need more, by an estimate from a few of them, they are streamed.
    #[must_use]
    pub fn cached(self, bytes: u64) -> Self {
        let slots = if bytes == 0 { 0 } else { self.set.len() };
        let cache = Cache {
            pictures: (0..slots).map(|_| OnceLock::new()).collect(),
            bytes: AtomicU64::new(0),
            most: bytes,
        };
        let runs = self.set.stored_runs();
        let runs = runs.filter(|_| self.estimated_bytes() > bytes);
        Self {
            cache,
            runs,
            ..self
        }
    }

    /// Returns the same pictures, decoded fast if so: see [`DecodeOptions::fast_decode`].
    #[must_use]
    pub fn fast(self, fast_decode: bool) -> Self {
        let decoding = self.input.decode_options(fast_decode);
        Self { decoding, ..self }
    }

    /// Returns the pictures before they are resized.
    pub fn set(&self) -> &PictureSet {
        &self.set
    }

    /// About how many bytes all pictures have decoded. Broken ones count as nothing.
    fn estimated_bytes(&self) -> u64 {
        let step = self.set.len().div_ceil(ESTIMATED_BY).max(1);
        let some = (0..self.set.len()).step_by(step);
        let (count, bytes) = some.fold((0, 0), |(count, bytes), index| {
            let picture = self.set.picture_with(index, &self.decoding);
            (
                count + 1,
                bytes + picture.map_or(0, |picture| picture.bytes().len() as u64),
            )
        });
        bytes * self.set.len() as u64 / u64::max(count, 1)
    }

    fn picture(&self, index: usize) -> Result<Cow<'_, Picture>> {
        let kept = self.cache.pictures.get(index);
        if let Some(picture) = kept.and_then(OnceLock::get) {
            return Ok(Cow::Borrowed(picture));
        }
        let picture = self.set.picture_with(index, &self.decoding)?;
        match kept.filter(|_| self.cache.takes(picture.bytes().len() as u64)) {
            // Another thread may have put it there meanwhile: then this one counts twice, once.
            Some(slot) => Ok(Cow::Borrowed(slot.get_or_init(|| picture))),
            None => Ok(Cow::Owned(picture)),
        }
    }
}

impl Cache {
    /// Takes room for so many bytes, if there is as much.
    fn takes(&self, bytes: u64) -> bool {
        let fits = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.most);
        let taken = self
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.is_ok()
    }
}

impl Labelled for SizedPictures {
    fn name(&self) -> &str {
        self.set.name()
    }

    fn len(&self) -> usize {
        self.set.len()
    }

    fn class_names(&self) -> &[String] {
        self.set.class_names()
    }

    fn dims(&self) -> [usize; 3] {
        let (height, width) = self.input.img_size;
        [self.input.in_chans, height, width]
    }

    fn label(&self, index: usize) -> u32 {
        self.set.label(index)
    }

    fn stored_runs(&self) -> Option<&StoredRuns> {
        self.runs.as_ref()
    }

    fn place(&self, index: usize) -> String {
        self.set.place(index)
    }

    fn normalization(&self) -> Result<Normalization> {
        pixel_statistics(self)
    }

    /// Labels, class names, and the files of some pictures: the same in every format that keeps the files.
    fn identify(&self, take: &mut dyn FnMut(&[u8])) -> Result<()> {
        for name in self.class_names() {
            take(name.as_bytes());
        }
        for label in self.set.labels() {
            take(&label.to_le_bytes());
        }
        let step = self.len().div_ceil(IDENTIFYING).max(1);
        for index in (0..self.len()).step_by(step) {
            take(&self.set.bytes(index)?);
        }
        Ok(())
    }

    fn pixels(&self, index: usize, augment: Option<&KeyedAugment>, out: &mut [u8]) -> Result<()> {
        let picture = self.picture(index)?.into_owned();
        let sized = match augment {
            Some(augment) => augment.train_picture(index as u64, picture, self.input.img_size)?,
            None => self
                .input
                .preprocessing
                .apply(picture, self.input.img_size)?,
        };
        sized.write_planes(out);
        Ok(())
    }
}
