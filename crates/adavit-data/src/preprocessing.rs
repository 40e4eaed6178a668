//! From a picture of any size to the pixels of a model's input, as timm, torchvision and Pillow do.
//!
//! ```text
//! decode -> turn upright -> RGB or grey -> resize, antialiased -> crop the centre -> bytes
//! bytes / 255 -> less the mean, over the standard deviation -> input
//! ```

use std::path::PathBuf;

use fast_image_resize::images::Image;
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The most bytes that decoding one picture may take.
pub(crate) const MOST_BYTES: u64 = 1 << 28;
/// The longest side of a picture, before and after it was resized.
pub(crate) const LONGEST_SIDE: u32 = 1 << 15;

/// The filter that resizes. Both are antialiased: they widen where the picture shrinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// A triangle.
    Bilinear,
    /// A cubic with a = -0.5, as Pillow's.
    #[default]
    Bicubic,
}

/// What happens to the sides of a picture that is no square.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CropMode {
    /// It keeps its proportions, and loses what is beside the centre.
    #[default]
    Center,
    /// It is squashed, and loses nothing but what `crop_pct` leaves out.
    Squash,
}

/// How a picture of any size becomes one of the model's size; timm's words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Preprocessing {
    /// The filter that resizes.
    pub interpolation: Interpolation,
    /// Side of the crop over the side that the picture is resized to, in (0, 1].
    pub crop_pct: f64,
    /// What happens to proportions.
    pub crop_mode: CropMode,
}

impl Default for Preprocessing {
    /// What timm's DeiT and T2T-ViT expect.
    fn default() -> Self {
        Self {
            interpolation: Interpolation::Bicubic,
            crop_pct: 0.9,
            crop_mode: CropMode::Center,
        }
    }
}

/// How pixels become the numbers of an input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// Mean of each channel, of values in [0, 1].
    pub mean: Vec<f64>,
    /// Standard deviation of each channel.
    pub std: Vec<f64>,
}

/// What a model takes: timm's `data_config` without the normalization.
#[derive(Debug, Clone, PartialEq)]
pub struct InputConfig {
    /// Channels of the input: 3 for colours, 1 for grey.
    pub in_chans: usize,
    /// Height and width of the input, in pixels.
    pub img_size: (usize, usize),
    /// How a picture of another size becomes one of this.
    pub preprocessing: Preprocessing,
}

/// A picture file that was read for a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedPicture {
    /// The file.
    pub path: PathBuf,
    /// The model's input before it is normalised, `(channels, height, width)`; or why there is none.
    pub pixels: Result<Vec<u8>, String>,
}

/// A decoded picture, upright: rows of pixels of one byte (grey) or three (red, green, blue).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    channels: usize,
    height: usize,
    width: usize,
    bytes: Vec<u8>,
}

impl Picture {
    /// A picture of `(height, width)` pixels, each of `channels` bytes side by side.
    ///
    /// # Errors
    /// A sentence, if there are not that many bytes, or none.
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

    /// Height and width.
    pub fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    /// The pixels, row by row, each with its channels side by side.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn resized(self, (height, width): (usize, usize), filter: Interpolation) -> Result<Self> {
        // Across first, then down, as Pillow does: the bytes in between are rounded.
        let across = (self.height, width);
        self.resized_once(across, filter)?
            .resized_once((height, width), filter)
    }

    fn resized_once(self, (height, width): (usize, usize), filter: Interpolation) -> Result<Self> {
        if (height, width) == self.size() {
            return Ok(self);
        }
        let kind = match self.channels {
            1 => PixelType::U8,
            _ => PixelType::U8x3,
        };
        let fail = |error: &dyn std::fmt::Display| {
            Error::Setting(format!("resizing to {width}x{height}: {error}"))
        };
        let from = Image::from_vec_u8(self.width as u32, self.height as u32, self.bytes, kind)
            .map_err(|error| fail(&error))?;
        let mut to = Image::new(width as u32, height as u32, kind);
        resize(&from, &mut to, filter).map_err(|error| fail(&error))?;
        Ok(Self {
            height,
            width,
            channels: self.channels,
            bytes: to.into_vec(),
        })
    }

    fn center_crop(&self, (height, width): (usize, usize)) -> Self {
        let start = |size: usize, crop: usize| {
            // Python's rounding: halves to the even number.
            ((size - crop) as f64 / 2.0).round_ties_even() as usize
        };
        let (top, left) = (start(self.height, height), start(self.width, width));
        let rows = (top..top + height).flat_map(|row| {
            let first = (row * self.width + left) * self.channels;
            &self.bytes[first..first + width * self.channels]
        });
        Self {
            channels: self.channels,
            height,
            width,
            bytes: rows.copied().collect(),
        }
    }
}

/// Resizes a plane of `from` = (rows, columns) numbers to `to`, antialiased.
///
/// # Errors
/// If the plane has not so many numbers, or a side is 0.
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

/// Resizes with an antialiasing filter, all channels alike.
fn resize(
    from: &Image,
    to: &mut Image,
    filter: Interpolation,
) -> Result<(), fast_image_resize::ResizeError> {
    let filter = match filter {
        Interpolation::Bilinear => FilterType::Bilinear,
        Interpolation::Bicubic => FilterType::CatmullRom,
    };
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
    Resizer::new().resize(from, to, &options)
}

impl Preprocessing {
    /// Checks the settings.
    ///
    /// # Errors
    /// If `crop_pct` is not in (0, 1].
    pub fn validate(&self) -> Result<()> {
        if self.crop_pct > 0.0 && self.crop_pct <= 1.0 {
            return Ok(());
        }
        Err(Error::Setting(format!(
            "crop_pct: expected a number in (0, 1], found {}",
            self.crop_pct
        )))
    }

    /// Returns the centre of `picture` as one of `img_size`, height and width.
    ///
    /// # Errors
    /// If `crop_pct` is out of range, or the picture is so long and thin that it would be resized to
    /// more than 32,768 pixels in a direction, or a quarter of a gigabyte.
    pub fn apply(&self, picture: Picture, img_size: (usize, usize)) -> Result<Picture> {
        self.validate()?;
        let (height, width) = self.resized_size(picture.size(), img_size);
        let most = LONGEST_SIDE as usize;
        let fits =
            height.max(width) <= most && (height * width * picture.channels) as u64 <= MOST_BYTES;
        if !fits {
            return Err(Error::Setting(format!(
                "a picture of {}x{} pixels would be resized to {width}x{height}: expected at most \
                 {most} in a direction and {MOST_BYTES} bytes in all",
                picture.width, picture.height
            )));
        }
        let resized = picture.resized((height, width), self.interpolation)?;
        Ok(resized.center_crop(img_size))
    }

    /// The size before the crop, as timm and torchvision find it.
    fn resized_size(
        &self,
        (height, width): (usize, usize),
        img_size: (usize, usize),
    ) -> (usize, usize) {
        let scaled = |side: usize| (side as f64 / self.crop_pct).floor() as usize;
        let (to_height, to_width) = (scaled(img_size.0), scaled(img_size.1));
        if self.crop_mode == CropMode::Squash {
            return (to_height, to_width);
        }
        if to_height == to_width {
            let long = |long: usize, short: usize| {
                (to_height as f64 * long as f64 / short as f64) as usize
            };
            return if height <= width {
                (to_height, long(width, height))
            } else {
                (long(height, width), to_width)
            };
        }
        let ratio = (height as f64 / to_height as f64).min(width as f64 / to_width as f64);
        let side = |side: usize| (side as f64 / ratio).round_ties_even() as usize;
        (side(height).max(img_size.0), side(width).max(img_size.1))
    }
}

impl InputConfig {
    /// Returns the pixels of `picture` as a model takes them, `(in_chans, height, width)`.
    ///
    /// # Errors
    /// As for [`Preprocessing::apply`].
    pub fn pixels(&self, picture: Picture) -> Result<Vec<u8>> {
        let picture = self.preprocessing.apply(picture, self.img_size)?;
        let channels = picture.channels;
        let planes =
            (0..channels).flat_map(|channel| picture.bytes[channel..].iter().step_by(channels));
        Ok(planes.copied().collect())
    }
}

impl Normalization {
    /// What ImageNet models of timm expect: mean and deviation of ImageNet's pixels.
    pub fn imagenet() -> Self {
        Self {
            mean: vec![0.485, 0.456, 0.406],
            std: vec![0.229, 0.224, 0.225],
        }
    }

    /// Returns pixels `(channels, ..)` as numbers: bytes over 255, less the mean, over the standard
    /// deviation.
    pub fn apply(&self, pixels: &[u8]) -> Vec<f32> {
        let plane = (pixels.len() / self.mean.len().max(1)).max(1);
        let planes = pixels.chunks(plane).zip(self.mean.iter().zip(&self.std));
        planes
            .flat_map(|(plane, (mean, std))| {
                let (mean, std) = (*mean as f32, *std as f32);
                plane
                    .iter()
                    .map(move |x| (f32::from(*x) / 255.0 - mean) / std)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_side_becomes_the_crop_over_crop_pct() {
        let preprocessing = Preprocessing {
            crop_pct: 0.875,
            ..Preprocessing::default()
        };
        let size = |size, img_size| preprocessing.resized_size(size, img_size);
        assert_eq!(size((300, 500), (224, 224)), (256, 426));
        assert_eq!(size((500, 300), (224, 224)), (426, 256));
        assert_eq!(size((224, 224), (224, 224)), (256, 256));
        assert_eq!(size((300, 500), (224, 112)), (256, 427));
        let squash = Preprocessing {
            crop_mode: CropMode::Squash,
            ..preprocessing.clone()
        };
        assert_eq!(squash.resized_size((300, 500), (224, 112)), (256, 128));
    }

    #[test]
    fn long_thin_pictures_are_refused_not_resized() {
        let picture = Picture::new(1, (1, 30_000), vec![0; 30_000]).unwrap();
        let error = Preprocessing::default().apply(picture, (224, 224));
        assert!(error.unwrap_err().to_string().contains("at most 32768"));
    }
}
