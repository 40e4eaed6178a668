//! An augmentation for one epoch of one run, and the recipe of small images: random crop, horizontal flip
//! and random erasing of raw bytes.
//!
//! ```text
//! out[y][x] = image[y + dy - p][x + dx - p], 0 outside     dy, dx uniform in 0..=2p
//! then columns are reversed with probability 1/2
//! ```
//!
//! The image is padded with `p` zero pixels on every side and a window of its own size is cut out.
//! What is drawn depends on (seed, epoch, sample, repeat) only, never on the place in a batch.

use rand::RngCore;
use rand_chacha::ChaCha8Rng;

use crate::augmentation::auto_augment::Surroundings;
use crate::augmentation::erasing::erase;
use crate::augmentation::random_erasing::RandomErasing;
use crate::augmentation::settings::Augment;
use crate::error::Result;
use crate::normalization::Normalization;
use crate::picture::Picture;
use crate::rng::{Stream, below, rng};

/// An [`Augment`] for one epoch of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KeyedAugment {
    augment: Augment,
    seed: u64,
    epoch: u64,
    repeat: u32,
    fill: [u8; 3],
}

/// Parts of the augmentation of one image. Each draws from a stream of numbers of its own, so that turning
/// one off leaves the others as they were. Published runs depend on the numbers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    /// Crop with padding, flip and random bytes.
    Small = 0,
    Crop = 1,
    Flips = 2,
    AutoAugment = 3,
    ColorJitter = 4,
    Grayscale = 5,
    Blur = 6,
    Erasing = 7,
}

/// What happens to one image: the window's offset in the padded image, then the flip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Draw {
    dy: usize,
    dx: usize,
    flip: bool,
}

impl Augment {
    /// Returns this augmentation with the seed and the epoch that its draws depend on.
    pub fn keyed(self, seed: u64, epoch: u64) -> KeyedAugment {
        KeyedAugment {
            augment: self,
            seed,
            epoch,
            repeat: 0,
            fill: Surroundings::default().fill,
        }
    }
}

impl KeyedAugment {
    /// Returns this augmentation for the `repeat`-th time that a picture occurs in the epoch; 0 is the
    /// first, and what [`Augment::keyed`] returns.
    #[must_use]
    pub fn repeat(self, repeat: u32) -> Self {
        Self { repeat, ..self }
    }

    /// Returns this augmentation with the mean of the data as the colour that operations fill with, as
    /// timm does; without it, that is a medium grey.
    #[must_use]
    pub fn filled_with_mean(self, normalization: &Normalization) -> Self {
        let byte = |mean: &f64| (255.0 * mean).round_ties_even() as u8;
        let means = &normalization.mean;
        let channel = |i: usize| means.get(i).or(means.first()).map_or(128, byte);
        Self {
            fill: std::array::from_fn(channel),
            ..self
        }
    }

    pub(crate) fn validate(&self, dims: [usize; 3]) -> Result<()> {
        self.augment.validate(dims)
    }

    pub(super) fn settings(&self) -> &Augment {
        &self.augment
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn fill(&self) -> [u8; 3] {
        self.fill
    }

    /// The numbers of one part of one image.
    pub(super) fn rng(&self, part: Part, sample: u64) -> ChaCha8Rng {
        let mut rng = rng(self.seed, Stream::Augment, self.epoch, sample);
        rng.set_stream(u64::from(self.repeat) << 8 | part as u64);
        rng
    }

    /// Writes the augmented `image`, `dims` = `[channels, height, width]`, into `out`, with the first three
    /// settings only.
    pub(super) fn apply_small(&self, sample: u64, image: &[u8], dims: [usize; 3], out: &mut [u8]) {
        let mut rng = self.rng(Part::Small, sample);
        let draw = self.draw(&mut rng);
        place(image, dims, self.augment.crop_padding, draw, out);
        erase(self.augment.random_erasing, out, dims, &mut rng);
    }

    /// Erases rectangles of a normalised image, as [`Augment::reprob`] says.
    ///
    /// # Shapes
    /// `values`: `dims` = `[channels, height, width]`.
    pub fn erase_values(&self, sample: u64, values: &mut [f32], dims: [usize; 3]) {
        if self.augment.reprob > 0.0 {
            let mut rng = self.rng(Part::Erasing, sample);
            RandomErasing::from(&self.augment).apply(values, dims, &mut rng);
        }
    }

    /// The picture after the first three settings.
    pub(super) fn small(&self, sample: u64, picture: Picture) -> Picture {
        let Augment {
            crop_padding,
            flip,
            random_erasing,
            ..
        } = self.augment;
        if crop_padding == 0 && !flip && random_erasing == 0.0 {
            return picture;
        }
        let (height, width) = picture.size();
        let dims = [picture.channels(), height, width];
        let mut out = vec![0; picture.bytes().len()];
        self.apply_small(sample, &picture.planes(), dims, &mut out);
        Picture::from_planes(&out, dims)
    }

    /// Always draws three numbers, so that turning the flip off leaves the crops as they were.
    fn draw(&self, rng: &mut impl RngCore) -> Draw {
        let offsets = 2 * self.augment.crop_padding as u64 + 1;
        let dy = below(rng, offsets) as usize;
        let dx = below(rng, offsets) as usize;
        let flip = below(rng, 2) == 1 && self.augment.flip;
        Draw { dy, dx, flip }
    }
}

fn place(
    image: &[u8],
    [channels, height, width]: [usize; 3],
    padding: usize,
    Draw { dy, dx, flip }: Draw,
    out: &mut [u8],
) {
    out.fill(0);
    // Columns of the output that fall inside the image.
    let x0 = padding.saturating_sub(dx);
    let x1 = (width + padding).saturating_sub(dx).min(width);
    for c in 0..channels {
        for y in 0..height {
            let Some(source_y) = (y + dy).checked_sub(padding).filter(|&y| y < height) else {
                continue;
            };
            let row = &mut out[(c * height + y) * width..][..width];
            if x0 < x1 {
                let source = &image[(c * height + source_y) * width..][..width];
                row[x0..x1].copy_from_slice(&source[x0 + dx - padding..x1 + dx - padding]);
            }
            if flip {
                row.reverse();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::unit;

    const DIMS: [usize; 3] = [1, 2, 3];
    const IMAGE: [u8; 6] = [1, 2, 3, 4, 5, 6];

    fn drawn(augment: &Augment, seed: u64, epoch: u64, sample: u64) -> Draw {
        let mut rng = rng(seed, Stream::Augment, epoch, sample);
        augment.keyed(seed, epoch).draw(&mut rng)
    }

    fn placed(padding: usize, dy: usize, dx: usize, flip: bool) -> [u8; 6] {
        let mut out = [9; 6];
        place(&IMAGE, DIMS, padding, Draw { dy, dx, flip }, &mut out);
        out
    }

    #[test]
    fn offset_equal_to_the_padding_is_the_identity() {
        assert_eq!(placed(0, 0, 0, false), IMAGE);
        assert_eq!(placed(1, 1, 1, false), IMAGE);
    }

    #[test]
    fn crop_moves_the_image_and_fills_with_zeros() {
        assert_eq!(placed(1, 0, 0, false), [0, 0, 0, 0, 1, 2]);
        assert_eq!(placed(1, 2, 2, false), [5, 6, 0, 0, 0, 0]);
        assert_eq!(placed(1, 1, 2, false), [2, 3, 0, 5, 6, 0]);
        assert_eq!(placed(1, 0, 1, false), [0, 0, 0, 1, 2, 3]);
    }

    #[test]
    fn flip_comes_after_the_crop() {
        assert_eq!(placed(0, 0, 0, true), [3, 2, 1, 6, 5, 4]);
        assert_eq!(placed(1, 1, 2, true), [0, 3, 2, 0, 6, 5]);
    }

    #[test]
    fn channels_move_together() {
        let mut out = [9; 8];
        let draw = Draw {
            dy: 1,
            dx: 0,
            flip: false,
        };
        place(&[1, 2, 3, 4, 5, 6, 7, 8], [2, 2, 2], 1, draw, &mut out);
        assert_eq!(out, [0, 1, 0, 3, 0, 5, 0, 7]);
    }

    #[test]
    fn every_crop_and_both_flips_occur() {
        let augment = Augment {
            crop_padding: 1,
            flip: true,
            ..Augment::default()
        };
        let mut seen: Vec<_> = (0..500)
            .map(|sample| drawn(&augment, 0, 0, sample))
            .map(|Draw { dy, dx, flip }| (dy, dx, flip))
            .collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 3 * 3 * 2);
    }

    #[test]
    fn draws_depend_on_seed_epoch_and_sample() {
        let augment = Augment {
            crop_padding: 10,
            flip: true,
            ..Augment::default()
        };
        let draws = |seed, epoch, first: u64| -> Vec<Draw> {
            (first..first + 8)
                .map(|sample| drawn(&augment, seed, epoch, sample))
                .collect()
        };
        assert_eq!(draws(1, 2, 0), draws(1, 2, 0));
        assert_ne!(draws(1, 2, 0), draws(2, 2, 0));
        assert_ne!(draws(1, 2, 0), draws(1, 3, 0));
        assert_ne!(draws(1, 2, 0), draws(1, 2, 8));
    }

    #[test]
    fn turning_the_flip_off_keeps_the_crops() {
        let crops = |flip| -> Vec<_> {
            let augment = Augment {
                crop_padding: 3,
                flip,
                ..Augment::default()
            };
            (0..20)
                .map(|sample| drawn(&augment, 5, 0, sample))
                .map(|draw| (draw.dy, draw.dx))
                .collect()
        };
        assert_eq!(crops(true), crops(false));
    }

    #[test]
    fn erasing_leaves_crops_and_flips_as_they_were() {
        let image: Vec<u8> = (0..=255).collect();
        let applied = |random_erasing, sample| -> Vec<u8> {
            let augment = Augment {
                crop_padding: 1,
                flip: true,
                random_erasing,
                ..Augment::default()
            };
            let mut out = vec![0; 256];
            let keyed = augment.keyed(0, 0);
            keyed.apply_small(sample, &image, [1, 16, 16], &mut out);
            out
        };
        for sample in 0..8 {
            let (without, with) = (applied(0.0, sample), applied(1.0, sample));
            let same = without.iter().zip(&with).filter(|(a, b)| a == b).count();
            assert!((256 * 6 / 10..256).contains(&same), "{sample}: {same}");
        }
    }

    #[test]
    fn parts_and_repeats_draw_other_numbers_and_part_zero_the_first() {
        let keyed = Augment::default().keyed(3, 4);
        let first = |keyed: KeyedAugment, part| unit(&mut keyed.rng(part, 5));
        let plain = unit(&mut rng(3, Stream::Augment, 4, 5));
        assert_eq!(first(keyed, Part::Small), plain);
        assert_eq!(first(keyed.repeat(0), Part::Small), plain);
        let mut seen = vec![
            first(keyed, Part::Small),
            first(keyed, Part::Crop),
            first(keyed, Part::Erasing),
            first(keyed.repeat(1), Part::Small),
            first(keyed.repeat(1), Part::Crop),
            first(keyed.repeat(u32::MAX), Part::Crop),
        ];
        seen.sort_by(f64::total_cmp);
        seen.dedup();
        assert_eq!(seen.len(), 6);
    }

    #[test]
    fn the_mean_of_the_data_fills() {
        let keyed = Augment::default().keyed(0, 0);
        assert_eq!(keyed.fill(), [128; 3]);
        let filled = keyed.filled_with_mean(&Normalization::imagenet());
        assert_eq!(filled.fill(), [124, 116, 104]);
        let grey = Normalization {
            mean: vec![0.5],
            std: vec![1.0],
        };
        assert_eq!(keyed.filled_with_mean(&grey).fill(), [128; 3]);
    }
}
