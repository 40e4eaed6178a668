//! Contract: pictures, alone or in a folder of classes, become the numbers that Pillow, torchvision and
//! timm give. `pictures/make.py` wrote the pictures and the numbers.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers here are test code, which clippy does not see"
)]

use std::collections::HashMap;
use std::path::PathBuf;

use adavit_data::{
    CropMode, InputConfig, Interpolation, Labelled, Normalization, OpenOptions, Picture,
    Preprocessing, make_batch, open,
};
use candle_core::{DType, Device, Tensor};

type Tensors = HashMap<String, Tensor>;

fn path(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/pictures");
    folder.join(name)
}

fn input(img_size: (usize, usize), preprocessing: Preprocessing) -> InputConfig {
    InputConfig {
        in_chans: 3,
        img_size,
        preprocessing,
    }
}

/// What `make.py` wrote.
fn expected() -> Tensors {
    candle_core::safetensors::load(path("expected.safetensors"), &Device::Cpu).unwrap()
}

/// The settings of `make.py`, by name.
fn settings() -> [(&'static str, InputConfig); 5] {
    let bicubic = |crop_pct, crop_mode| Preprocessing {
        interpolation: Interpolation::Bicubic,
        crop_pct,
        crop_mode,
    };
    let bilinear = Preprocessing {
        interpolation: Interpolation::Bilinear,
        ..bicubic(0.875, CropMode::Center)
    };
    let center = |crop_pct| bicubic(crop_pct, CropMode::Center);
    [
        ("bicubic_center", input((32, 32), center(0.9))),
        ("bilinear_center", input((40, 40), bilinear)),
        (
            "bicubic_squash",
            input((32, 32), bicubic(1.0, CropMode::Squash)),
        ),
        ("bicubic_wide", input((24, 48), center(0.9))),
        ("bicubic_larger", input((144, 144), center(1.0))),
    ]
}

fn bytes(tensors: &Tensors, name: &str) -> Vec<u8> {
    let tensor = tensors[name].flatten_all().unwrap();
    tensor.to_dtype(DType::U8).unwrap().to_vec1().unwrap()
}

/// The share of bytes that differ by at most 1, and the largest difference.
fn compare(found: &[u8], expected: &[u8]) -> (f64, u8) {
    assert_eq!(found.len(), expected.len());
    let differences = found.iter().zip(expected).map(|(a, b)| a.abs_diff(*b));
    let near = differences.clone().filter(|difference| *difference <= 1);
    let share = near.count() as f64 / found.len() as f64;
    (share, differences.max().unwrap())
}

#[test]
fn pictures_are_resized_and_cropped_like_pillow() {
    let expected = expected();
    for name in [
        "rgb.png",
        "rgb.webp",
        "grey.png",
        "rgba.png",
        "grey_alpha.png",
        "palette.png",
        "grey16.png",
        "rgb16.png",
    ] {
        for (setting, config) in settings() {
            let picture = Picture::open(&path(name), 3).unwrap();
            let found = config.pixels(picture).unwrap();
            let (near, largest) = compare(&found, &bytes(&expected, &format!("{name}/{setting}")));
            println!("{name} {setting}: {near}, {largest}");
            assert!(
                near >= 0.999 && largest <= 2,
                "{name} {setting}: {near}, {largest}"
            );
        }
        let grey = Picture::open(&path(name), 1).unwrap();
        let (near, largest) = compare(grey.bytes(), &bytes(&expected, &format!("{name}/grey")));
        assert!(near == 1.0, "{name} grey: {largest}");
    }
}

#[test]
fn jpegs_of_any_colours_are_turned_upright() {
    let expected = expected();
    for (name, size, most) in [
        ("rgb.jpg", (64, 96), 6),
        ("turned.jpg", (96, 64), 6),
        // The conversion of four inks to colours is the decoder's own.
        ("cmyk.jpg", (64, 96), 12),
    ] {
        let picture = Picture::open(&path(name), 3).unwrap();
        assert_eq!(picture.size(), size, "{name}");
        let (_, config) = &settings()[0];
        let found = config.pixels(picture).unwrap();
        let (_, largest) = compare(&found, &bytes(&expected, &format!("{name}/bicubic_center")));
        // Decoders of JPEG may differ.
        assert!(largest <= most, "{name}: {largest}");
    }
}

#[test]
fn numbers_are_those_of_torchvision() {
    let expected = expected();
    let expected = expected["rgb.png/normalized"].flatten_all().unwrap();
    let (_, config) = &settings()[0];
    let pixels = config.pixels(Picture::open(&path("rgb.png"), 3).unwrap());
    let found = Normalization::imagenet().apply(&pixels.unwrap());
    for (found, expected) in found.iter().zip(expected.to_vec1::<f32>().unwrap()) {
        // One level of a byte, over the smallest deviation.
        assert!((found - expected).abs() <= 1.01 / 255.0 / 0.224);
    }
}

#[test]
fn damaged_pictures_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(path("rgb.png")).unwrap();
    let file = folder.path().join("cut.png");
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let text = Picture::open(&file, 3).unwrap_err().to_string();
    assert!(text.contains("cut.png"), "{text}");
    // A header that claims 4,294,967,295 pixels in each direction.
    let mut huge = bytes;
    huge[16..24].fill(0xff);
    assert!(Picture::decode(&huge, 3).is_err());
}

#[test]
fn a_folder_of_pictures_gives_the_numbers_of_its_files() {
    let folder = tempfile::tempdir().unwrap();
    for (class, name) in [("b", "rgb.png"), ("a", "grey.png"), ("a/more", "rgba.png")] {
        let class = folder.path().join(class);
        std::fs::create_dir_all(&class).unwrap();
        std::fs::copy(path(name), class.join(name)).unwrap();
    }
    let input = input((16, 24), Preprocessing::default());
    let opened = |options: &OpenOptions| open(folder.path(), options);
    let found = opened(&OpenOptions::default())
        .unwrap()
        .tested(input.clone())
        .unwrap();
    assert_eq!(found.class_names(), ["a", "b"]);
    let normalization = Normalization::imagenet();
    let batch = make_batch(&found, &[2, 0, 1], None, &normalization, &Device::Cpu).unwrap();
    assert_eq!(batch.labels.to_vec1::<u32>().unwrap(), [1, 0, 0]);
    assert_eq!(batch.images.dims(), [3, 3, 16, 24]);
    for (image, name) in ["rgb.png", "grey.png", "rgba.png"].into_iter().enumerate() {
        let picture = Picture::open(&path(name), 3).unwrap();
        let expected = normalization.apply(&input.pixels(picture).unwrap());
        let found = batch.images.get(image).unwrap().flatten_all().unwrap();
        assert_eq!(found.to_vec1::<f32>().unwrap(), expected, "{name}");
    }
    let one = OpenOptions {
        num_classes: Some(1),
        ..OpenOptions::default()
    };
    assert!(opened(&one).is_err());
}
