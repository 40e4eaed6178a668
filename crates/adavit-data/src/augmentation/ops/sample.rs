//! The value of a picture between its pixels, as Pillow's transforms compute it.
//!
//! Pixels behind the border repeat the last one. Polynomials are evaluated in f64 and in Pillow's order,
//! since the last bit depends on both.

use crate::picture::Picture;

/// The colour of a pixel outside of the picture.
pub(super) type Fill<const C: usize> = [u8; C];

/// The pixels of a picture of C channels.
pub(super) struct Source<'a, const C: usize> {
    pixels: &'a [[u8; C]],
    pub(super) height: usize,
    pub(super) width: usize,
}

/// A place between pixels: the pixel above and to the left of it, and how far it is from there.
struct Place {
    y: isize,
    x: isize,
    dy: f64,
    dx: f64,
}

impl<'a, const C: usize> Source<'a, C> {
    /// The pixels of `picture`, which has C channels.
    pub(super) fn new(picture: &'a Picture) -> Self {
        let (height, width) = picture.size();
        Self {
            pixels: picture.bytes().as_chunks::<C>().0,
            height,
            width,
        }
    }

    /// Returns the pixel, if it is in the picture.
    #[inline]
    pub(super) fn get(&self, y: usize, x: usize) -> Option<[u8; C]> {
        let inside = y < self.height && x < self.width;
        inside.then(|| self.pixels[y * self.width + x])
    }

    /// Returns a row; one outside is that at the border.
    #[inline]
    fn row(&self, y: isize) -> &'a [[u8; C]] {
        let y = y.clamp(0, self.height.cast_signed() - 1) as usize;
        &self.pixels[y * self.width..][..self.width]
    }

    /// Returns the columns `x..x + N`; those outside are that at the border.
    #[inline]
    fn columns<const N: usize>(&self, x: isize) -> [usize; N] {
        let last = self.width.cast_signed() - 1;
        std::array::from_fn(|i| (x + i.cast_signed()).clamp(0, last) as usize)
    }
}

impl Place {
    #[inline]
    fn new(y: f64, x: f64) -> Self {
        let (y, x) = (y - 0.5, x - 0.5);
        let (top, left) = (y.floor(), x.floor());
        Self {
            y: top as isize,
            x: left as isize,
            dy: y - top,
            dx: x - left,
        }
    }
}

/// Linear between 2x2 pixels, truncated.
#[inline]
pub(super) fn bilinear<const C: usize>(source: &Source<C>, y: f64, x: f64) -> [u8; C] {
    let place = Place::new(y, x);
    let columns = source.columns::<2>(place.x);
    let row = |y: isize| -> [f64; C] {
        let row = source.row(y);
        let [left, right] = columns.map(|x| row[x]);
        std::array::from_fn(|c| line(left[c].into(), right[c].into(), place.dx))
    };
    let above = row(place.y);
    if place.dy == 0.0 {
        return above.map(|value| value as u8);
    }
    let below = row(place.y + 1);
    std::array::from_fn(|c| line(above[c], below[c], place.dy) as u8)
}

/// Cubic between 4x4 pixels, truncated and limited to a byte.
#[inline]
pub(super) fn bicubic<const C: usize>(source: &Source<C>, y: f64, x: f64) -> [u8; C] {
    let place = Place::new(y, x);
    let columns = source.columns::<4>(place.x - 1);
    let row = |y: isize| -> [f64; C] {
        let row = source.row(y);
        if place.dx == 0.0 {
            return row[columns[1]].map(f64::from);
        }
        let pixels = columns.map(|x| row[x]);
        std::array::from_fn(|c| cubic(pixels.map(|pixel| pixel[c].into()), place.dx))
    };
    if place.dy == 0.0 {
        // The polynomial's value at 0 is the row itself: a shear or shift across needs no other.
        return row(place.y).map(|value| value as u8);
    }
    let rows = [-1, 0, 1, 2].map(|step| row(place.y + step));
    std::array::from_fn(|c| cubic(rows.map(|row| row[c]), place.dy) as u8)
}

#[inline]
fn line(a: f64, b: f64, d: f64) -> f64 {
    a + (b - a) * d
}

#[inline]
fn cubic([v1, v2, v3, v4]: [f64; 4], d: f64) -> f64 {
    let p2 = -v1 + v3;
    let p3 = 2.0 * (v1 - v2) + v3 - v4;
    let p4 = -v1 + v2 - v3 + v4;
    v2 + d * (p2 + d * (p3 + d * p4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_way_between_pixels_is_their_mean() {
        let picture = Picture::new(1, (1, 4), vec![10, 20, 40, 50]).unwrap();
        let source = Source::<1>::new(&picture);
        assert_eq!(bilinear(&source, 0.5, 2.0), [30]);
        assert_eq!(bicubic(&source, 0.5, 2.0), [30]);
    }

    #[test]
    fn centres_of_pixels_are_the_pixels() {
        let picture = Picture::new(3, (2, 2), (0..12).collect()).unwrap();
        let source = Source::<3>::new(&picture);
        assert_eq!(bilinear(&source, 1.5, 0.5), [6, 7, 8]);
        assert_eq!(bicubic(&source, 0.5, 1.5), [3, 4, 5]);
    }
}
