//! JPEG: whole by zune-jpeg, or at 1/2, 1/4 or 1/8 of the size by jpeg-decoder.
//!
//! A scaled picture takes only the lowest 4x4, 2x2 or 1x1 frequencies of each block of 8x8, so it needs
//! a part of the time and of the memory.

use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, RgbImage};
use jpeg_decoder::{ColorTransform, PixelFormat};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;

use crate::decoding::jpeg_header::{self, Colours, JpegHeader};
use crate::picture::{LONGEST_SIDE, MOST_BYTES};

/// The most bytes of coefficients that a progressive picture may take: 108 megapixels at 4:2:0 take
/// 310 MiB.
const MOST_COEFFICIENT_BYTES: usize = 340 << 20;

/// The scales below 1, the smallest first.
const DIVISORS: [usize; 3] = [8, 4, 2];
/// Those that are faster than all pixels: jpeg-decoder at half the size takes longer than zune-jpeg
/// at all of it.
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
    let image = match divisor {
        1 => whole(bytes, &header)?,
        _ => scaled(bytes, &header, divisor)?,
    };
    Ok((image, header.orientation))
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

/// Decodes all pixels; a code that is none is an error.
fn whole(bytes: &[u8], header: &JpegHeader) -> Result<DynamicImage, String> {
    let fail = |error: zune_jpeg::errors::DecodeErrors| damaged(&error);
    let longest = LONGEST_SIDE as usize;
    let options = DecoderOptions::default()
        .set_max_width(longest)
        .set_max_height(longest);
    let options = options.set_strict_mode(false);
    let mut decoder = zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    // Strict only from here on: some cameras leave bytes between the headers, which is harmless.
    decoder.decode_headers().map_err(fail)?;
    let colours = match (header.colours, decoder.input_colorspace()) {
        (Colours::Grey, _) => ColorSpace::Luma,
        // Red, green and blue that only the names of the components tell: no conversion.
        (Colours::Rgb, Some(ColorSpace::YCbCr)) => ColorSpace::YCbCr,
        _ => ColorSpace::RGB,
    };
    let options = options.set_strict_mode(true);
    decoder.set_options(options.jpeg_set_out_colorspace(colours));
    let pixels = decoder.decode().map_err(fail)?;
    let size = (header.width, header.height);
    match colours {
        ColorSpace::Luma => grey_image(size, pixels),
        _ => colour_image(size, pixels),
    }
}

/// Decodes at a part of the size.
fn scaled(bytes: &[u8], header: &JpegHeader, divisor: usize) -> Result<DynamicImage, String> {
    let fail = |error: jpeg_decoder::Error| damaged(&error);
    let mut decoder = jpeg_decoder::Decoder::new(bytes);
    decoder.set_max_decoding_buffer_size(MOST_BYTES as usize);
    decoder.set_color_transform(match header.colours {
        Colours::Grey => ColorTransform::Grayscale,
        Colours::YCbCr => ColorTransform::YCbCr,
        Colours::Rgb => ColorTransform::RGB,
        Colours::Cmyk => ColorTransform::CMYK,
        Colours::Ycck => ColorTransform::YCCK,
    });
    let side = |side: usize| side.div_ceil(divisor) as u16;
    let size = decoder.scale(side(header.width), side(header.height));
    let (width, height) = size.map_err(fail)?;
    let pixels = decoder.decode().map_err(fail)?;
    let size = (usize::from(width), usize::from(height));
    match decoder.info().map(|info| info.pixel_format) {
        Some(PixelFormat::L8) => grey_image(size, pixels),
        Some(PixelFormat::RGB24) => colour_image(size, pixels),
        Some(PixelFormat::CMYK32) => colour_image(size, inks_to_colours(&pixels)),
        _ => Err("a JPEG of more than 8 bits for a number, which is not read".into()),
    }
}

/// Pillow's conversion: each ink takes its part of what black leaves.
fn inks_to_colours(pixels: &[u8]) -> Vec<u8> {
    let (pixels, _) = pixels.as_chunks::<4>();
    let colour = |ink: u8, black: u8| {
        let light = u32::from(255 - black);
        let product = u32::from(ink) * light + 128;
        // Division by 255, rounded.
        let taken = (product + (product >> 8)) >> 8;
        light.saturating_sub(taken) as u8
    };
    let pixels = pixels.iter();
    pixels
        .flat_map(|[c, m, y, k]| [colour(*c, *k), colour(*m, *k), colour(*y, *k)])
        .collect()
}

fn grey_image((width, height): (usize, usize), pixels: Vec<u8>) -> Result<DynamicImage, String> {
    let image = GrayImage::from_raw(width as u32, height as u32, pixels);
    image.map(DynamicImage::from).ok_or_else(wrong_size)
}

fn colour_image((width, height): (usize, usize), pixels: Vec<u8>) -> Result<DynamicImage, String> {
    let image = RgbImage::from_raw(width as u32, height as u32, pixels);
    image.map(DynamicImage::from).ok_or_else(wrong_size)
}

fn wrong_size() -> String {
    "the JPEG data are damaged: the number of pixels is not that of the header".into()
}

fn damaged(error: &dyn std::fmt::Display) -> String {
    format!("the JPEG data are damaged ({error})")
}
