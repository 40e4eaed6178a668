//! Pillow's Gaussian blur: three box blurs in each direction, of a radius with a fraction.
//!
//! ```text
//! L = sqrt(12 sigma^2 / 3 + 1)     l = floor((L - 1) / 2)     radius = l + fraction
//! ```
//!
//! Gwosdek et al. 2011, "Theoretical foundations of Gaussian convolution by extended box filtering".
//! Weights are 8.24 fixed point, as Pillow's, so results are its own to the last bit.

use crate::picture::Picture;

const PASSES: usize = 3;
/// The largest deviation, in pixels: no picture can tell a larger one from it.
const MOST_SIGMA: f64 = 1e5;

/// The weights of a box: `bulk` of each of 2 `radius` + 1 pixels, `edge` of the two next to them.
#[derive(Debug, Clone, Copy)]
struct Kernel {
    radius: usize,
    bulk: u32,
    edge: u32,
}

/// Blurs with the standard deviation `sigma`, in pixels; what is not above 0 leaves the picture.
pub(super) fn gaussian(picture: &mut Picture, sigma: f64) {
    if sigma.is_nan() || sigma <= 0.0 {
        return;
    }
    let kernel = Kernel::gaussian(sigma.min(MOST_SIGMA) as f32);
    match picture.channels() {
        3 => blur::<3>(picture, kernel),
        _ => blur::<1>(picture, kernel),
    }
}

impl Kernel {
    fn gaussian(sigma: f32) -> Self {
        let variance = sigma * sigma / PASSES as f32;
        let length = (12.0 * f64::from(variance) + 1.0).sqrt() as f32;
        let whole = ((f64::from(length) - 1.0) / 2.0).floor() as f32;
        let mut fraction = (2.0 * whole + 1.0) * (whole * (whole + 1.0) - 3.0 * variance);
        fraction /= 6.0 * (variance - (whole + 1.0) * (whole + 1.0));
        let radius = whole + fraction;
        let bulk = (16_777_216.0 / (radius * 2.0 + 1.0)) as u32;
        let pixels = 2 * u64::from(radius as u32) + 1;
        Self {
            radius: radius as usize,
            bulk,
            edge: ((1 << 24) - pixels * u64::from(bulk)) as u32 / 2,
        }
    }
}

fn blur<const C: usize>(picture: &mut Picture, kernel: Kernel) {
    let (height, width) = picture.size();
    let pixels = picture.bytes_mut().as_chunks_mut::<C>().0;
    let mut other = vec![[0; C]; pixels.len()];
    blur_lines(pixels, &mut other, width, kernel);
    transpose(pixels, &mut other, (height, width));
    blur_lines(&mut other, pixels, height, kernel);
    transpose(&other, pixels, (width, height));
}

/// Blurs `pixels` along lines of `length` pixels; `spare` is overwritten.
fn blur_lines<const C: usize>(
    pixels: &mut [[u8; C]],
    spare: &mut [[u8; C]],
    length: usize,
    kernel: Kernel,
) {
    let lines = pixels.chunks_exact_mut(length);
    for (line, spare) in lines.zip(spare.chunks_exact_mut(length)) {
        blur_line(line, spare, kernel);
        blur_line(spare, line, kernel);
        blur_line(line, spare, kernel);
        line.copy_from_slice(spare);
    }
}

fn blur_line<const C: usize>(from: &[[u8; C]], to: &mut [[u8; C]], kernel: Kernel) {
    let last = from.len() - 1;
    let radius = kernel.radius;
    // The sum of the pixels around that before the first.
    let mut sum: [u32; C] = from[0].map(|byte| u32::from(byte) * (radius as u32 + 1));
    for x in 0..radius {
        let pixel = from[x.min(last)];
        add(&mut sum, pixel);
    }
    for (x, out) in to.iter_mut().enumerate() {
        let leaving = from[x.saturating_sub(radius + 1)];
        add(&mut sum, from[(x + radius).min(last)]);
        let next = from[(x + radius + 1).min(last)];
        for c in 0..C {
            sum[c] -= u32::from(leaving[c]);
            let edges = u32::from(leaving[c]) + u32::from(next[c]);
            let total = sum[c] * kernel.bulk + edges * kernel.edge;
            out[c] = ((total + (1 << 23)) >> 24) as u8;
        }
    }
}

#[inline]
fn add<const C: usize>(sum: &mut [u32; C], pixel: [u8; C]) {
    for (sum, byte) in sum.iter_mut().zip(pixel) {
        *sum += u32::from(byte);
    }
}

/// `from`: `(height, width)` -> `to`: `(width, height)`.
fn transpose<const C: usize>(
    from: &[[u8; C]],
    to: &mut [[u8; C]],
    (height, width): (usize, usize),
) {
    for (y, row) in from.chunks_exact(width).enumerate() {
        for (pixel, out) in row.iter().zip(to[y..].iter_mut().step_by(height)) {
            *out = *pixel;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_picture_stays_as_it_is() {
        for (sigma, size) in [(0.1, (1, 1)), (2.0, (3, 2)), (50.0, (5, 4))] {
            for value in [0, 100, 255] {
                let mut picture = Picture::new(1, size, vec![value; size.0 * size.1]).unwrap();
                gaussian(&mut picture, sigma);
                assert!(picture.bytes().iter().all(|&byte| byte == value), "{sigma}");
            }
        }
    }

    #[test]
    fn a_point_spreads_over_its_deviation() {
        let mut picture = Picture::new(1, (1, 41), vec![0; 41]).unwrap();
        picture.bytes_mut()[20] = 255;
        gaussian(&mut picture, 2.0);
        let bytes = picture.bytes();
        let sum: f64 = bytes.iter().map(|&byte| f64::from(byte)).sum();
        let square = |(x, &byte): (usize, &u8)| (x as f64 - 20.0).powi(2) * f64::from(byte);
        let variance = bytes.iter().enumerate().map(square).sum::<f64>() / sum;
        // Bytes are rounded, so the tails are missing.
        assert!((3.2..4.2).contains(&variance), "{variance}");
    }
}
