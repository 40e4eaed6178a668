//! The numbers of the protocol. Published results depend on them, so they never change: other numbers are
//! another data set, with another name.

/// The name of the data set.
pub const FASHION_SCENES: &str = "fashion-scenes";

/// The side of a scene, in pixels.
pub(super) const CANVAS: usize = 72;

/// Classes of garments.
pub(super) const CLASSES: usize = 10;

/// The side of a garment's picture as Fashion-MNIST has it.
pub(super) const GARMENT_SIDE: usize = 28;

/// The least value of a pixel that belongs to a garment; fainter ones belong to its black surroundings.
pub(super) const VISIBLE: u8 = 16;

/// How many garments a scene has, each with the same probability. More than half are of the label's class.
pub(super) const COUNTS: [usize; 3] = [1, 3, 5];

/// A garment's size is the side that its picture is resized to: uniform in this range, ends included.
pub(super) const SIZES: std::ops::RangeInclusive<usize> = 20..=30;

/// How often a place is drawn for a garment before all of them are drawn sizes and places again.
pub(super) const TRIES: usize = 50;

/// Pieces of clutter in a scene.
pub(super) const PIECES: usize = 8;

/// The side of a piece of clutter, in pixels.
pub(super) const PIECE_SIDE: usize = 8;

/// Scenes of an epoch of training, which are new in each epoch.
pub(super) const TRAIN_SCENES: usize = 40_000;

/// Scenes that choose epochs and thresholds.
pub(super) const HELD_OUT_SCENES: usize = 4_000;

/// Scenes to test on.
pub(super) const TEST_SCENES: usize = 10_000;

/// One training garment of so many of each class is for the held-out scenes.
pub(super) const HELD_OUT_OF: usize = 10;

/// Chooses the garments of the held-out scenes, and keys scenes that are fixed.
pub(super) const SEED: u64 = 0;
