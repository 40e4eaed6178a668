//! What the markers of a JPEG file say, without its pixels: size, colours, turn, and whether the file
//! is whole.
//!
//! ```text
//! SOI, segments (marker, length, data), SOF, segments, SOS, coded data, ..., EOI
//! ```
//!
//! Source: ITU-T T.81, annex B.

use image::metadata::Orientation;

/// What is known of a JPEG picture before it is decoded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JpegHeader {
    /// Width in the file, before the picture is turned upright.
    pub(crate) width: usize,
    /// Height in the file.
    pub(crate) height: usize,
    /// What the numbers of a pixel are.
    pub(crate) colours: Colours,
    /// The bytes of all coefficients, where a decoder holds them until the last scan; otherwise 0.
    pub(crate) coefficient_bytes: usize,
    /// How the picture is turned upright.
    pub(crate) orientation: Orientation,
}

/// What the numbers of a pixel are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colours {
    /// One number.
    Grey,
    /// Red, green and blue, or luma and two differences.
    Three,
    /// Four inks, or luma, two differences and black; both inverted.
    Inks,
}

const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;

/// A frame header, SOF.
#[derive(Debug)]
struct Frame {
    progressive: bool,
    height: usize,
    width: usize,
    /// How often each is sampled across and down.
    components: Vec<(usize, usize)>,
}

/// What the segments before the first scan hold.
#[derive(Debug, Default)]
struct Segments {
    frame: Option<Frame>,
    orientation: Option<Orientation>,
}

/// Reads the markers of a JPEG file, to the last one.
///
/// # Errors
/// A sentence, if the file does not end with the marker of the end, holds no picture, or is of a kind
/// that is not read.
pub(crate) fn read(bytes: &[u8]) -> Result<JpegHeader, String> {
    let early = || {
        "the JPEG data end early: the end-of-image marker is missing, and so is part of the picture"
            .to_string()
    };
    let mut segments = Segments::default();
    let mut at = 0;
    let first_scan = loop {
        let (marker, data) = next_marker(bytes, at).ok_or_else(early)?;
        if marker == EOI {
            return Err("the JPEG data are damaged: they hold no pixels".into());
        }
        let data = segment(bytes, marker, data).ok_or_else(early)?;
        at = data.end;
        let data = &bytes[data];
        if marker == SOS {
            break data;
        }
        segments.add(marker, data)?;
    };
    if !is_whole(bytes, at) {
        return Err(early());
    }
    segments.header(first_scan)
}

impl Segments {
    fn add(&mut self, marker: u8, data: &[u8]) -> Result<(), String> {
        match marker {
            0xc0..=0xc2 => {
                if self.frame.is_some() {
                    return Err("the JPEG data are damaged: they hold two frames".into());
                }
                self.frame = Some(frame(marker, data)?);
            }
            // DHT, JPG and DAC lie among the frames of other codings.
            0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                return Err(
                    "a lossless, hierarchical or arithmetic JPEG, which is not read: save it as \
                     baseline or progressive"
                        .into(),
                );
            }
            0xe1 => {
                // Of several, the first.
                if let (None, Some(exif)) = (self.orientation, data.strip_prefix(b"Exif\0\0")) {
                    self.orientation = Orientation::from_exif_chunk(exif);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn header(self, first_scan: &[u8]) -> Result<JpegHeader, String> {
        let damaged = "the JPEG data are damaged: a scan comes before its frame";
        let frame = self.frame.ok_or(damaged)?;
        let count = frame.components.len();
        let colours = match count {
            1 => Colours::Grey,
            3 => Colours::Three,
            4 => Colours::Inks,
            _ => {
                return Err(format!("a JPEG of {count} components: expected 1, 3 or 4"));
            }
        };
        let in_one_scan = first_scan.first() == Some(&(count as u8));
        let buffered = frame.progressive || !in_one_scan;
        Ok(JpegHeader {
            width: frame.width,
            height: frame.height,
            colours,
            coefficient_bytes: if buffered {
                frame.coefficient_bytes()
            } else {
                0
            },
            orientation: self.orientation.unwrap_or(Orientation::NoTransforms),
        })
    }
}

impl Frame {
    /// Two bytes for each coefficient of whole blocks of 8x8.
    fn coefficient_bytes(&self) -> usize {
        let most = |of: fn(&(usize, usize)) -> usize| self.components.iter().map(of).max();
        let across = most(|component| component.0).unwrap_or(1);
        let down = most(|component| component.1).unwrap_or(1);
        let units = self.width.div_ceil(8 * across) * self.height.div_ceil(8 * down);
        let blocks: usize = self.components.iter().map(|(h, v)| h * v).sum();
        units * blocks * 64 * 2
    }
}

fn frame(marker: u8, data: &[u8]) -> Result<Frame, String> {
    let damaged = || "the JPEG data are damaged: the frame header is cut or wrong".to_string();
    let [bits, h0, h1, w0, w1, count, components @ ..] = data else {
        return Err(damaged());
    };
    if *bits != 8 {
        return Err(format!(
            "a JPEG of {bits} bits for a number, which is not read: save it with 8"
        ));
    }
    let (components, _) = components.as_chunks::<3>();
    let components: Vec<(usize, usize)> = components
        .iter()
        .take(usize::from(*count))
        .map(|[_, sampling, _]| (usize::from(sampling >> 4), usize::from(sampling & 15)))
        .collect();
    let (height, width) = (
        u16::from_be_bytes([*h0, *h1]),
        u16::from_be_bytes([*w0, *w1]),
    );
    let sampled = |(h, v): &(usize, usize)| (1..=4).contains(h) && (1..=4).contains(v);
    let right = components.len() == usize::from(*count)
        && components.iter().all(sampled)
        && height > 0
        && width > 0;
    if !right {
        return Err(damaged());
    }
    Ok(Frame {
        progressive: marker == 0xc2,
        height: usize::from(height),
        width: usize::from(width),
        components,
    })
}

/// Returns the next marker from `at` on, and where its data start. Bytes in between are skipped, as
/// libjpeg does.
fn next_marker(bytes: &[u8], mut at: usize) -> Option<(u8, usize)> {
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == 0xff)?;
        at += bytes[at..].iter().position(|byte| *byte != 0xff)?;
        let marker = bytes[at];
        at += 1;
        // A zero marks a coded 255.
        if marker != 0 {
            return Some((marker, at));
        }
    }
}

/// The data of a segment, without its length; `None` where the file ends in it.
fn segment(bytes: &[u8], marker: u8, at: usize) -> Option<std::ops::Range<usize>> {
    // Of start, restart and TEM, the marker is all.
    if matches!(marker, 0x01 | 0xd0..=SOI) {
        return Some(at..at);
    }
    let [high, low] = *bytes.get(at..)?.first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let end = at + length.max(2);
    (end <= bytes.len()).then_some(at + 2..end)
}

/// Returns whether the marker of the end follows `at`, the start of the first scan's coded data.
fn is_whole(bytes: &[u8], mut at: usize) -> bool {
    let padding = bytes.iter().rev().take_while(|byte| **byte == 0).count();
    let end = bytes.len() - padding;
    if end >= at + 2 && bytes[..end].ends_with(&[0xff, EOI]) {
        return true;
    }
    while let Some((marker, data)) = next_marker(bytes, at) {
        if marker == EOI {
            return true;
        }
        match segment(bytes, marker, data) {
            Some(data) => at = data.end,
            None => return false,
        }
    }
    false
}
