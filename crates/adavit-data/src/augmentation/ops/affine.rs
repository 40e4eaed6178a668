//! Affine maps of a picture onto itself, as Pillow's `Image.transform`.
//!
//! ```text
//! out[y][x] = picture at (a (x + 1/2) + b (y + 1/2) + c, d (x + 1/2) + e (y + 1/2) + f)
//! ```
//!
//! What lies outside of the picture is filled. Arithmetic is Pillow's (16.16 fixed point for the nearest
//! pixel, f64 otherwise, truncated to bytes), so results are its own to the last bit.

use super::sample::{self, Fill, Source};
use crate::picture::Picture;

/// How the value between pixels is found. Unlike [`Interpolation`](crate::Interpolation), nothing is
/// widened where the picture shrinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// The nearest pixel.
    Nearest,
    /// Linear between 2x2 pixels.
    Bilinear,
    /// Cubic, a = -1, between 4x4 pixels.
    Bicubic,
}

/// How an affine operation samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    /// The filter.
    pub filter: Filter,
    /// The colour outside of the picture; a grey picture takes the first.
    pub fill: [u8; 3],
}

/// The map `[a, b, c, d, e, f]` from a pixel of the result to a place in the picture.
pub(super) type Matrix = [f64; 6];

/// The matrix that turns a picture of `(height, width)` counter-clockwise around its centre.
pub(super) fn rotation(degrees: f64, (height, width): (usize, usize)) -> Matrix {
    // Pillow rounds to 15 digits, so that a quarter turn has exact zeros.
    let digits = |x: f64| (x * 1e15).round_ties_even() / 1e15;
    let angle = -degrees.to_radians();
    let (sin, cos) = (digits(angle.sin()), digits(angle.cos()));
    let (x, y) = (width as f64 / 2.0, height as f64 / 2.0);
    let (c, f) = (cos * -x + sin * -y, -sin * -x + cos * -y);
    [cos, sin, c + x, -sin, cos, f + y]
}

/// Returns the mapped picture, of the same size.
pub(super) fn transform(picture: &Picture, matrix: &Matrix, sampling: Sampling) -> Picture {
    let mut out = picture.clone();
    match picture.channels() {
        3 => transform_bytes::<3>(picture, matrix, sampling, out.bytes_mut()),
        _ => transform_bytes::<1>(picture, matrix, sampling, out.bytes_mut()),
    }
    out
}

fn transform_bytes<const C: usize>(
    picture: &Picture,
    matrix: &Matrix,
    sampling: Sampling,
    out: &mut [u8],
) {
    let source = Source::<C>::new(picture);
    let out = out.as_chunks_mut::<C>().0;
    let fill: Fill<C> = std::array::from_fn(|channel| sampling.fill[channel.min(2)]);
    match sampling.filter {
        Filter::Nearest if matrix[1] == 0.0 && matrix[3] == 0.0 => {
            scale_nearest(&source, matrix, fill, out);
        }
        Filter::Nearest => fixed_nearest(&source, matrix, fill, out),
        Filter::Bilinear => sampled(&source, matrix, fill, out, sample::bilinear),
        Filter::Bicubic => sampled(&source, matrix, fill, out, sample::bicubic),
    }
}

/// Rows and columns on their own: the places are added up, as Pillow does.
fn scale_nearest<const C: usize>(
    source: &Source<C>,
    matrix: &Matrix,
    fill: Fill<C>,
    out: &mut [[u8; C]],
) {
    let places = |first: f64, step: f64, count: usize| -> Vec<f64> {
        std::iter::successors(Some(first), |place| Some(place + step))
            .take(count)
            .collect()
    };
    let across = places(matrix[2] + matrix[0] * 0.5, matrix[0], source.width);
    let down = places(matrix[5] + matrix[4] * 0.5, matrix[4], source.height);
    for (row, &y) in out.chunks_exact_mut(source.width).zip(&down) {
        for (pixel, &x) in row.iter_mut().zip(&across) {
            let inside = x >= 0.0 && y >= 0.0;
            let found = inside.then(|| source.get(y as usize, x as usize)).flatten();
            *pixel = found.unwrap_or(fill);
        }
    }
}

fn fixed_nearest<const C: usize>(
    source: &Source<C>,
    matrix: &Matrix,
    fill: Fill<C>,
    out: &mut [[u8; C]],
) {
    // The limit is far outside of any picture, and leaves room for the sums.
    let limit = (1_i64 << 40) as f64;
    let fixed = |value: f64| (value * 65_536.0 + 0.5).floor().clamp(-limit, limit) as i64;
    let [a, b, c, d, e, f] = *matrix;
    let (right, down) = ((fixed(a), fixed(d)), (fixed(b), fixed(e)));
    let mut first = (fixed(c + a * 0.5 + b * 0.5), fixed(f + d * 0.5 + e * 0.5));
    for row in out.chunks_exact_mut(source.width) {
        let (mut x, mut y) = first;
        for pixel in row {
            let place = usize::try_from(y >> 16)
                .ok()
                .zip(usize::try_from(x >> 16).ok());
            let found = place.and_then(|(y, x)| source.get(y, x));
            *pixel = found.unwrap_or(fill);
            x += right.0;
            y += right.1;
        }
        first = (first.0 + down.0, first.1 + down.1);
    }
}

fn sampled<const C: usize>(
    source: &Source<C>,
    matrix: &Matrix,
    fill: Fill<C>,
    out: &mut [[u8; C]],
    sample: impl Fn(&Source<C>, f64, f64) -> [u8; C],
) {
    let [a, b, c, d, e, f] = *matrix;
    let (height, width) = (source.height as f64, source.width as f64);
    for (y, row) in out.chunks_exact_mut(source.width).enumerate() {
        let yin = y as f64 + 0.5;
        for (x, pixel) in row.iter_mut().enumerate() {
            let xin = x as f64 + 0.5;
            let (px, py) = (a * xin + b * yin + c, d * xin + e * yin + f);
            let inside = px >= 0.0 && px < width && py >= 0.0 && py < height;
            *pixel = if inside { sample(source, py, px) } else { fill };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Matrix = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0];

    fn picture(channels: usize, size: (usize, usize)) -> Picture {
        let bytes = (0..size.0 * size.1 * channels).map(|i| (i * 73 % 256) as u8);
        Picture::new(channels, size, bytes.collect()).unwrap()
    }

    fn sampling(filter: Filter) -> Sampling {
        Sampling {
            filter,
            fill: [1, 2, 3],
        }
    }

    #[test]
    fn the_identity_leaves_every_picture() {
        for filter in [Filter::Nearest, Filter::Bilinear, Filter::Bicubic] {
            for channels in [1, 3] {
                for size in [(1, 1), (1, 5), (4, 1), (5, 7)] {
                    let picture = picture(channels, size);
                    let same = transform(&picture, &IDENTITY, sampling(filter));
                    assert_eq!(same, picture, "{filter:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_far_outside_is_filled() {
        for filter in [Filter::Nearest, Filter::Bilinear, Filter::Bicubic] {
            let far = [1.0, 0.0, 1e9, 0.0, 1.0, -1e300];
            let filled = transform(&picture(3, (2, 2)), &far, sampling(filter));
            assert_eq!(filled.bytes(), [1, 2, 3].repeat(4));
            let filled = transform(&picture(1, (2, 2)), &far, sampling(filter));
            assert_eq!(filled.bytes(), [1; 4]);
        }
    }

    #[test]
    fn a_quarter_turn_of_a_square_moves_whole_pixels() {
        let picture = Picture::new(1, (2, 2), vec![1, 2, 3, 4]).unwrap();
        for filter in [Filter::Nearest, Filter::Bilinear, Filter::Bicubic] {
            let turned = transform(&picture, &rotation(90.0, (2, 2)), sampling(filter));
            assert_eq!(turned.bytes(), [2, 4, 1, 3], "{filter:?}");
        }
    }

    #[test]
    fn the_nearest_pixel_of_a_huge_map_is_no_overflow() {
        let matrix = [1e300, 1e300, 0.0, -1e300, 1e300, 0.0];
        let picture = picture(1, (40, 40));
        transform(&picture, &matrix, sampling(Filter::Nearest));
    }
}
