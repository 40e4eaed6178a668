//! Data sets: reading, splitting, shuffling, augmentation and batches.
//!
//! ```text
//! load -> Splits { train, test }        u8 in memory, read once
//! held_out(train.len(), ..)             seeded part that chooses the best snapshot
//! epoch_order -> batches                keyed by (seed, epoch)
//! make_batch                            augmentation keyed by (seed, epoch, sample), one Tensor
//! ```
//!
//! Nothing is cached from epoch to epoch, so memory is the data set itself and one batch.

mod augment;
mod batches;
mod dataset;
mod erasing;
#[cfg(feature = "hub")]
mod hub;
mod idx;
mod pictures;
mod source;
mod split;

pub use augment::{Augment, KeyedAugment};
pub use batches::{Batch, Labelled, batches, epoch_order, make_batch};
pub use dataset::{Dataset, MeanStd};
pub use idx::{Part, write_part};
pub use pictures::{PictureFolder, is_called_picture};
pub use source::{KNOWN_NAMES, Splits, load};
pub use split::{Split, class_balanced, held_out};
