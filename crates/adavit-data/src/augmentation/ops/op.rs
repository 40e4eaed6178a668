//! One operation on a picture, with its magnitude: the list of all of them.

use super::affine::{self, Sampling};
use super::{blend, blur, conv_blur, hue, table};
use crate::picture::Picture;

/// An operation of RandAugment, TrivialAugment, 3-Augment or a colour jitter, with its magnitude.
///
/// Magnitudes are those of Pillow's functions. A picture of one channel is grey: [`Self::Color`] and
/// [`Self::Hue`] leave it, and the others treat its channel like each of three.
///
/// ```
/// use adavit_data::{AffineFilter, Op, Picture, Sampling};
/// let picture = Picture::new(1, (1, 3), vec![0, 100, 255]).map_err(adavit_data::Error::Setting)?;
/// let sampling = Sampling { filter: AffineFilter::Nearest, fill: [128; 3] };
/// let inverted = Op::Invert.apply(picture, sampling);
/// assert_eq!(inverted.bytes(), [255, 155, 0]);
/// # Ok::<(), adavit_data::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Op {
    /// Each channel is stretched to 0..=255.
    AutoContrast,
    /// Each channel's histogram becomes even.
    Equalize,
    /// 255 minus each byte.
    Invert,
    /// The number of high bits that are kept; 0 makes the picture black.
    Posterize(u32),
    /// Bytes of this value and above are inverted.
    Solarize(f64),
    /// This is added to bytes below 128.
    SolarizeAdd(u8),
    /// Saturation: 0 is grey, 1 as it is.
    Color(f64),
    /// 0 is the mean grey, 1 as it is.
    Contrast(f64),
    /// 0 is black, 1 as it is.
    Brightness(f64),
    /// 0 is smoothed, 1 as it is.
    Sharpness(f64),
    /// A turn of the hue, in [-0.5, 0.5] of a full one.
    Hue(f64),
    /// Pillow's Gaussian blur of this standard deviation, in pixels.
    GaussianBlur(f64),
    /// torchvision's Gaussian blur of this standard deviation and 23 pixels.
    GaussianBlur23(f64),
    /// Degrees, counter-clockwise around the centre.
    Rotate(f64),
    /// Columns that a row moves to the left for each row further down.
    ShearX(f64),
    /// Rows that a column moves up for each column further to the right.
    ShearY(f64),
    /// Pixels to the left.
    TranslateX(f64),
    /// Pixels up.
    TranslateY(f64),
}

impl Op {
    /// Returns the changed picture, of the same size.
    ///
    /// `sampling` is that of the operations which move pixels.
    #[must_use]
    pub fn apply(self, mut picture: Picture, sampling: Sampling) -> Picture {
        match self {
            Self::AutoContrast => table::auto_contrast(&mut picture),
            Self::Equalize => table::equalize(&mut picture),
            Self::Invert => table::apply(&mut picture, &table::invert()),
            Self::Posterize(bits) => table::apply(&mut picture, &table::posterize(bits)),
            Self::Solarize(threshold) => table::apply(&mut picture, &table::solarize(threshold)),
            Self::SolarizeAdd(add) => table::apply(&mut picture, &table::solarize_add(add)),
            Self::Color(factor) => blend::color(&mut picture, factor),
            Self::Contrast(factor) => blend::contrast(&mut picture, factor),
            Self::Brightness(factor) => blend::brightness(&mut picture, factor),
            Self::Sharpness(factor) => blend::sharpness(&mut picture, factor),
            Self::Hue(turn) => hue::shift(&mut picture, turn),
            Self::GaussianBlur(sigma) => blur::gaussian(&mut picture, sigma),
            Self::GaussianBlur23(sigma) => conv_blur::gaussian(&mut picture, sigma),
            Self::Rotate(_)
            | Self::ShearX(_)
            | Self::ShearY(_)
            | Self::TranslateX(_)
            | Self::TranslateY(_) => return self.moved(picture, sampling),
        }
        picture
    }

    fn moved(self, picture: Picture, sampling: Sampling) -> Picture {
        let matrix = match self {
            Self::Rotate(degrees) if degrees % 360.0 == 0.0 => return picture,
            Self::Rotate(degrees) => affine::rotation(degrees.rem_euclid(360.0), picture.size()),
            Self::ShearX(factor) => [1.0, factor, 0.0, 0.0, 1.0, 0.0],
            Self::ShearY(factor) => [1.0, 0.0, 0.0, factor, 1.0, 0.0],
            Self::TranslateX(pixels) => [1.0, 0.0, pixels, 0.0, 1.0, 0.0],
            Self::TranslateY(pixels) => [1.0, 0.0, 0.0, 0.0, 1.0, pixels],
            _ => return picture,
        };
        affine::transform(&picture, &matrix, sampling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augmentation::ops::affine::Filter;

    /// Magnitudes that change nothing.
    const IDENTITIES: [Op; 16] = [
        Op::Posterize(8),
        Op::Solarize(256.0),
        Op::SolarizeAdd(0),
        Op::Color(1.0),
        Op::Contrast(1.0),
        Op::Brightness(1.0),
        Op::Sharpness(1.0),
        Op::Hue(0.0),
        Op::GaussianBlur(0.0),
        Op::GaussianBlur23(0.0),
        Op::Rotate(0.0),
        Op::Rotate(360.0),
        Op::ShearX(0.0),
        Op::ShearY(0.0),
        Op::TranslateX(0.0),
        Op::TranslateY(0.0),
    ];

    fn sampling(filter: Filter) -> Sampling {
        Sampling {
            filter,
            fill: [128; 3],
        }
    }

    fn picture(channels: usize, (height, width): (usize, usize)) -> Picture {
        let bytes = (0..height * width * channels).map(|i| (i * i * 31 % 256) as u8);
        Picture::new(channels, (height, width), bytes.collect()).unwrap()
    }

    #[test]
    fn identity_magnitudes_leave_the_picture() {
        for op in IDENTITIES {
            // A byte of the hue is coarser than one of the colours.
            let channels = if op == Op::Hue(0.0) { 1 } else { 3 };
            for filter in [Filter::Nearest, Filter::Bilinear, Filter::Bicubic] {
                let before = picture(channels, (6, 9));
                assert_eq!(op.apply(before.clone(), sampling(filter)), before, "{op:?}");
            }
        }
    }

    #[test]
    fn sizes_and_channels_hold_for_pictures_of_any_size() {
        let strong = [
            Op::AutoContrast,
            Op::Equalize,
            Op::Invert,
            Op::Posterize(0),
            Op::Solarize(-1.0),
            Op::SolarizeAdd(255),
            Op::Color(1.9),
            Op::Contrast(1.9),
            Op::Brightness(f64::NAN),
            Op::Sharpness(1.9),
            Op::Hue(0.5),
            Op::GaussianBlur(f64::INFINITY),
            Op::GaussianBlur23(40.0),
            Op::Rotate(-30.0),
            Op::Rotate(f64::INFINITY),
            Op::ShearX(0.3),
            Op::ShearY(f64::NAN),
            Op::TranslateX(1e300),
            Op::TranslateY(0.45),
        ];
        for op in strong {
            for filter in [Filter::Nearest, Filter::Bilinear, Filter::Bicubic] {
                for size in [(1, 1), (1, 9), (9, 1), (2, 2), (3, 5)] {
                    for channels in [1, 3] {
                        let changed = op.apply(picture(channels, size), sampling(filter));
                        assert_eq!(changed.size(), size, "{op:?}");
                        assert_eq!(changed.channels(), channels, "{op:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_grey_picture_is_changed_like_each_of_three_equal_channels() {
        let ops = [
            Op::AutoContrast,
            Op::Equalize,
            Op::Solarize(100.0),
            Op::Contrast(0.4),
            Op::Sharpness(1.7),
            Op::GaussianBlur(1.1),
            Op::GaussianBlur23(1.1),
            Op::Rotate(17.0),
            Op::ShearX(0.2),
        ];
        let grey = picture(1, (7, 8));
        let bytes = grey.bytes().iter().flat_map(|&byte| [byte; 3]).collect();
        let colours = Picture::new(3, (7, 8), bytes).unwrap();
        for op in ops {
            for filter in [Filter::Nearest, Filter::Bilinear, Filter::Bicubic] {
                let one = op.apply(grey.clone(), sampling(filter));
                let three = op.apply(colours.clone(), sampling(filter));
                let first: Vec<u8> = three.bytes().iter().step_by(3).copied().collect();
                assert_eq!(one.bytes(), first, "{op:?}");
            }
        }
    }
}
