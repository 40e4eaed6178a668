//! From the bytes of a picture file to a [`Picture`], as Pillow decodes them.

use std::io::Cursor;
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use crate::decoding::jpeg::{self, Scaling};
use crate::decoding::kind::{self, Kind};
use crate::error::{Error, Result};
use crate::picture::{LONGEST_SIDE, MOST_BYTES, Picture, luma};
use crate::preprocessing::InputConfig;

/// How a picture is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeOptions {
    /// 3 for colours, 1 for grey.
    pub channels: usize,
    /// Height and width that the caller needs at least, of the upright picture; `None`: all pixels.
    ///
    /// A JPEG of more than 25 megapixels is decoded at the smallest of the scales 1, 1/2, 1/4 and 1/8
    /// whose sides are at least these.
    pub at_least: Option<(usize, usize)>,
    /// Whether smaller JPEGs are decoded at 1/4 or 1/8 where that is enough: faster, but not Pillow's
    /// values. Half the size is no faster than all of it.
    pub fast_decode: bool,
}

impl DecodeOptions {
    /// All pixels, as Pillow decodes them.
    pub fn whole(channels: usize) -> Self {
        Self {
            channels,
            at_least: None,
            fast_decode: false,
        }
    }

    fn scaling(&self) -> Option<Scaling> {
        self.at_least.map(|at_least| Scaling {
            at_least,
            fast: self.fast_decode,
        })
    }
}

/// A scaled picture has at least so many times the sides that it is resized to, so that the filter
/// that resizes still decides how it looks.
const MARGIN: f64 = 2.0;

impl InputConfig {
    /// Returns how a picture for this input is decoded: at no less than twice the size that it is
    /// resized to before the crop.
    pub fn decode_options(&self, fast_decode: bool) -> DecodeOptions {
        let side =
            |side: usize| (MARGIN * side as f64 / self.preprocessing.crop_pct).ceil() as usize;
        let (height, width) = self.img_size;
        DecodeOptions {
            channels: self.in_chans,
            at_least: Some((side(height), side(width))),
            fast_decode,
        }
    }
}

impl Picture {
    /// Decodes a picture with `channels` channels: 3 for colours, 1 for grey.
    ///
    /// The formats are JPEG, PNG, WebP, GIF (its first frame), BMP, TIFF, PNM and QOI; the bytes decide
    /// which. The EXIF orientation is applied. Transparency is left out, not blended; of 16 bits the
    /// upper 8 are kept; grey is 0.299 red + 0.587 green + 0.114 blue. All as in Pillow, and to the same
    /// values; those of lossy WebP may differ by 1, and those of JPEG by 4, but by a third of a level in
    /// the mean.
    ///
    /// # Errors
    /// A sentence, if the bytes are not a picture of such a format, end early or are damaged, or if the
    /// picture has more than 32,768 pixels in a direction or more than a quarter of a gigabyte decoded.
    pub fn decode(bytes: &[u8], channels: usize) -> Result<Self, String> {
        Self::decode_with(bytes, &DecodeOptions::whole(channels))
    }

    /// Decodes a picture, a large JPEG perhaps at a part of its size; see [`DecodeOptions`] and
    /// [`Self::decode`].
    ///
    /// # Errors
    /// As for [`Self::decode`]. The limit on decoded bytes is on those of the scaled picture, so a JPEG
    /// that is too large to be decoded whole may be decoded scaled.
    pub fn decode_with(bytes: &[u8], options: &DecodeOptions) -> Result<Self, String> {
        let channels = options.channels;
        if channels != 1 && channels != 3 {
            return Err(format!(
                "expected 1 or 3 channels for pictures, found {channels}"
            ));
        }
        let (mut image, orientation) = match Kind::of(bytes)? {
            Kind::Jpeg => jpeg::decode(bytes, options.scaling())?,
            Kind::Other(format) => decode_other(bytes, format)?,
        };
        image.apply_orientation(orientation);
        let (height, width) = (image.height() as usize, image.width() as usize);
        let bytes = match channels {
            1 => grey(image),
            _ => colours(image),
        };
        Self::new(channels, (height, width), bytes)
    }

    /// Reads and decodes a file; see [`Self::decode`].
    ///
    /// # Errors
    /// If the file cannot be read, or as for [`Self::decode`].
    pub fn open(path: &Path, channels: usize) -> Result<Self> {
        Self::open_with(path, &DecodeOptions::whole(channels))
    }

    /// Reads and decodes a file; see [`Self::decode_with`].
    ///
    /// # Errors
    /// If the file cannot be read, or as for [`Self::decode_with`].
    pub fn open_with(path: &Path, options: &DecodeOptions) -> Result<Self> {
        let fail = |message: String| Error::Picture {
            path: path.to_path_buf(),
            message,
        };
        let bytes = read_regular(path).map_err(fail)?;
        Self::decode_with(&bytes, options).map_err(fail)
    }
}

/// Reads a file, but no pipe or device, which may have no end.
///
/// # Errors
/// A sentence, if it is another kind of file, or cannot be read.
pub(crate) fn read_regular(path: &Path) -> std::result::Result<Vec<u8>, String> {
    let fail = |error: std::io::Error| format!("cannot be read: {error}");
    let kind = std::fs::metadata(path).map_err(fail)?;
    if kind.is_dir() {
        return Err("a folder, not a picture".into());
    }
    if !kind.is_file() {
        return Err("a pipe or a device, not a file".into());
    }
    std::fs::read(path).map_err(fail)
}

/// Decodes what is no JPEG.
fn decode_other(bytes: &[u8], format: ImageFormat) -> Result<(DynamicImage, Orientation), String> {
    let fail = |error: ImageError| sentence(format, &error);
    let mut limits = Limits::default();
    limits.max_alloc = Some(MOST_BYTES);
    limits.max_image_width = Some(LONGEST_SIDE);
    limits.max_image_height = Some(LONGEST_SIDE);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
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
    let image = DynamicImage::from_decoder(decoder).map_err(fail)?;
    Ok((image, orientation))
}

/// What a decoder's error means for the file.
fn sentence(format: ImageFormat, error: &ImageError) -> String {
    let name = kind::name(format);
    if ends_early(error) {
        return format!("the {name} data end early ({error})");
    }
    match error {
        ImageError::Limits(_) => format!(
            "a {name} picture that is too large: expected at most {LONGEST_SIDE} pixels in a \
             direction and {MOST_BYTES} bytes in all"
        ),
        ImageError::Unsupported(_) => {
            format!("a kind of {name} that is not read ({error}); save it as PNG")
        }
        _ => format!("the {name} data are damaged ({error})"),
    }
}

/// Returns whether a decoder asked for more bytes than there are.
fn ends_early(error: &ImageError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::UnexpectedEof) {
            return true;
        }
        cause = error.source();
    }
    false
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
            pixels.map(|&[r, g, b]| luma(r, g, b)).collect()
        }
    }
}
