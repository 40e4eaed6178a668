//! Contract: pictures of every format are decoded to Pillow's values, and a file that is cut, damaged
//! or no picture is an error, never half a picture or a panic. `kinds/make.py` wrote the pictures and
//! the values.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers here are test code, which clippy does not see"
)]

use std::collections::HashMap;
use std::path::PathBuf;

use adavit_data::{DecodeOptions, Picture};
use candle_core::{Device, Tensor};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/kinds")
}

/// Name and bytes of every picture, in the order of the names.
fn files() -> Vec<(String, Vec<u8>)> {
    let mut names: Vec<String> = expected().into_keys().collect();
    names.sort();
    let read = |name: String| {
        let bytes = std::fs::read(folder().join(&name)).unwrap();
        (name, bytes)
    };
    names.into_iter().map(read).collect()
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap()
}

fn expected() -> HashMap<String, Tensor> {
    tensors("expected.safetensors")
}

fn tensors(name: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(folder().join(name), &Device::Cpu).unwrap()
}

/// The largest and the mean difference of two pictures of one size.
fn differences(found: &[u8], expected: &[u8]) -> (u8, f64) {
    assert_eq!(found.len(), expected.len());
    let differences = found.iter().zip(expected).map(|(a, b)| a.abs_diff(*b));
    let sum: f64 = differences.clone().map(f64::from).sum();
    (differences.max().unwrap_or(0), sum / found.len() as f64)
}

fn is_jpeg(name: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(_, ending)| ending == "jpg")
}

/// How far a decoder may be from Pillow's.
fn most(name: &str) -> u8 {
    // Rounded once more than in Pillow.
    u8::from(["lossy.webp", "jpeg.tif", "cmyk.tif"].contains(&name))
}

#[test]
fn every_kind_has_the_values_of_pillow() {
    let mut wrong = Vec::new();
    for (name, tensor) in expected() {
        let picture = Picture::decode(&file(&name), 3);
        let picture = match picture {
            Ok(picture) => picture,
            Err(error) => {
                wrong.push(format!("{name}: {error}"));
                continue;
            }
        };
        let (height, width, _) = tensor.dims3().unwrap();
        if picture.size() != (height, width) {
            wrong.push(format!("{name}: {:?} {height}x{width}", picture.size()));
            continue;
        }
        let values: Vec<u8> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        let (largest, mean) = differences(picture.bytes(), &values);
        if largest > most(&name) || mean > 0.6 {
            wrong.push(format!("{name}: differences to {largest}, mean {mean:.2}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_cut_file_is_an_error_or_whole() {
    for (name, bytes) in files() {
        // Of numbers as text, the last one may lose a digit and still be a number.
        if name == "plain.pgm" {
            continue;
        }
        let whole = Picture::decode(&bytes, 3).unwrap();
        let lengths = (0..bytes.len()).step_by(11);
        for length in lengths.chain(bytes.len().saturating_sub(12)..bytes.len()) {
            match Picture::decode(&bytes[..length], 3) {
                Ok(found) => assert!(
                    found == whole && !is_jpeg(&name),
                    "{name} of {length} bytes"
                ),
                Err(message) => assert!(!message.is_empty()),
            }
        }
    }
}

#[test]
fn a_cut_jpeg_says_that_its_data_end_early() {
    for name in ["420.jpg", "progressive.jpg", "restarts.jpg", "cmyk.jpg"] {
        let bytes = file(name);
        for percent in [35, 50, 90] {
            let error = Picture::decode(&bytes[..bytes.len() * percent / 100], 3).unwrap_err();
            assert!(error.contains("end early"), "{name} {percent} %: {error}");
        }
        // All pixels, but not the marker of the end.
        let error = Picture::decode(&bytes[..bytes.len() - 2], 3).unwrap_err();
        assert!(error.contains("end early"), "{name}: {error}");
    }
}

#[test]
fn bytes_after_the_end_change_nothing() {
    for (name, mut bytes) in files() {
        // The formats that are numbers as text have no end but that of the file.
        if name == "plain.pgm" {
            continue;
        }
        let whole = Picture::decode(&bytes, 3).unwrap();
        bytes.extend(b"bytes that are no part of the picture\xff\xd8\xff\0");
        assert_eq!(Picture::decode(&bytes, 3), Ok(whole), "{name}");
    }
}

#[test]
fn damaged_codes_of_a_jpeg_are_an_error() {
    let mut bytes = file("444.jpg");
    let scan = bytes
        .windows(2)
        .position(|pair| pair == [0xff, 0xda])
        .unwrap();
    let middle = scan + (bytes.len() - scan) / 2;
    // Ones only: a code that no table holds.
    for pair in bytes[middle..middle + 12].chunks_exact_mut(2) {
        pair.copy_from_slice(&[0xff, 0]);
    }
    let error = Picture::decode(&bytes, 3).unwrap_err();
    assert!(error.contains("the JPEG data are damaged"), "{error}");
}

#[test]
fn a_wrong_checksum_of_a_png_is_an_error() {
    let mut bytes = file("rgb.png");
    let data = bytes.windows(4).position(|name| name == b"IDAT").unwrap();
    bytes[data + 30] ^= 1;
    let error = Picture::decode(&bytes, 3).unwrap_err();
    assert!(error.contains("the PNG data are damaged"), "{error}");
}

#[test]
fn a_kind_that_is_not_read_says_so() {
    let error = Picture::decode(&file("unread/palette.tif"), 3).unwrap_err();
    assert!(error.contains("a kind of TIFF that is not read"), "{error}");
    let mut lossless = file("grey.jpg");
    let frame = lossless
        .windows(2)
        .position(|pair| pair == [0xff, 0xc0])
        .unwrap();
    lossless[frame + 1] = 0xc3;
    let error = Picture::decode(&lossless, 3).unwrap_err();
    assert!(
        error.contains("a lossless, hierarchical or arithmetic JPEG"),
        "{error}"
    );
}

#[test]
fn a_picture_of_another_name_is_decoded_by_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("really_a_png.jpg");
    std::fs::write(&path, file("rgb.png")).unwrap();
    assert!(Picture::open(&path, 3).is_ok());
    std::fs::write(&path, "<!DOCTYPE html><html><title>404</title></html>").unwrap();
    let error = Picture::open(&path, 3).unwrap_err().to_string();
    assert!(error.contains("really_a_png.jpg: a web page"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_device_is_no_picture() {
    let error = Picture::open("/dev/zero".as_ref(), 3).unwrap_err();
    assert!(error.to_string().contains("a pipe or a device"), "{error}");
}

#[test]
fn a_scaled_jpeg_is_the_smallest_that_is_large_enough() {
    let fast = |name: &str, at_least| {
        let options = DecodeOptions {
            channels: 3,
            at_least: Some(at_least),
            fast_decode: true,
        };
        Picture::decode_with(&file(name), &options).unwrap()
    };
    // 19x26 pixels in the file.
    for (at_least, size) in [
        ((1, 1), (3, 4)),
        ((4, 4), (5, 7)),
        ((5, 7), (5, 7)),
        // Half the size is no faster than all of it.
        ((5, 8), (19, 26)),
        ((100, 100), (19, 26)),
    ] {
        for name in [
            "420.jpg",
            "progressive.jpg",
            "cmyk.jpg",
            "ycck.jpg",
            "grey.jpg",
            "rgb.jpg",
        ] {
            assert_eq!(fast(name, at_least).size(), size, "{name} {at_least:?}");
        }
    }
    // Turned sideways, so 26x19 pixels upright.
    assert_eq!(fast("turned6.jpg", (7, 5)).size(), (7, 5));
    // Not asked for: all pixels.
    let options = DecodeOptions {
        channels: 3,
        at_least: Some((1, 1)),
        fast_decode: false,
    };
    let whole = Picture::decode_with(&file("420.jpg"), &options);
    assert_eq!(whole, Picture::decode(&file("420.jpg"), 3));
}

#[test]
fn a_scaled_jpeg_has_the_values_of_pillows_draft() {
    for (name, tensor) in tensors("expected_scaled.safetensors") {
        let (height, width, _) = tensor.dims3().unwrap();
        let options = DecodeOptions {
            channels: 3,
            at_least: Some((height, width)),
            fast_decode: true,
        };
        let (_, of_file) = name.split_once(' ').unwrap();
        let picture = Picture::decode_with(&file(of_file), &options).unwrap();
        assert_eq!(picture.size(), (height, width), "{name}");
        let values: Vec<u8> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(differences(picture.bytes(), &values).0, 0, "{name}");
    }
}

/// Numbers that are the same everywhere: splitmix64.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) % bound as u64) as usize
    }

    /// Changes, leaves out or repeats a few bytes.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = 0xff,
                2 => bytes[at] = 0,
                3 => bytes[at] = self.below(256) as u8,
                4 => {
                    let end = (at + self.below(9)).min(bytes.len());
                    bytes.drain(at..end);
                }
                _ => {
                    let end = (at + self.below(9)).min(bytes.len());
                    let again = bytes[at..end].to_vec();
                    bytes.splice(at..at, again);
                }
            }
            if bytes.is_empty() {
                return;
            }
        }
    }
}

#[test]
fn damaged_files_are_errors_or_pictures_never_panics() {
    let mut numbers = Numbers(7);
    let files = files();
    for round in 0..4000 {
        let (name, bytes) = &files[round % files.len()];
        let mut bytes = bytes.clone();
        numbers.damage(&mut bytes);
        let options = DecodeOptions {
            channels: if round % 2 == 0 { 3 } else { 1 },
            at_least: (round % 3 == 0).then_some((5, 5)),
            fast_decode: true,
        };
        let done = std::panic::catch_unwind(|| Picture::decode_with(&bytes, &options));
        let decoded = done.unwrap_or_else(|_| panic!("{name}, round {round}"));
        match decoded {
            Ok(picture) => assert!(picture.bytes().len() <= 1 << 28),
            Err(message) => assert!(!message.is_empty()),
        }
    }
}
