//! Small data sets in temporary folders.

use std::fs;
use std::path::Path;

use adavit_data::{Found, OpenOptions, PictureSet, open};
use tempfile::TempDir;

/// A PNG of 3x2 pixels that no other number has.
pub(crate) fn png(number: u8) -> Vec<u8> {
    let pixels: Vec<u8> = (0..18_u8).map(|i| i.wrapping_mul(13) ^ number).collect();
    let image = image::RgbImage::from_raw(3, 2, pixels).unwrap();
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

pub(crate) fn put(root: &Path, path: &str, bytes: &[u8]) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A folder with a picture at each path, all of them different.
pub(crate) fn folder(paths: &[&str]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, number) in paths.iter().zip(0..) {
        put(root.path(), path, &png(number));
    }
    root
}

pub(crate) fn found(path: &Path) -> Found {
    open(path, &OpenOptions::default()).unwrap()
}

/// The error of opening, which no path of the machine is part of.
pub(crate) fn error(path: &Path, options: &OpenOptions) -> String {
    let error = open(path, options).unwrap_err();
    assert!(error.is_input_error());
    error.to_string()
}

/// The index, label and bytes of all pictures.
pub(crate) fn contents(set: &PictureSet) -> Vec<(u32, Vec<u8>)> {
    let picture = |i| (set.label(i), set.bytes(i).unwrap());
    (0..set.len()).map(picture).collect()
}

/// Names in their order.
pub(crate) fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}
