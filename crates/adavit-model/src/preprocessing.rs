//! From a picture of any size to the pixels of a model's input, as timm, torchvision and Pillow do.
//!
//! ```text
//! decode -> turn upright -> RGB or grey -> resize, antialiased -> crop the centre -> bytes
//! bytes / 255 -> less the mean, over the standard deviation -> input
//! ```

use std::path::Path;

use fast_image_resize::images::Image;
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};
use serde::{Deserialize, Serialize};

use crate::{Error, ModelConfig, Normalization, Result};

/// The most bytes that decoding one picture may take.
const MOST_BYTES: u64 = 1 << 28;
/// The longest side of a picture, before and after it was resized.
const LONGEST_SIDE: u32 = 1 << 15;

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

/// A decoded picture, upright: rows of pixels of one byte (grey) or three (red, green, blue).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    channels: usize,
    height: usize,
    width: usize,
    bytes: Vec<u8>,
}

impl Picture {
    /// Decodes a JPEG, PNG or WebP file with `channels` channels: 3 for colours, 1 for grey.
    ///
    /// The picture is turned as its EXIF data say. Transparency is left out, not blended; of 16 bits
    /// the upper 8 are kept; grey is 0.299 red + 0.587 green + 0.114 blue. All as in Pillow.
    ///
    /// # Errors
    /// A sentence, if the bytes are no whole picture of such a format, or larger than 32,768 pixels
    /// in a direction or a quarter of a gigabyte decoded.
    pub fn decode(bytes: &[u8], channels: usize) -> Result<Self, String> {
        let fail = |error: image::ImageError| error.to_string();
        let mut reader = ImageReader::new(std::io::Cursor::new(bytes))
            .with_guessed_format()
            .map_err(|error| error.to_string())?;
        if reader.format().is_none() {
            return Err("neither JPEG nor PNG nor WebP".into());
        }
        let mut limits = Limits::default();
        limits.max_alloc = Some(MOST_BYTES);
        limits.max_image_width = Some(LONGEST_SIDE);
        limits.max_image_height = Some(LONGEST_SIDE);
        reader.limits(limits.clone());
        let mut decoder = reader.into_decoder().map_err(fail)?;
        let (width, height) = decoder.dimensions();
        if width > LONGEST_SIDE || height > LONGEST_SIDE || decoder.total_bytes() > MOST_BYTES {
            return Err(format!(
                "{width}x{height} pixels: expected at most {LONGEST_SIDE} in a direction and \
                 {MOST_BYTES} bytes in all"
            ));
        }
        decoder.set_limits(limits).map_err(fail)?;
        let orientation = decoder.orientation().map_err(fail)?;
        let mut image = DynamicImage::from_decoder(decoder).map_err(fail)?;
        image.apply_orientation(orientation);
        let (height, width) = (image.height() as usize, image.width() as usize);
        let bytes = match channels {
            3 => colours(image),
            1 => grey(image),
            _ => return Err(format!("a model of {channels} channels takes no pictures")),
        };
        Self::new(channels, (height, width), bytes)
    }

    /// Reads and decodes a file; see [`Self::decode`].
    ///
    /// # Errors
    /// If the file cannot be read, or as for [`Self::decode`].
    pub fn open(path: &Path, channels: usize) -> Result<Self> {
        let fail = |message: String| Error::Picture {
            path: path.to_path_buf(),
            message,
        };
        let bytes =
            std::fs::read(path).map_err(|error| fail(format!("cannot be read: {error}")))?;
        Self::decode(&bytes, channels).map_err(fail)
    }

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
            Error::Config(format!("resizing to {width}x{height}: {error}"))
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

/// Resizes with an antialiasing filter, all channels alike.
pub(crate) fn resize(
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

/// The upper byte.
fn upper(x: u16) -> u8 {
    (x >> 8) as u8
}

fn colours(image: DynamicImage) -> Vec<u8> {
    match image {
        DynamicImage::ImageLuma16(image) => {
            let bytes = image.iter().map(|x| upper(*x));
            bytes.flat_map(|x| [x; 3]).collect()
        }
        DynamicImage::ImageLumaA16(image) => {
            let pixels = image.pixels();
            pixels.flat_map(|pixel| [upper(pixel.0[0]); 3]).collect()
        }
        DynamicImage::ImageRgb16(image) => image.iter().map(|x| upper(*x)).collect(),
        DynamicImage::ImageRgba16(image) => {
            let pixels = image
                .pixels()
                .flat_map(|pixel| [0, 1, 2].map(|c| pixel.0[c]));
            pixels.map(upper).collect()
        }
        image => image.into_rgb8().into_raw(),
    }
}

fn grey(image: DynamicImage) -> Vec<u8> {
    match image {
        DynamicImage::ImageLuma8(image) => image.into_raw(),
        DynamicImage::ImageLuma16(image) => image.iter().map(|x| upper(*x)).collect(),
        DynamicImage::ImageLumaA8(image) => image.pixels().map(|pixel| pixel.0[0]).collect(),
        DynamicImage::ImageLumaA16(image) => {
            image.pixels().map(|pixel| upper(pixel.0[0])).collect()
        }
        // Pillow's conversion, in 16 bits of fraction.
        image => {
            let colours = colours(image);
            let pixels = colours.as_chunks::<3>().0.iter();
            pixels
                .map(|&[r, g, b]| {
                    let sum = 19595 * u32::from(r) + 38470 * u32::from(g) + 7471 * u32::from(b);
                    ((sum + 0x8000) >> 16) as u8
                })
                .collect()
        }
    }
}

impl Preprocessing {
    pub(crate) fn validate(&self) -> Result<()> {
        if self.crop_pct > 0.0 && self.crop_pct <= 1.0 {
            return Ok(());
        }
        Err(Error::Config(format!(
            "preprocessing.crop_pct: expected a number in (0, 1], found {}",
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
            return Err(Error::Config(format!(
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

impl ModelConfig {
    /// Returns the pixels of `picture` as the model takes them, `(in_chans, height, width)`, by the
    /// configuration's preprocessing, or the default one.
    ///
    /// # Errors
    /// As for [`Preprocessing::apply`].
    pub fn pixels(&self, picture: Picture) -> Result<Vec<u8>> {
        let default = Preprocessing::default();
        let preprocessing = self.preprocessing.as_ref().unwrap_or(&default);
        let picture = preprocessing.apply(picture, self.img_size)?;
        let channels = picture.channels;
        let planes =
            (0..channels).flat_map(|channel| picture.bytes[channel..].iter().step_by(channels));
        Ok(planes.copied().collect())
    }
}

impl Normalization {
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
    fn what_is_no_picture_is_told() {
        for bytes in [
            &b""[..],
            b"GIF89a",
            b"\x89PNG\r\n\x1a\n",
            b"\xff\xd8\xff\xe0",
        ] {
            assert!(Picture::decode(bytes, 3).is_err());
        }
        assert!(Picture::new(3, (2, 2), vec![0; 11]).is_err());
    }

    #[test]
    fn long_thin_pictures_are_refused_not_resized() {
        let picture = Picture::new(1, (1, 30_000), vec![0; 30_000]).unwrap();
        let error = Preprocessing::default().apply(picture, (224, 224));
        assert!(error.unwrap_err().to_string().contains("at most 32768"));
    }
}
