//! What a loader and an evaluation take: labelled images of one size.

use std::fmt::Debug;

use crate::augmentation::augment::KeyedAugment;
use crate::error::Result;
use crate::loader::streamed::StoredRuns;
use crate::normalization::Normalization;
use crate::scenes::truth::SceneTruth;

/// Labelled images, in memory or not, that are all given in one size.
///
/// Implement it for a data set of your own. [`Dataset`](crate::Dataset) holds images of one size in
/// memory; with the feature `pictures`, `SizedPictures` decodes, resizes and crops pictures of any size.
pub trait Labelled: Send + Sync + Debug {
    /// Returns the name under which the images were loaded.
    fn name(&self) -> &str;

    /// Returns the number of images, at least 1.
    fn len(&self) -> usize;

    /// Returns false: there is at least one image.
    fn is_empty(&self) -> bool {
        false
    }

    /// Returns a name for each class, in the order of the labels.
    fn class_names(&self) -> &[String];

    /// Returns the size of every image as it is given, `[channels, height, width]`.
    fn dims(&self) -> [usize; 3];

    /// Returns the label of image `index`, which is below the number of classes.
    fn label(&self, index: usize) -> u32;

    /// Returns whether images lie in memory in their size, so that reading them takes no time.
    fn is_ready(&self) -> bool {
        false
    }

    /// Returns the runs that an epoch reads, if the images come from shards and do not stay in memory: see
    /// [`stored_order`](crate::stored_order).
    fn stored_runs(&self) -> Option<&StoredRuns> {
        None
    }

    /// Returns where image `index` is, for messages.
    fn place(&self, index: usize) -> String {
        format!("{}: image {index}", self.name())
    }

    /// Returns mean and standard deviation of each channel, of pixels scaled to [0, 1].
    ///
    /// # Errors
    /// If an image cannot be read.
    fn normalization(&self) -> Result<Normalization>;

    /// Gives `take` the bytes that tell these images from others, piece by piece and in the same order
    /// each time.
    ///
    /// # Errors
    /// If an image cannot be read.
    fn identify(&self, take: &mut dyn FnMut(&[u8])) -> Result<()>;

    /// Writes the pixels of image `index` into `out`, varied by `augment` if given.
    ///
    /// The same index and augmentation give the same bytes, on any thread.
    ///
    /// # Shapes
    /// `out`: `(channels, height, width)`, as [`Self::dims`] says.
    ///
    /// # Errors
    /// If the image cannot be read.
    fn pixels(&self, index: usize, augment: Option<&KeyedAugment>, out: &mut [u8]) -> Result<()>;

    /// Returns what is in image `index` without an augmentation, where that is known: in the scenes of
    /// `fashion-scenes`.
    fn scene_truth(&self, _index: usize) -> Option<SceneTruth> {
        None
    }
}

/// Returns the indices of all images of a set, for an evaluation.
pub fn all_indices(set: &dyn Labelled) -> Vec<u32> {
    (0..set.len() as u32).collect()
}
