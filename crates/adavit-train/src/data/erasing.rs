//! Random erasing: a rectangle of the image becomes noise.
//!
//! ```text
//! area / (height width) uniform in [0.02, 1/3)     height / width log-uniform in [0.3, 1/0.3)
//! ```
//!
//! Zhong et al. 2020, "Random Erasing Data Augmentation" (arXiv 1708.04896), with the bounds and
//! the ten attempts of timm's `RandomErasing` and its mode `pixel`; the noise is uniform bytes, as
//! in the paper.

use rand::RngCore;

use crate::rng::{below, unit};

const AREA: (f64, f64) = (0.02, 1.0 / 3.0);
const ASPECT: (f64, f64) = (0.3, 1.0 / 0.3);
/// A rectangle that is longer than the image is drawn again, so often.
const ATTEMPTS: usize = 10;

/// Overwrites a rectangle of `image`, `[channels, height, width]`, with probability `probability`.
pub(super) fn erase(
    probability: f64,
    image: &mut [u8],
    [channels, height, width]: [usize; 3],
    rng: &mut impl RngCore,
) {
    if unit(rng) >= probability {
        return;
    }
    let Some((rows, columns)) = (0..ATTEMPTS).find_map(|_| sides(height, width, rng)) else {
        return;
    };
    let top = below(rng, (height - rows + 1) as u64) as usize;
    let left = below(rng, (width - columns + 1) as u64) as usize;
    for c in 0..channels {
        for y in top..top + rows {
            rng.fill_bytes(&mut image[(c * height + y) * width + left..][..columns]);
        }
    }
}

/// The sides of a rectangle, unless one of them is longer than the image's.
fn sides(height: usize, width: usize, rng: &mut impl RngCore) -> Option<(usize, usize)> {
    let between = |(low, high): (f64, f64), share: f64| low + share * (high - low);
    let area = between(AREA, unit(rng)) * (height * width) as f64;
    let aspect = between((ASPECT.0.ln(), ASPECT.1.ln()), unit(rng)).exp();
    let (rows, columns) = (
        (area * aspect).sqrt().round(),
        (area / aspect).sqrt().round(),
    );
    let fits = (1.0..=height as f64).contains(&rows) && (1.0..=width as f64).contains(&columns);
    fits.then_some((rows as usize, columns as usize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Stream, rng};

    const DIMS: [usize; 3] = [2, 20, 30];

    /// An image of 7s erased with certainty, as one `bool` for each pixel of each channel.
    fn erased(sample: u64) -> Vec<bool> {
        let mut image = vec![7; DIMS.iter().product()];
        erase(
            1.0,
            &mut image,
            DIMS,
            &mut rng(0, Stream::Augment, 0, sample),
        );
        image.into_iter().map(|x| x != 7).collect()
    }

    #[test]
    fn what_is_erased_is_one_rectangle_of_the_stated_area_in_every_channel() {
        for sample in 0..50 {
            let changed = erased(sample);
            let at = |y: usize, x: usize| (0..2).any(|c| changed[(c * 20 + y) * 30 + x]);
            let rows: Vec<_> = (0..20).filter(|&y| (0..30).any(|x| at(y, x))).collect();
            let columns: Vec<_> = (0..30).filter(|&x| (0..20).any(|y| at(y, x))).collect();
            let (height, width) = (
                rows[rows.len() - 1] - rows[0] + 1,
                columns[columns.len() - 1] - columns[0] + 1,
            );
            let share = (height * width) as f64 / 600.0;
            // Sides are rounded to whole pixels, and noise is 7 in one pixel of 256.
            assert!((0.01..0.36).contains(&share), "{sample}: {share}");
            let inside = changed.iter().filter(|&&x| x).count();
            assert!(inside * 10 >= height * width * 2 * 9, "{sample}: {inside}");
        }
    }

    #[test]
    fn the_rate_is_the_probability() {
        let mut often = 0;
        for sample in 0..2000 {
            let mut image = vec![7; 600];
            let mut rng = rng(1, Stream::Augment, 0, sample);
            erase(0.25, &mut image, [1, 20, 30], &mut rng);
            often += usize::from(image.iter().any(|&x| x != 7));
        }
        // Within four standard deviations of 500.
        assert!((422..=578).contains(&often), "{often}");
    }

    #[test]
    fn places_differ_from_sample_to_sample_and_are_drawn_again_the_same() {
        assert_eq!(erased(3), erased(3));
        assert_ne!(erased(3), erased(4));
    }

    #[test]
    fn an_image_of_one_pixel_is_left_or_erased_without_a_panic() {
        for sample in 0..20 {
            let mut rng = rng(2, Stream::Augment, 0, sample);
            erase(1.0, &mut [7], [1, 1, 1], &mut rng);
        }
    }
}
