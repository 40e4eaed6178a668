//! What the name of a file says about it: the endings of the pictures that are read, and of those that
//! are known but not read.

use std::path::Path;

/// Endings of picture files that are read, in upper or lower case.
const ENDINGS: [&str; 15] = [
    "jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm", "pbm",
    "pnm", "qoi",
];

/// Endings of pictures that are not read, after the name of their format.
const UNREAD: [(&str, &[&str]); 13] = [
    ("HEIC", &["heic", "heif", "hif"]),
    ("AVIF", &["avif", "avifs"]),
    ("JPEG XL", &["jxl"]),
    ("JPEG 2000", &["jp2", "j2k", "j2c", "jpc", "jpf", "jpx"]),
    ("SVG", &["svg", "svgz"]),
    ("PSD", &["psd", "psb"]),
    ("XCF", &["xcf"]),
    ("EXR", &["exr"]),
    ("HDR", &["hdr"]),
    ("TGA", &["tga"]),
    ("ICO", &["ico", "cur"]),
    ("EPS", &["eps"]),
    (
        "raw",
        &[
            "3fr", "arw", "cr2", "cr3", "crw", "dcr", "dng", "erf", "fff", "iiq", "kdc", "mef",
            "mos", "mrw", "nef", "nrw", "orf", "pef", "raf", "raw", "rw2", "rwl", "sr2", "srf",
            "srw", "x3f",
        ],
    ),
];

/// What a file's ending says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// A picture that is read.
    Picture,
    /// A picture of a kind that is not read.
    OtherPicture,
    /// No picture.
    NoPicture,
}

/// Returns what the ending of a file's name says.
pub(crate) fn ending(name: &str) -> Ending {
    let path = Path::new(name);
    if ends_in(path, &ENDINGS) {
        Ending::Picture
    } else if UNREAD.iter().any(|(_, endings)| ends_in(path, endings)) {
        Ending::OtherPicture
    } else {
        Ending::NoPicture
    }
}

/// Returns whether the name of a file ends like that of a picture that is read; hidden files do not
/// count.
pub(crate) fn is_called_picture(path: &Path) -> bool {
    !is_hidden(path) && ends_in(path, &ENDINGS)
}

/// Returns the format of a picture that is known but not read, by the ending of its name; hidden files
/// have none.
pub(crate) fn unread_format(path: &Path) -> Option<&'static str> {
    let of = |(name, endings): &(&'static str, &[&str])| ends_in(path, endings).then_some(*name);
    UNREAD.iter().find_map(of).filter(|_| !is_hidden(path))
}

/// Returns whether the name of a file starts with a dot.
pub(crate) fn is_hidden(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().starts_with('.')
}

fn ends_in(path: &Path, endings: &[&str]) -> bool {
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    endings
        .iter()
        .any(|known| ending.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_count_in_any_case_and_hidden_files_do_not() {
        for name in ["a.jpg", "a.JFIF", "b/a.b.Tiff", "a.qoi", "a.PNM"] {
            assert!(is_called_picture(Path::new(name)), "{name}");
            assert_eq!(unread_format(Path::new(name)), None, "{name}");
        }
        for name in ["jpg", ".jpg", "._a.jpg", "a.jpg.txt", "a.heic", "a"] {
            assert!(!is_called_picture(Path::new(name)), "{name}");
        }
        assert_eq!(unread_format(Path::new("IMG_1.HEIC")), Some("HEIC"));
        assert_eq!(unread_format(Path::new("a.CR2")), Some("raw"));
        assert_eq!(unread_format(Path::new("._IMG_1.HEIC")), None);
        assert_eq!(unread_format(Path::new("notes.txt")), None);
    }

    #[test]
    fn no_ending_is_both_read_and_not_read() {
        for (_, endings) in UNREAD {
            for ending in endings {
                assert!(!ENDINGS.contains(ending), "{ending}");
            }
        }
    }
}
