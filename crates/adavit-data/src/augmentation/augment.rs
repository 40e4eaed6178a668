//! Random crop, horizontal flip and random erasing of raw images.
//!
//! ```text
//! out[y][x] = image[y + dy - p][x + dx - p], 0 outside     dy, dx uniform in 0..=2p
//! then columns are reversed with probability 1/2
//! ```
//!
//! The image is padded with `p` zero pixels on every side and a window of its own size is cut out.
//! What is drawn depends on (seed, epoch, sample) only, never on the place in a batch.

use rand::RngCore;
use serde::{Deserialize, Serialize};

use crate::augmentation::erasing::erase;
use crate::error::{Error, Result};
use crate::rng::{Stream, below, rng};

/// How training images are varied; the default changes nothing.
///
/// Turning one variation off leaves the draws of the others as they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augment {
    /// Zero pixels added on every side before a random crop of the original size.
    pub crop_padding: usize,
    /// Whether half of the images are mirrored left to right.
    pub flip: bool,
    /// Probability that a rectangle of the image is overwritten by uniform random bytes (Zhong et
    /// al. 2020; bounds as timm's `reprob`), in [0, 1].
    pub random_erasing: f64,
}

/// An [`Augment`] for one epoch of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KeyedAugment {
    augment: Augment,
    seed: u64,
    epoch: u64,
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
        }
    }

    /// Checks the augmentation against the size of the images.
    ///
    /// # Errors
    /// [`Error::Setting`] if a crop could lose the whole image, or if a probability is not one.
    pub fn validate(&self, [_, height, width]: [usize; 3]) -> Result<()> {
        if self.crop_padding >= height.min(width) {
            return Err(Error::Setting(format!(
                "augment.crop_padding: expected less than a side of the images, {height}x{width}, found {}",
                self.crop_padding
            )));
        }
        self.validate_probabilities()
    }

    /// Checks what does not depend on the size of the images.
    ///
    /// # Errors
    /// [`Error::Setting`] if a probability is outside of [0, 1].
    pub fn validate_probabilities(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.random_erasing) {
            return Err(Error::Setting(format!(
                "augment.random_erasing: expected a probability in [0, 1], found {}",
                self.random_erasing
            )));
        }
        Ok(())
    }
}

impl KeyedAugment {
    pub(crate) fn validate(&self, dims: [usize; 3]) -> Result<()> {
        self.augment.validate(dims)
    }

    /// Writes the augmented `image`, `dims` = `[channels, height, width]`, into `out`.
    pub(crate) fn apply(&self, sample: u64, image: &[u8], dims: [usize; 3], out: &mut [u8]) {
        let mut rng = rng(self.seed, Stream::Augment, self.epoch, sample);
        let draw = self.draw(&mut rng);
        place(image, dims, self.augment.crop_padding, draw, out);
        erase(self.augment.random_erasing, out, dims, &mut rng);
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

    const DIMS: [usize; 3] = [1, 2, 3];
    const IMAGE: [u8; 6] = [1, 2, 3, 4, 5, 6];

    fn drawn(augment: Augment, seed: u64, epoch: u64, sample: u64) -> Draw {
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
            .map(|sample| drawn(augment, 0, 0, sample))
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
                .map(|sample| drawn(augment, seed, epoch, sample))
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
                .map(|sample| drawn(augment, 5, 0, sample))
                .map(|draw| (draw.dy, draw.dx))
                .collect()
        };
        assert_eq!(crops(true), crops(false));
    }

    #[test]
    fn padding_that_could_lose_the_image_is_refused() {
        let augment = |crop_padding| Augment {
            crop_padding,
            ..Augment::default()
        };
        assert!(augment(1).validate(DIMS).is_ok());
        assert!(augment(2).validate(DIMS).is_err());
        assert!(augment(usize::MAX).validate(DIMS).is_err());
    }

    #[test]
    fn erasing_leaves_crops_and_flips_as_they_were() {
        let image: Vec<u8> = (0..=255).collect();
        let applied = |random_erasing, sample| -> Vec<u8> {
            let augment = Augment {
                crop_padding: 1,
                flip: true,
                random_erasing,
            };
            let mut out = vec![0; 256];
            let keyed = augment.keyed(0, 0);
            keyed.apply(sample, &image, [1, 16, 16], &mut out);
            out
        };
        for sample in 0..8 {
            let (without, with) = (applied(0.0, sample), applied(1.0, sample));
            let same = without.iter().zip(&with).filter(|(a, b)| a == b).count();
            assert!((256 * 6 / 10..256).contains(&same), "{sample}: {same}");
        }
    }

    #[test]
    fn what_is_no_probability_is_refused() {
        for random_erasing in [-0.1, 1.1, f64::NAN] {
            let augment = Augment {
                random_erasing,
                ..Augment::default()
            };
            assert!(augment.validate(DIMS).is_err(), "{random_erasing}");
        }
    }
}
