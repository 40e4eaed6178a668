//! Operations that blend a picture with a poorer one, as Pillow's `ImageEnhance`.
//!
//! ```text
//! out = poor + factor (picture - poor)        0: the poor picture, 1: as it is, above: more
//! ```
//!
//! The poor picture is grey (colour), the mean grey (contrast), black (brightness) or smoothed
//! (sharpness). Arithmetic is in f32 and truncates, so results are Pillow's to the last bit.

use super::table::{self, Table};
use crate::picture::{Picture, luma};

/// `poor + factor (byte - poor)`, truncated to a byte.
#[inline]
pub(super) fn blend(poor: u8, byte: u8, factor: f32) -> u8 {
    let (from, to) = (f32::from(poor), f32::from(byte));
    // A conversion from float to byte truncates and saturates.
    (from + factor * (to - from)) as u8
}

/// The blend of a constant with each byte, as Pillow's `Image.blend(constant, byte, factor)`.
fn blend_with(constant: u8, factor: f64) -> Table {
    let factor = factor as f32;
    std::array::from_fn(|byte| blend(constant, byte as u8, factor))
}

/// Blends with the grey picture; a picture of one channel is grey already.
pub(super) fn color(picture: &mut Picture, factor: f64) {
    if picture.channels() != 3 || factor == 1.0 {
        return;
    }
    let factor = factor as f32;
    for [r, g, b] in picture.bytes_mut().as_chunks_mut::<3>().0 {
        let grey = luma(*r, *g, *b);
        *r = blend(grey, *r, factor);
        *g = blend(grey, *g, factor);
        *b = blend(grey, *b, factor);
    }
}

/// Blends with the mean grey.
pub(super) fn contrast(picture: &mut Picture, factor: f64) {
    let mean = mean_luma(picture);
    table::apply(picture, &blend_with(mean, factor));
}

/// Blends with black.
pub(super) fn brightness(picture: &mut Picture, factor: f64) {
    table::apply(picture, &blend_with(0, factor));
}

/// Blends with the smoothed picture: 3x3 pixels, the centre of weight 5/13, the others 1/13. Pixels at
/// the border are as they were.
pub(super) fn sharpness(picture: &mut Picture, factor: f64) {
    let (height, width) = picture.size();
    let channels = picture.channels();
    if factor == 1.0 || height < 3 || width < 3 {
        return;
    }
    let factor = factor as f32;
    let row = width * channels;
    let before = picture.bytes().to_vec();
    let inner = row - 2 * channels;
    for y in 1..height - 1 {
        let rows = [y - 1, y, y + 1].map(|y| &before[y * row..(y + 1) * row]);
        let parts = rows.map(|row| {
            [
                &row[..inner],
                &row[channels..][..inner],
                &row[2 * channels..][..inner],
            ]
        });
        let out = &mut picture.bytes_mut()[y * row + channels..][..inner];
        smooth_row(&parts, factor, out);
    }
}

/// Blends a row with its smoothed one. `parts`: the rows above, at and below, each seen from one pixel to
/// the left, at, and one to the right.
fn smooth_row([above, at, below]: &[[&[u8]; 3]; 3], factor: f32, out: &mut [u8]) {
    const SIDE: f32 = 1.0 / 13.0;
    const CENTER: f32 = 5.0 / 13.0;
    let n = out.len();
    let sum = |row: &[&[u8]; 3], i: usize, center: f32| {
        f32::from(row[0][i]) * SIDE + f32::from(row[1][i]) * center + f32::from(row[2][i]) * SIDE
    };
    let [above, at, below] = [above, at, below].map(|row| row.map(|part| &part[..n]));
    for i in 0..n {
        // In this order, since the last bit depends on it.
        let smooth = 0.5 + sum(&below, i, SIDE) + sum(&at, i, CENTER) + sum(&above, i, SIDE);
        out[i] = blend(smooth as u8, at[1][i], factor);
    }
}

fn mean_luma(picture: &Picture) -> u8 {
    let bytes = picture.bytes();
    let sum: u64 = match picture.channels() {
        3 => {
            let pixels = bytes.as_chunks::<3>().0.iter();
            pixels.map(|&[r, g, b]| u64::from(luma(r, g, b))).sum()
        }
        _ => bytes.iter().map(|&byte| u64::from(byte)).sum(),
    };
    let count = bytes.len() / picture.channels();
    (sum as f64 / count as f64 + 0.5) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(channels: usize) -> Picture {
        let bytes = (0..5 * 4 * channels).map(|i| (i * 37 % 251) as u8);
        Picture::new(channels, (5, 4), bytes.collect()).unwrap()
    }

    #[test]
    fn factor_one_leaves_the_picture() {
        for channels in [1, 3] {
            for op in [color, contrast, brightness, sharpness] {
                let mut changed = picture(channels);
                op(&mut changed, 1.0);
                assert_eq!(changed, picture(channels));
            }
        }
    }

    #[test]
    fn factor_zero_is_the_poor_picture() {
        let mut grey = picture(3);
        color(&mut grey, 0.0);
        let mut pixels = grey.bytes().as_chunks::<3>().0.iter();
        assert!(pixels.all(|[r, g, b]| r == g && g == b));
        let mut black = picture(3);
        brightness(&mut black, 0.0);
        assert!(black.bytes().iter().all(|&byte| byte == 0));
        let mut flat = picture(1);
        contrast(&mut flat, 0.0);
        assert!(flat.bytes().iter().all(|&byte| byte == flat.bytes()[0]));
    }

    #[test]
    fn pictures_without_an_inside_keep_their_sharpness() {
        let mut thin = Picture::new(1, (2, 5), (0..10).collect()).unwrap();
        let before = thin.clone();
        sharpness(&mut thin, 0.1);
        assert_eq!(thin, before);
    }
}
