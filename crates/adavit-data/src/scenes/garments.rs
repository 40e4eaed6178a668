//! The garments that the scenes of one part are built from.

use std::sync::Arc;

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::picture::Window;
use crate::scenes::garment;
use crate::scenes::protocol::{CLASSES, FASHION_SCENES, GARMENT_SIDE, VISIBLE};

/// Some garments of a data set: at least one of each class, and each can be seen.
#[derive(Debug, Clone)]
pub(super) struct Garments {
    set: Arc<Dataset>,
    /// Their indices in `set`, ascending.
    all: Vec<u32>,
    /// The same, of each class.
    by_class: Vec<Vec<u32>>,
    /// What is seen of each garment of `all`.
    seen: Vec<Window>,
}

/// The picture of a garment, and what is seen of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) picture: &'a [u8],
    pub(super) window: Window,
}

impl Garments {
    /// Returns the garments of `set` at `indices`, ascending.
    ///
    /// # Errors
    /// [`Error::Inconsistent`] if they are not of the size and the classes of Fashion-MNIST, a class has no
    /// garment, or nothing can be seen of one.
    pub(super) fn new(set: Arc<Dataset>, indices: Vec<u32>) -> Result<Self> {
        let fail = |message: String| Error::Inconsistent {
            name: FASHION_SCENES.into(),
            message,
        };
        let expected = ([1, GARMENT_SIDE, GARMENT_SIDE], CLASSES);
        if (set.dims(), set.num_classes()) != expected {
            return Err(fail(format!(
                "expected grey garments of {GARMENT_SIDE}x{GARMENT_SIDE} pixels in {CLASSES} classes, as \
                 Fashion-MNIST has them, found {:?} (channels, height, width) in {}",
                set.dims(),
                set.num_classes()
            )));
        }
        let mut by_class = vec![Vec::new(); CLASSES];
        let mut seen = Vec::with_capacity(indices.len());
        for &index in &indices {
            by_class[usize::from(set.label(index as usize))].push(index);
            seen.push(garment::seen(set.image(index as usize)).ok_or_else(|| {
                fail(format!(
                    "nothing is seen of garment {index} of {}: expected a pixel of at least {VISIBLE} of 255; \
                     copy or download its files again",
                    set.name()
                ))
            })?);
        }
        if let Some(class) = by_class.iter().position(Vec::is_empty) {
            return Err(fail(format!(
                "expected garments of every class in every part, found none of class {class} ({}) among {} \
                 of {}; copy or download its files again",
                set.class_names()[class],
                indices.len(),
                set.name()
            )));
        }
        Ok(Self {
            set,
            all: indices,
            by_class,
            seen,
        })
    }

    /// Returns the number of garments.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Returns the number of garments of a class.
    pub(super) fn len_of(&self, class: usize) -> usize {
        self.by_class[class].len()
    }

    /// Returns the picture of garment `number` of all.
    pub(super) fn picture(&self, number: usize) -> &[u8] {
        self.set.image(self.all[number] as usize)
    }

    /// Returns garment `number` of a class.
    pub(super) fn of_class(&self, class: usize, number: usize) -> Seen<'_> {
        let index = self.by_class[class][number];
        // Every index of a class is one of all.
        let place = self.all.partition_point(|other| *other < index);
        Seen {
            picture: self.set.image(index as usize),
            window: self.seen[place],
        }
    }

    /// Returns a name for each class, in the order of the labels.
    pub(super) fn class_names(&self) -> &[String] {
        self.set.class_names()
    }

    /// Gives `take` every byte that scenes depend on.
    pub(super) fn identify(&self, take: &mut dyn FnMut(&[u8])) {
        for &index in &self.all {
            take(&[self.set.label(index as usize)]);
            take(self.set.image(index as usize));
        }
    }

    /// Returns their indices in the data set, ascending.
    #[cfg(test)]
    pub(super) fn indices(&self) -> &[u32] {
        &self.all
    }
}
