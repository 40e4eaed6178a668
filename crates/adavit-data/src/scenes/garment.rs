//! One garment: what of its picture is seen, and how it is resized.
//!
//! A pixel of the resized garment is the mean of the picture over the area that it covers. Sums are
//! integers and are rounded once, so the bytes of a scene are the same on every machine.

use crate::picture::Window;
use crate::scenes::protocol::{GARMENT_SIDE, VISIBLE};

/// A garment in the size that it has in a scene.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Garment {
    pub(super) height: usize,
    pub(super) width: usize,
    /// `(height, width)`.
    pub(super) pixels: Vec<u8>,
}

/// A pixel of the picture under a pixel of the resized one, and how much of it.
struct Share {
    pixel: usize,
    weight: u32,
}

impl Garment {
    /// Returns the part `seen` of `picture`, of `(height, width)` pixels.
    ///
    /// # Shapes
    /// `picture`: `(GARMENT_SIDE, GARMENT_SIDE)`.
    pub(super) fn resized(picture: &[u8], seen: Window, (height, width): (usize, usize)) -> Self {
        let mut across = vec![0_u32; seen.height * width];
        for column in 0..width {
            for share in shares(column, seen.width, width) {
                let start = seen.top * GARMENT_SIDE + seen.left + share.pixel;
                let from = picture[start..].iter().step_by(GARMENT_SIDE);
                let to = across[column..].iter_mut().step_by(width);
                for (to, from) in to.zip(from) {
                    *to += share.weight * u32::from(*from);
                }
            }
        }
        let mut sums = vec![0_u32; height * width];
        for (row, to) in sums.chunks_exact_mut(width).enumerate() {
            for share in shares(row, seen.height, height) {
                let from = &across[share.pixel * width..][..width];
                for (to, from) in to.iter_mut().zip(from) {
                    *to += share.weight * from;
                }
            }
        }
        let whole = (seen.height * seen.width) as u32;
        Self {
            height,
            width,
            pixels: sums
                .into_iter()
                .map(|sum| ((sum + whole / 2) / whole) as u8)
                .collect(),
        }
    }
}

/// Returns height and width of a part of a garment's picture that is resized to the side `size`.
pub(super) fn resized_to(part: Window, size: usize) -> (usize, usize) {
    let scaled = |side: usize| ((side * size + GARMENT_SIDE / 2) / GARMENT_SIDE).max(1);
    (scaled(part.height), scaled(part.width))
}

/// Returns which of `from` pixels lie under pixel `index` of `to`. Weights sum to `from`.
fn shares(index: usize, from: usize, to: usize) -> impl Iterator<Item = Share> {
    // In units of which a pixel of the picture has `to`, and a pixel of the resized one `from`.
    let (start, end) = (index * from, (index + 1) * from);
    let pixels = start / to..end.div_ceil(to);
    pixels.map(move |pixel| Share {
        pixel,
        weight: (end.min((pixel + 1) * to) - start.max(pixel * to)) as u32,
    })
}

/// Returns the smallest rectangle that holds every visible pixel of a garment's picture, if there is one.
pub(super) fn seen(picture: &[u8]) -> Option<Window> {
    let visible = |byte: &u8| *byte >= VISIBLE;
    let rows = || picture.chunks_exact(GARMENT_SIDE);
    let top = rows().position(|row| row.iter().any(visible))?;
    let bottom = rows().rposition(|row| row.iter().any(visible))?;
    let left = rows()
        .filter_map(|row| row.iter().position(visible))
        .min()?;
    let right = rows()
        .filter_map(|row| row.iter().rposition(visible))
        .max()?;
    Some(Window {
        top,
        left,
        height: bottom - top + 1,
        width: right - left + 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(pixel: impl Fn(usize, usize) -> u8) -> Vec<u8> {
        let places = (0..GARMENT_SIDE).flat_map(|y| (0..GARMENT_SIDE).map(move |x| (y, x)));
        places.map(|(y, x)| pixel(y, x)).collect()
    }

    #[test]
    fn what_is_seen_is_the_rectangle_of_the_visible_pixels() {
        let garment = picture(|y, x| match (y, x) {
            (3, 9) | (7, 5) => VISIBLE,
            _ => VISIBLE - 1,
        });
        let expected = Window {
            top: 3,
            left: 5,
            height: 5,
            width: 5,
        };
        assert_eq!(seen(&garment), Some(expected));
        assert_eq!(seen(&picture(|_, _| VISIBLE - 1)), None);
    }

    #[test]
    fn a_garment_of_its_own_size_keeps_its_pixels() {
        let whole = picture(|y, x| (16 + 7 * y + x) as u8);
        let window = seen(&whole).unwrap();
        let size = resized_to(window, GARMENT_SIDE);
        assert_eq!(size, (28, 28));
        let garment = Garment::resized(&whole, window, size);
        assert_eq!(garment.pixels, whole);
    }

    #[test]
    fn half_the_size_is_the_mean_of_four_pixels() {
        let whole = picture(|y, x| if (y % 2, x % 2) == (0, 1) { 201 } else { 20 });
        let window = Window {
            top: 4,
            left: 6,
            height: 8,
            width: 12,
        };
        let size = resized_to(window, GARMENT_SIDE / 2);
        assert_eq!(size, (4, 6));
        let garment = Garment::resized(&whole, window, size);
        // (201 + 3 * 20) / 4 = 65.25.
        assert_eq!(garment.pixels, [65; 24]);
    }

    #[test]
    fn weights_cover_the_picture_once() {
        for (from, to) in [(28, 20), (5, 30), (1, 1), (17, 13), (28, 30)] {
            let mut sums = vec![0; from];
            for index in 0..to {
                let mut sum = 0;
                for share in shares(index, from, to) {
                    sums[share.pixel] += share.weight;
                    sum += share.weight;
                }
                assert_eq!(sum as usize, from, "{index} of {from} to {to}");
            }
            assert_eq!(sums, vec![to as u32; from], "{from} to {to}");
        }
    }
}
