//! Pictures in memory, and the two antialiased filters that resize them as Pillow does.

use std::path::PathBuf;

use fast_image_resize::images::Image;
use fast_image_resize::pixels::{F32, U8, U8x3};
use fast_image_resize::{
    FilterType, PixelTrait, PixelType, ResizeAlg, ResizeError, ResizeOptions, Resizer,
};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The most bytes that decoding one picture may take.
pub(crate) const MOST_BYTES: u64 = 1 << 28;
/// The longest side of a picture in pixels, before and after resizing.
pub(crate) const LONGEST_SIDE: u32 = 1 << 15;

/// The filter that resizes. Both are antialiased: they widen where the picture shrinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// A triangle.
    Bilinear,
    /// A cubic with a = -0.5, like Pillow's.
    #[default]
    Bicubic,
}

/// A decoded picture, upright: rows of pixels of one byte (grey) or three (red, green, blue).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    channels: usize,
    height: usize,
    width: usize,
    bytes: Vec<u8>,
}

/// A rectangle of a picture, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Window {
    /// The first row.
    pub top: usize,
    /// The first column.
    pub left: usize,
    /// The number of rows.
    pub height: usize,
    /// The number of columns.
    pub width: usize,
}

/// Checks that a size, height and width, has pixels.
pub(crate) fn check_size((height, width): (usize, usize)) -> Result<()> {
    if height == 0 || width == 0 {
        return Err(Error::Setting(format!(
            "expected a size of at least one pixel in each direction, found {width}x{height}"
        )));
    }
    Ok(())
}

/// A picture file that was read for a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedPicture {
    /// The file.
    pub path: PathBuf,
    /// The model's input before it is normalised, `(channels, height, width)`; or why there is none.
    pub pixels: Result<Vec<u8>, String>,
}

impl Picture {
    /// Returns a picture of `(height, width)` pixels, each of `channels` bytes next to each other.
    ///
    /// # Shapes
    /// `bytes`: `(height, width, channels)`.
    ///
    /// # Errors
    /// A sentence, if the number of bytes is 0 or does not match.
    pub fn new(
        channels: usize,
        (height, width): (usize, usize),
        bytes: Vec<u8>,
    ) -> Result<Self, String> {
        let expected = [height, width]
            .iter()
            .try_fold(channels, |n, side| n.checked_mul(*side));
        if expected != Some(bytes.len()) || bytes.is_empty() {
            return Err(format!(
                "expected the bytes of {width}x{height} pixels of {channels} channels, found {}",
                bytes.len()
            ));
        }
        Ok(Self {
            channels,
            height,
            width,
            bytes,
        })
    }

    /// Returns the number of bytes of a pixel: 3 for colours, 1 for grey.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Returns height and width, in pixels.
    pub fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    /// Returns the pixels, `(height, width, channels)`.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the pixels, `(height, width, channels)`.
    #[cfg(feature = "pictures")]
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Returns the pixels, to be changed in place.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Returns a picture of as many channels and `(height, width)` pixels, which are `bytes`.
    pub(crate) fn with_pixels(&self, (height, width): (usize, usize), bytes: Vec<u8>) -> Self {
        debug_assert_eq!(bytes.len(), height * width * self.channels);
        Self {
            channels: self.channels,
            height,
            width,
            bytes,
        }
    }

    /// Returns the picture of `planes`, `(channels, height, width)`.
    pub(crate) fn from_planes(planes: &[u8], [channels, height, width]: [usize; 3]) -> Self {
        let plane = height * width;
        let pixel = |i: usize| planes[i..].iter().step_by(plane).take(channels);
        Self {
            channels,
            height,
            width,
            bytes: (0..plane).flat_map(pixel).copied().collect(),
        }
    }

    /// Returns whether the picture has no colours, however many channels it has.
    pub fn is_grey(&self) -> bool {
        let mut pixels = self.bytes.chunks_exact(self.channels);
        pixels.all(|pixel| pixel.iter().all(|byte| *byte == pixel[0]))
    }

    /// Returns the pixels channel by channel, `(channels, height, width)`.
    pub(crate) fn planes(&self) -> Vec<u8> {
        let plane = |channel: usize| self.bytes[channel..].iter().step_by(self.channels);
        (0..self.channels).flat_map(plane).copied().collect()
    }

    /// Writes the pixels channel by channel into `out`, `(channels, height, width)`.
    #[cfg(feature = "pictures")]
    pub(crate) fn write_planes(&self, out: &mut [u8]) {
        let plane = self.height * self.width;
        for (channel, out) in out.chunks_exact_mut(plane).enumerate() {
            let pixels = self.bytes[channel..].iter().step_by(self.channels);
            for (to, from) in out.iter_mut().zip(pixels) {
                *to = *from;
            }
        }
    }

    /// Returns the picture resized to `(height, width)`.
    ///
    /// # Errors
    /// If a side is too long, or the result would be too large: see [`LONGEST_SIDE`] and
    /// [`MOST_BYTES`].
    pub(crate) fn resized(
        self,
        (height, width): (usize, usize),
        filter: Interpolation,
    ) -> Result<Self> {
        let most = LONGEST_SIDE as usize;
        let fits =
            height.max(width) <= most && (height * width * self.channels) as u64 <= MOST_BYTES;
        if !fits {
            return Err(Error::Setting(format!(
                "a picture of {}x{} pixels would be resized to {width}x{height}: expected at most \
                 {most} in a direction and {MOST_BYTES} bytes in all",
                self.width, self.height
            )));
        }
        // Across first, then down, as Pillow does: the bytes in between are rounded.
        let across = (self.height, width);
        self.resized_once(across, filter)?
            .resized_once((height, width), filter)
    }

    fn resized_once(self, (height, width): (usize, usize), filter: Interpolation) -> Result<Self> {
        if (height, width) == self.size() {
            return Ok(self);
        }
        let pixel = match self.channels {
            1 => PixelType::U8,
            _ => PixelType::U8x3,
        };
        let fail = |error: &dyn std::fmt::Display| {
            Error::Setting(format!("resizing to {width}x{height}: {error}"))
        };
        let from = Image::from_vec_u8(self.width as u32, self.height as u32, self.bytes, pixel)
            .map_err(|error| fail(&error))?;
        let mut to = Image::new(width as u32, height as u32, pixel);
        resize(&from, &mut to, filter).map_err(|error| fail(&error))?;
        Ok(Self {
            height,
            width,
            channels: self.channels,
            bytes: to.into_vec(),
        })
    }

    /// Returns the centre of `(height, width)` pixels, which may not be larger than the picture.
    pub(crate) fn center_crop(&self, (height, width): (usize, usize)) -> Self {
        let start = |size: usize, crop: usize| {
            // Python's rounding: halves to the even number.
            ((size - crop) as f64 / 2.0).round_ties_even() as usize
        };
        self.window(Window {
            top: start(self.height, height),
            left: start(self.width, width),
            height,
            width,
        })
    }

    /// Returns the pixels of `window`, which lies in the picture.
    pub(crate) fn window(&self, window: Window) -> Self {
        let Window {
            top,
            left,
            height,
            width,
        } = window;
        let rows = (top..top + height).map(|row| {
            let first = (row * self.width + left) * self.channels;
            &self.bytes[first..first + width * self.channels]
        });
        let mut bytes = Vec::with_capacity(height * width * self.channels);
        rows.for_each(|row| bytes.extend_from_slice(row));
        self.with_pixels((height, width), bytes)
    }
}

/// Returns the luma of ITU-R 601-2, with Pillow's fixed point.
#[inline]
pub(crate) fn luma(r: u8, g: u8, b: u8) -> u8 {
    let sum = u32::from(r) * 19_595 + u32::from(g) * 38_470 + u32::from(b) * 7_471;
    ((sum + 0x8000) >> 16) as u8
}

/// Resizes a plane of `from` = (rows, columns) numbers to `to`, antialiased.
///
/// # Shapes
/// `plane`: `(from.0, from.1)` -> `(to.0, to.1)`.
///
/// # Errors
/// If the plane does not hold that many numbers, or a side is 0.
pub fn resize_plane(
    plane: &[f32],
    from: (usize, usize),
    to: (usize, usize),
    filter: Interpolation,
) -> Result<Vec<f32>> {
    let fail = |error: &dyn std::fmt::Display| {
        let ((rows, columns), (new_rows, new_columns)) = (from, to);
        Error::Setting(format!(
            "resizing {rows}x{columns} numbers to {new_rows}x{new_columns}: {error}"
        ))
    };
    let bytes: Vec<u8> = plane.iter().copied().flat_map(f32::to_ne_bytes).collect();
    let from = Image::from_vec_u8(from.1 as u32, from.0 as u32, bytes, PixelType::F32)
        .map_err(|error| fail(&error))?;
    let mut to = Image::new(to.1 as u32, to.0 as u32, PixelType::F32);
    resize(&from, &mut to, filter).map_err(|error| fail(&error))?;
    let numbers = to.buffer().as_chunks::<4>().0.iter();
    Ok(numbers.map(|bytes| f32::from_ne_bytes(*bytes)).collect())
}

/// Resizes with an antialiasing filter, the same for all channels.
///
/// The type of the pixels is chosen here: code for all types that the library knows would be made for
/// this crate, and take minutes to build.
fn resize(from: &Image, to: &mut Image, filter: Interpolation) -> Result<(), ResizeError> {
    let filter = match filter {
        Interpolation::Bilinear => FilterType::Bilinear,
        Interpolation::Bicubic => FilterType::CatmullRom,
    };
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
    match from.pixel_type() {
        PixelType::U8 => resize_typed::<U8>(from, to, &options),
        PixelType::U8x3 => resize_typed::<U8x3>(from, to, &options),
        PixelType::F32 => resize_typed::<F32>(from, to, &options),
        _ => Err(ResizeError::PixelTypesAreDifferent),
    }
}

fn resize_typed<P: PixelTrait>(
    from: &Image,
    to: &mut Image,
    options: &ResizeOptions,
) -> Result<(), ResizeError> {
    match (from.typed_image::<P>(), to.typed_image_mut::<P>()) {
        (Some(from), Some(mut to)) => Resizer::new().resize_typed(&from, &mut to, options),
        _ => Err(ResizeError::PixelTypesAreDifferent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_do_not_match_the_size_are_refused() {
        assert!(Picture::new(3, (2, 2), vec![0; 12]).is_ok());
        for (channels, size, bytes) in [(3, (2, 2), 11), (1, (0, 3), 0), (2, (usize::MAX, 2), 4)] {
            let error = Picture::new(channels, size, vec![0; bytes]).unwrap_err();
            assert!(error.contains(&format!("found {bytes}")), "{error}");
        }
    }

    #[test]
    fn planes_hold_one_channel_each() {
        let picture = Picture::new(3, (1, 2), vec![1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(picture.planes(), [1, 4, 2, 5, 3, 6]);
        assert_eq!(Picture::from_planes(&picture.planes(), [3, 1, 2]), picture);
    }
}
