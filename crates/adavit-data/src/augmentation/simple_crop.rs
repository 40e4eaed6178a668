//! The crop of DeiT III's `src`: nearly the whole picture, moved by a few pixels.
//!
//! ```text
//! resize the shorter side to the size -> 4 mirrored pixels on every side -> random window
//! ```
//!
//! Touvron et al. 2022, "DeiT III: Revenge of the ViT" (arXiv 2204.07118).

use rand::RngCore;

use crate::augmentation::distributions::up_to;
use crate::augmentation::interpolation::TrainInterpolation;
use crate::augmentation::mirror::mirrored;
use crate::error::Result;
use crate::picture::{Picture, check_size};
use crate::preprocessing::Preprocessing;

const PADDING: usize = 4;

/// The simple random crop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SimpleRandomCrop {
    /// The filter that resizes; DeiT III is bicubic, which is also what `Random` means here.
    pub interpolation: TrainInterpolation,
}

impl SimpleRandomCrop {
    /// Returns a window of `size`, height and width, of the resized and padded `picture`.
    ///
    /// # Errors
    /// If a side of `size` is 0, or the picture is so long and thin that it would be resized to too
    /// many pixels.
    pub fn apply(
        &self,
        picture: Picture,
        size: (usize, usize),
        rng: &mut impl RngCore,
    ) -> Result<Picture> {
        check_size(size)?;
        let covering = Preprocessing {
            interpolation: self.interpolation.fixed(),
            crop_pct: 1.0,
            ..Preprocessing::default()
        };
        let resized = covering.resized(picture, size)?;
        let (height, width) = resized.size();
        let top = up_to(rng, height + 2 * PADDING - size.0);
        let left = up_to(rng, width + 2 * PADDING - size.1);
        Ok(padded_window(&resized, (top, left), size))
    }
}

/// The window at `(top, left)` of the padded picture.
fn padded_window(
    picture: &Picture,
    (top, left): (usize, usize),
    (rows, columns): (usize, usize),
) -> Picture {
    let (height, width) = picture.size();
    let channels = picture.channels();
    let source = |x: usize| mirrored(left + x, PADDING, width) * channels;
    let sources: Vec<usize> = (0..columns).map(source).collect();
    let mut bytes = Vec::with_capacity(rows * columns * channels);
    for y in 0..rows {
        let row = mirrored(top + y, PADDING, height) * width * channels;
        for x in &sources {
            bytes.extend_from_slice(&picture.bytes()[row + x..][..channels]);
        }
    }
    picture.with_pixels((rows, columns), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Stream, rng};

    #[test]
    fn windows_move_by_at_most_the_padding() {
        let picture = Picture::new(1, (8, 8), (0..64).collect()).unwrap();
        let mut rng = rng(0, Stream::Augment, 0, 0);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..2_000 {
            let crop = SimpleRandomCrop::default();
            let cropped = crop.apply(picture.clone(), (8, 8), &mut rng).unwrap();
            assert_eq!(cropped.size(), (8, 8));
            seen.insert(cropped.bytes().to_vec());
        }
        assert_eq!(seen.len(), 9 * 9);
        assert!(seen.contains(picture.bytes()));
    }

    #[test]
    fn the_border_is_mirrored() {
        let picture = Picture::new(1, (1, 6), (0..6).collect()).unwrap();
        let window = padded_window(&picture, (4, 0), (1, 6));
        assert_eq!(window.bytes(), [4, 3, 2, 1, 0, 1]);
    }

    #[test]
    fn the_shorter_side_becomes_the_size() {
        let picture = Picture::new(3, (20, 40), vec![9; 2400]).unwrap();
        let mut rng = rng(0, Stream::Augment, 0, 0);
        for size in [(10, 10), (1, 1), (6, 3)] {
            let crop = SimpleRandomCrop::default();
            let cropped = crop.apply(picture.clone(), size, &mut rng).unwrap();
            assert_eq!(cropped.size(), size);
        }
        assert!(
            SimpleRandomCrop::default()
                .apply(picture, (0, 4), &mut rng)
                .is_err()
        );
    }
}
