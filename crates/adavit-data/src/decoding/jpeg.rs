//! JPEG, whole or at 1/2, 1/4 or 1/8 of its size, with the values of libjpeg-turbo.
//!
//! A scaled picture takes only the lowest 4x4, 2x2 or 1x1 frequencies of each block of 8x8, so it needs
//! a part of the time and of the memory. It has the values of Pillow's `draft` mode.

use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, RgbImage};
use libjpeg_turbo_rs::{Decoder, JpegError, PixelFormat, ScalingFactor};

use crate::decoding::jpeg_header::{self, Colours, JpegHeader};
use crate::picture::{LONGEST_SIDE, MOST_BYTES};

/// The most bytes of coefficients that a progressive picture may take: 108 megapixels at 4:2:0 take
/// 310 MiB.
const MOST_COEFFICIENT_BYTES: usize = 340 << 20;

/// The scales below 1, the smallest first.
const DIVISORS: [usize; 3] = [8, 4, 2];
/// Those that are faster than all pixels: half the size takes as long as all of it.
const FAST_DIVISORS: [usize; 2] = [8, 4];

/// JPEGs of more pixels are decoded at a part of their size, to save memory.
const MOST_WHOLE_PIXELS: usize = 25_000_000;

/// When a picture may be decoded at a part of its size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scaling {
    /// Height and width that are wanted at least, of the upright picture.
    pub(crate) at_least: (usize, usize),
    /// Whether pictures of at most 25 megapixels may be too.
    pub(crate) fast: bool,
}

/// Decodes a JPEG file. The picture is not yet turned upright.
///
/// # Errors
/// A sentence, if the file is not whole, is damaged, too large, or of a kind that is not read.
pub(crate) fn decode(
    bytes: &[u8],
    scaling: Option<Scaling>,
) -> Result<(DynamicImage, Orientation), String> {
    let header = jpeg_header::read(bytes)?;
    let divisor = scaling.map_or(1, |scaling| divisor(&header, scaling));
    check_size(&header, divisor)?;
    Ok((pixels(bytes, &header, divisor)?, header.orientation))
}

/// The divisor of the smallest scale whose sides are at least those wanted.
fn divisor(header: &JpegHeader, scaling: Scaling) -> usize {
    let divisors: &[usize] = match (header.width * header.height, scaling.fast) {
        (pixels, _) if pixels > MOST_WHOLE_PIXELS => &DIVISORS,
        (_, true) => &FAST_DIVISORS,
        (_, false) => &[],
    };
    let (mut height, mut width) = scaling.at_least;
    if is_turned_sideways(header.orientation) {
        std::mem::swap(&mut height, &mut width);
    }
    let large_enough = |divisor: &usize| {
        header.width.div_ceil(*divisor) >= width && header.height.div_ceil(*divisor) >= height
    };
    divisors.iter().copied().find(large_enough).unwrap_or(1)
}

fn is_turned_sideways(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    )
}

fn check_size(header: &JpegHeader, divisor: usize) -> Result<(), String> {
    let JpegHeader { width, height, .. } = *header;
    let bytes = width.div_ceil(divisor) * height.div_ceil(divisor) * 3;
    let longest = LONGEST_SIDE as usize;
    if width > longest || height > longest || bytes as u64 > MOST_BYTES {
        return Err(format!(
            "{width}x{height} pixels: expected at most {LONGEST_SIDE} in a direction and \
             {MOST_BYTES} bytes in all"
        ));
    }
    if header.coefficient_bytes > MOST_COEFFICIENT_BYTES {
        return Err(format!(
            "a progressive JPEG of {width}x{height} pixels takes {} bytes to decode: expected at \
             most {MOST_COEFFICIENT_BYTES}; save it as a baseline JPEG",
            header.coefficient_bytes
        ));
    }
    Ok(())
}

/// Decodes all pixels, or a part of them by `divisor`; a code that is none is an error.
fn pixels(bytes: &[u8], header: &JpegHeader, divisor: usize) -> Result<DynamicImage, String> {
    let fail = |error: JpegError| format!("the JPEG data are damaged ({error})");
    let mut decoder = Decoder::new(bytes).map_err(fail)?;
    decoder.set_stop_on_warning(true);
    decoder.set_scale(ScalingFactor::try_new(1, divisor as u32).map_err(fail)?);
    decoder.set_output_format(match header.colours {
        Colours::Grey => PixelFormat::Grayscale,
        Colours::Three => PixelFormat::Rgb,
        Colours::Inks => PixelFormat::Cmyk,
    });
    let image = decoder.decode_image().map_err(fail)?;
    let (width, height) = (image.width as u32, image.height as u32);
    let image = match header.colours {
        Colours::Grey => GrayImage::from_raw(width, height, image.data).map(DynamicImage::from),
        Colours::Three => RgbImage::from_raw(width, height, image.data).map(DynamicImage::from),
        Colours::Inks => {
            RgbImage::from_raw(width, height, inks_to_colours(&image.data)).map(DynamicImage::from)
        }
    };
    image.ok_or_else(|| {
        "the JPEG data are damaged: the number of pixels is not that of the header".into()
    })
}

/// Pillow's conversion: each ink takes its part of what black leaves. Inks are inverted in the file, as
/// Adobe stores them.
fn inks_to_colours(pixels: &[u8]) -> Vec<u8> {
    let (pixels, _) = pixels.as_chunks::<4>();
    let colour = |ink: u8, black: u8| {
        let light = u32::from(black);
        let product = u32::from(255 - ink) * light + 128;
        // Division by 255, rounded.
        let taken = (product + (product >> 8)) >> 8;
        light.saturating_sub(taken) as u8
    };
    let pixels = pixels.iter();
    pixels
        .flat_map(|[c, m, y, k]| [colour(*c, *k), colour(*m, *k), colour(*y, *k)])
        .collect()
}
