//! torchvision's Gaussian blur, which timm's `gaussian_blur_prob` uses: a kernel of 23 pixels.
//!
//! ```text
//! k(x) ~ exp(-x^2 / (2 sigma^2)), x = -11..=11, sums to 1; behind the border the picture is mirrored
//! ```
//!
//! The kernel is separable and runs across, then down, in f32; torchvision multiplies by the 23x23
//! kernel at once, so a byte may differ by 1.

use crate::augmentation::mirror::mirrored;
use crate::picture::Picture;

const RADIUS: usize = 11;
const SIZE: usize = 2 * RADIUS + 1;

/// Blurs with the standard deviation `sigma`, in pixels; what is not above 0 leaves the picture.
pub(super) fn gaussian(picture: &mut Picture, sigma: f64) {
    if sigma.is_nan() || sigma <= 0.0 {
        return;
    }
    let kernel = kernel(sigma as f32);
    let (height, width) = picture.size();
    let channels = picture.channels();
    let row = width * channels;
    let across = blurred_rows(picture, &kernel);
    let mut sums = vec![0.0_f32; row];
    for (y, out) in picture.bytes_mut().chunks_exact_mut(row).enumerate() {
        sums.fill(0.0);
        for (tap, weight) in kernel.iter().enumerate() {
            let source = &across[mirrored(y + tap, RADIUS, height) * row..][..row];
            for (sum, value) in sums.iter_mut().zip(source) {
                *sum += weight * value;
            }
        }
        for (byte, sum) in out.iter_mut().zip(&sums) {
            *byte = sum.round_ties_even() as u8;
        }
    }
}

fn blurred_rows(picture: &Picture, kernel: &[f32; SIZE]) -> Vec<f32> {
    let (_, width) = picture.size();
    let channels = picture.channels();
    let row = width * channels;
    let mut blurred = vec![0.0_f32; picture.bytes().len()];
    let mut wide = Vec::with_capacity((width + 2 * RADIUS) * channels);
    let rows = blurred.chunks_exact_mut(row);
    for (out, source) in rows.zip(picture.bytes().chunks_exact(row)) {
        wide.clear();
        for x in 0..width + 2 * RADIUS {
            let first = mirrored(x, RADIUS, width) * channels;
            wide.extend(
                source[first..first + channels]
                    .iter()
                    .map(|&b| f32::from(b)),
            );
        }
        for (tap, weight) in kernel.iter().enumerate() {
            for (sum, value) in out.iter_mut().zip(&wide[tap * channels..]) {
                *sum += weight * value;
            }
        }
    }
    blurred
}

fn kernel(sigma: f32) -> [f32; SIZE] {
    let weights: [f32; SIZE] = std::array::from_fn(|tap| {
        let x = (tap as f32 - RADIUS as f32) / sigma;
        (-0.5 * x * x).exp()
    });
    let sum: f32 = weights.iter().sum();
    weights.map(|weight| weight / sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_picture_stays_as_it_is() {
        let mut picture = Picture::new(3, (2, 3), vec![77; 18]).unwrap();
        gaussian(&mut picture, 1.3);
        assert!(picture.bytes().iter().all(|&byte| byte == 77));
    }
}
