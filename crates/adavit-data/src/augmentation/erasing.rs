//! Random erasing: a rectangle of the image becomes noise.
//!
//! ```text
//! area / (height width) uniform in [0.02, 1/3)     height / width log-uniform in [0.3, 1/0.3)
//! ```
//!
//! Zhong et al. 2020, "Random Erasing Data Augmentation" (arXiv 1708.04896), with uniform bytes as
//! in the paper, and the ranges and the ten attempts of timm's `RandomErasing`. A side may be as
//! long as the image's.

use rand::RngCore;

use crate::rng::{below, unit};

const AREA_RATIO: (f64, f64) = (0.02, 1.0 / 3.0);
const ASPECT_RATIO: (f64, f64) = (0.3, 1.0 / 0.3);
/// How often a rectangle is drawn that does not fit into the image or has no pixels.
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

/// The sides of a rectangle, if it has pixels and fits into the image.
fn sides(height: usize, width: usize, rng: &mut impl RngCore) -> Option<(usize, usize)> {
    let lerp = |(low, high): (f64, f64), share: f64| low + share * (high - low);
    let area = lerp(AREA_RATIO, unit(rng)) * (height * width) as f64;
    let aspect = lerp((ASPECT_RATIO.0.ln(), ASPECT_RATIO.1.ln()), unit(rng)).exp();
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

    /// An image of 7s after [`erase`].
    fn erased(probability: f64, dims: [usize; 3], sample: u64) -> Vec<u8> {
        let mut image = vec![7; dims.iter().product()];
        let mut rng = rng(1, Stream::Augment, 0, sample);
        erase(probability, &mut image, dims, &mut rng);
        image
    }

    /// The sides of the rectangle that holds every pixel that is not 7 in some channel.
    fn rectangle(image: &[u8]) -> (usize, usize) {
        let at = |y: usize, x: usize| (0..2).any(|c| image[(c * 20 + y) * 30 + x] != 7);
        let length = |changed: Vec<usize>| {
            let last = changed.last().expect("something is erased");
            last - changed[0] + 1
        };
        let rows = (0..20).filter(|&y| (0..30).any(|x| at(y, x))).collect();
        let columns = (0..30).filter(|&x| (0..20).any(|y| at(y, x))).collect();
        (length(rows), length(columns))
    }

    #[test]
    fn what_is_erased_is_a_rectangle_of_noise_in_every_channel() {
        let (mut tall, mut wide) = (0, 0);
        for sample in 0..50 {
            let image = erased(1.0, DIMS, sample);
            let (height, width) = rectangle(&image);
            // Sides are rounded to whole pixels: 3 x 3 of the smallest area, 9 x 24 of the largest.
            let share = (height * width) as f64 / 600.0;
            assert!((0.01..=0.36).contains(&share), "{sample}: {share}");
            for channel in image.chunks(600) {
                let noise = channel.iter().filter(|&&x| x != 7).count();
                // Noise is 7 in one pixel of 256.
                assert!(noise * 10 >= height * width * 9 - 10, "{sample}: {noise}");
                let mut values = channel.to_vec();
                values.sort_unstable();
                values.dedup();
                assert!(
                    values.len() > noise / 4,
                    "{sample}: {} values",
                    values.len()
                );
            }
            assert_ne!(image[..600], image[600..], "{sample}");
            tall += usize::from(height > 2 * width);
            wide += usize::from(width > 2 * height);
        }
        assert!(tall > 0 && wide > 0, "{tall} tall, {wide} wide");
    }

    #[test]
    fn the_rate_is_the_probability() {
        let often = (0..2000)
            .filter(|sample| erased(0.25, DIMS, *sample).iter().any(|&x| x != 7))
            .count();
        // Within four standard deviations of 500.
        assert!((422..=578).contains(&often), "{often}");
    }

    #[test]
    fn places_differ_from_sample_to_sample_and_are_drawn_again_the_same() {
        assert_eq!(erased(1.0, DIMS, 3), erased(1.0, DIMS, 3));
        assert_ne!(erased(1.0, DIMS, 3), erased(1.0, DIMS, 4));
    }

    #[test]
    fn flat_images_are_erased_where_a_rectangle_fits() {
        let changed = |dims| {
            let erased = (0..200).map(|sample| erased(1.0, dims, sample));
            erased.filter(|image| image.iter().any(|&x| x != 7)).count()
        };
        assert!((1..200).contains(&changed([1, 2, 50])));
        // The least area is 15.7 pixels, of which no aspect ratio makes one row.
        assert_eq!(changed([1, 1, 784]), 0);
    }
}
