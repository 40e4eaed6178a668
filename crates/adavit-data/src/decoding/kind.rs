//! What the first bytes of a file say about it. The name of the file plays no part.

use image::ImageFormat;

/// The formats of pictures that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Decoded by `jpeg.rs`.
    Jpeg,
    /// Decoded by the `image` crate.
    Other(ImageFormat),
}

/// What the errors call the formats that are read.
const READ: &str = "JPEG, PNG, WebP, GIF, BMP, TIFF, PNM or QOI";

/// First bytes of what people keep among pictures, what it is, and what to do with it.
const KNOWN: [(&[u8], &str); 15] = [
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"8BPS", "a PSD picture"),
    (b"gimp xcf", "an XCF picture"),
    (b"\x76\x2f\x31\x01", "an EXR picture"),
    (b"#?RADIANCE", "an HDR picture"),
    (b"\0\0\x01\0", "an ICO picture"),
    (b"%!PS", "a PostScript document"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (
        b"version https://git-lfs",
        "a pointer of Git LFS, not the picture",
    ),
    (b"\x93NUMPY", "a NumPy array"),
];

impl Kind {
    /// Returns the format of a picture.
    ///
    /// # Errors
    /// A sentence that says what the bytes look like, if they are of no format that is read.
    pub(crate) fn of(bytes: &[u8]) -> Result<Self, String> {
        let starts = |start: &[u8]| bytes.starts_with(start);
        let brand = |at: usize| bytes.get(at..at + 4).unwrap_or_default();
        if starts(b"\xff\xd8\xff") {
            return Ok(Self::Jpeg);
        }
        let format = if starts(b"\x89PNG\r\n\x1a\n") {
            ImageFormat::Png
        } else if starts(b"RIFF") && brand(8) == b"WEBP" {
            ImageFormat::WebP
        } else if starts(b"GIF87a") || starts(b"GIF89a") {
            ImageFormat::Gif
        } else if starts(b"BM") {
            ImageFormat::Bmp
        } else if starts(b"II*\0") || starts(b"MM\0*") {
            ImageFormat::Tiff
        } else if is_pnm(bytes) {
            ImageFormat::Pnm
        } else if starts(b"qoif") {
            ImageFormat::Qoi
        } else {
            return Err(unread(bytes));
        };
        Ok(Self::Other(format))
    }
}

/// Returns the name of a format, as people write it.
pub(crate) fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Png => "PNG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Gif => "GIF",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Tiff => "TIFF",
        ImageFormat::Pnm => "PNM",
        ImageFormat::Qoi => "QOI",
        _ => "picture",
    }
}

fn is_pnm(bytes: &[u8]) -> bool {
    matches!(bytes, [b'P', b'1'..=b'7', space, ..] if space.is_ascii_whitespace() || *space == b'#')
}

/// The sentence for bytes that are of no format that is read.
fn unread(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "an empty file, not a picture".into();
    }
    if let Some(what) = container(bytes).or_else(|| known(bytes)) {
        return if what.ends_with("picture") {
            format!("{what}, which is not read: convert it to JPEG or PNG")
        } else {
            format!("{what}: expected a picture ({READ})")
        };
    }
    match text(bytes) {
        Some(what) => format!("{what}, not a picture ({READ})"),
        None => format!("neither {READ}: found {}", first_bytes(bytes)),
    }
}

fn known(bytes: &[u8]) -> Option<&'static str> {
    let found = KNOWN.iter().find(|(start, _)| bytes.starts_with(start));
    found.map(|(_, what)| *what)
}

/// Pictures and films of the ISO container, by their brand; `None` for anything else.
fn container(bytes: &[u8]) -> Option<&'static str> {
    let (kind, brand) = (bytes.get(4..8)?, bytes.get(8..12)?);
    match (kind, brand) {
        (b"ftyp", b"avif" | b"avis") => Some("an AVIF picture"),
        (
            b"ftyp",
            b"heic" | b"heix" | b"hevc" | b"hevx" | b"heim" | b"heis" | b"mif1" | b"msf1",
        ) => Some("a HEIC picture"),
        (b"ftyp", b"crx ") => Some("a raw (CR3) picture"),
        (b"ftyp", _) => Some("a film"),
        _ => None,
    }
}

/// What a file of text is, by its first characters; `None` for bytes that are no text.
fn text(bytes: &[u8]) -> Option<&'static str> {
    let first = &bytes[..bytes.len().min(512)];
    let is_text = |byte: &u8| !byte.is_ascii_control() || byte.is_ascii_whitespace();
    if !first.iter().all(is_text) {
        return None;
    }
    let lower = String::from_utf8_lossy(first).to_ascii_lowercase();
    let start = lower.trim_start_matches('\u{feff}').trim_start();
    let what = if start.contains("<svg") {
        "an SVG drawing"
    } else if start.starts_with("<!doctype html") || start.contains("<html") {
        "a web page (HTML), as a server sends it instead of a missing picture"
    } else if start.starts_with("<?xml") {
        "an XML document"
    } else if start.starts_with(['{', '[']) {
        "a JSON document"
    } else {
        "text"
    };
    Some(what)
}

/// The first bytes, in hexadecimal.
fn first_bytes(bytes: &[u8]) -> String {
    let shown: Vec<String> = bytes
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("the bytes {}", shown.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_read_is_called_by_its_name() {
        for (bytes, expected) in [
            (&b""[..], "an empty file"),
            (
                b"\0\0\0\x18ftypheic\0\0",
                "a HEIC picture, which is not read",
            ),
            (b"\0\0\0\x1cftypavif\0\0", "an AVIF picture"),
            (b"\0\0\0\x1cftypisom\0\0", "a film"),
            (b"\xff\x0a\x00\x00", "a JPEG XL picture"),
            (b"  <!DOCTYPE html><title>404", "a web page (HTML)"),
            (b"<svg width='3'>", "an SVG drawing"),
            (b"{\"error\": 1}", "a JSON document"),
            (b"no picture here\n", "text, not a picture"),
            (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
            (b"\x00\x01\x02\x03", "found the bytes 00 01 02 03"),
            (b"PK\x03\x04", "a zip archive"),
        ] {
            let text = Kind::of(bytes).unwrap_err();
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn the_bytes_decide_the_format() {
        assert_eq!(Kind::of(b"\xff\xd8\xff\xe0"), Ok(Kind::Jpeg));
        assert_eq!(
            Kind::of(b"P5\n1 1\n255\n0"),
            Ok(Kind::Other(ImageFormat::Pnm))
        );
        assert_eq!(Kind::of(b"II*\0"), Ok(Kind::Other(ImageFormat::Tiff)));
        assert!(Kind::of(b"P8\n").is_err());
    }
}
