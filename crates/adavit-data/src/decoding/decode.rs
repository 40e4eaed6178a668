//! From the bytes of a JPEG, PNG or WebP file to a [`Picture`], as Pillow decodes them.

use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageReader, Limits};

use crate::error::{Error, Result};
use crate::picture::{LONGEST_SIDE, MOST_BYTES, Picture};

impl Picture {
    /// Decodes a JPEG, PNG or WebP file with `channels` channels: 3 for colours, 1 for grey.
    ///
    /// The EXIF orientation is applied. Transparency is left out, not blended; of 16 bits the upper
    /// 8 are kept; grey is 0.299 red + 0.587 green + 0.114 blue. All as in Pillow.
    ///
    /// # Errors
    /// A sentence, if the bytes are not a whole picture of such a format, or if the picture has more
    /// than 32,768 pixels in a direction or more than a quarter of a gigabyte decoded.
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
            _ => {
                return Err(format!(
                    "expected 1 or 3 channels for pictures, found {channels}"
                ));
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_a_picture_are_refused() {
        for bytes in [
            &b""[..],
            b"GIF89a",
            b"\x89PNG\r\n\x1a\n",
            b"\xff\xd8\xff\xe0",
        ] {
            assert!(Picture::decode(bytes, 3).is_err());
        }
    }
}
