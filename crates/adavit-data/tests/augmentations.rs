//! Contract: operations give what Pillow gives, to the last bit, and a training picture depends on its key
//! only. `tools/record/augmentations.py` wrote `augmentations/ops.txt`.
#![expect(
    clippy::unwrap_used,
    reason = "the helpers here are test code, which clippy does not see"
)]

use adavit_data::{
    AffineFilter, Augment, ColorJitter, Dataset, ErasingMode, Normalization, Op, Picture, Sampling,
    TrainCrop, make_batch,
};
use candle_core::Device;

/// The formula of `augmentations.py`.
fn picture(name: &str) -> Picture {
    let (height, width) = if name.ends_with("large") {
        (37, 50)
    } else {
        (24, 20)
    };
    let channels = if name.starts_with("grey") { 1 } else { 3 };
    let mut bytes = Vec::new();
    for y in 0..height {
        for x in 0..width {
            for c in 0..channels {
                let noise = (x * x + 3 * y * y + 7 * c * x * y) % 23 * 4;
                let value = (x * 9 + y * 4 + c * 40 + noise) % 256;
                let dim = name.ends_with("dim");
                bytes.push(if dim { 40 + value / 3 } else { value } as u8);
            }
        }
    }
    Picture::new(channels, (height, width), bytes).unwrap()
}

fn op(name: &str, argument: f64) -> Op {
    match name {
        "AutoContrast" => Op::AutoContrast,
        "Equalize" => Op::Equalize,
        "Invert" => Op::Invert,
        "Posterize" => Op::Posterize(argument as u32),
        "Solarize" => Op::Solarize(argument),
        "SolarizeAdd" => Op::SolarizeAdd(argument as u8),
        "Contrast" => Op::Contrast(argument),
        "Brightness" => Op::Brightness(argument),
        "Color" => Op::Color(argument),
        "Sharpness" => Op::Sharpness(argument),
        "GaussianBlur" => Op::GaussianBlur(argument),
        "blur23" => Op::GaussianBlur23(argument),
        "Hue" => Op::Hue(argument),
        "Rotate" => Op::Rotate(argument),
        "ShearX" => Op::ShearX(argument),
        "ShearY" => Op::ShearY(argument),
        "TranslateX" => Op::TranslateX(argument),
        "TranslateY" => Op::TranslateY(argument),
        _ => panic!("{name}"),
    }
}

fn filter(name: &str) -> AffineFilter {
    match name {
        "bilinear" => AffineFilter::Bilinear,
        "bicubic" => AffineFilter::Bicubic,
        _ => AffineFilter::Nearest,
    }
}

/// The lines of the file: the picture after the operation, what was recorded, and the line.
fn recorded() -> Vec<(Picture, &'static str, &'static str)> {
    let lines = include_str!("augmentations/ops.txt").lines();
    let lines = lines.filter(|line| !line.starts_with('#'));
    let apply = |line: &'static str| {
        let words: Vec<&str> = line.split(' ').collect();
        let sampling = Sampling {
            filter: filter(words[3]),
            fill: [124, 116, 104],
        };
        let op = op(words[1], words[2].parse().unwrap());
        (op.apply(picture(words[0]), sampling), words[4], line)
    };
    lines.map(apply).collect()
}

#[test]
fn operations_give_the_bytes_of_pillow() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for (picture, expected, line) in recorded() {
        if line.contains("blur23") {
            continue;
        }
        count += 1;
        let found = format!("{:08x}", crc32fast::hash(picture.bytes()));
        if found != expected {
            wrong.push(line);
        }
    }
    assert!(count > 480, "{count}");
    assert!(
        wrong.is_empty(),
        "{} of {count}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn the_blur_of_23_pixels_is_torchvisions_within_one() {
    let mut count = 0;
    for (picture, expected, line) in recorded() {
        if !line.contains("blur23") {
            continue;
        }
        count += 1;
        let digits = expected.as_bytes().chunks(2);
        let hex = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let expected: Vec<u8> = digits.map(hex).collect();
        assert_eq!(picture.bytes().len(), expected.len());
        let differing = picture.bytes().iter().zip(&expected);
        // Both round, one from f32 and one from f64.
        assert!(
            differing.clone().all(|(a, b)| a.abs_diff(*b) <= 1),
            "{line}"
        );
        assert!(differing.filter(|(a, b)| a != b).count() < 5, "{line}");
    }
    assert_eq!(count, 3);
}

/// Everything on.
fn everything() -> Augment {
    Augment {
        crop_padding: 2,
        flip: true,
        random_erasing: 0.5,
        train_crop_mode: TrainCrop::Rrc,
        hflip: 0.5,
        vflip: 0.5,
        auto_augment: Some("rand-m9-n2-mstd0.5-inc1".parse().unwrap()),
        color_jitter: Some(ColorJitter::of(0.4)),
        force_color_jitter: true,
        grayscale_prob: 0.2,
        gaussian_blur_prob: 0.5,
        reprob: 0.5,
        remode: ErasingMode::Pixel,
        ..Augment::default()
    }
}

#[test]
fn a_training_picture_depends_on_seed_epoch_sample_and_repeat_only() {
    let keyed = everything().keyed(1, 2);
    let at = |keyed: adavit_data::KeyedAugment, sample| {
        let varied = keyed
            .train_picture(sample, picture("color"), (16, 12))
            .unwrap();
        assert_eq!((varied.size(), varied.channels()), ((16, 12), 3));
        varied
    };
    let first = at(keyed, 3);
    assert_eq!(at(keyed, 3), first);
    assert_eq!(at(keyed.repeat(0), 3), first);
    assert_ne!(at(keyed, 4), first);
    assert_ne!(at(keyed.repeat(1), 3), first);
    assert_ne!(at(everything().keyed(2, 2), 3), first);
    assert_ne!(at(everything().keyed(1, 3), 3), first);
}

#[test]
fn turning_the_policy_off_leaves_the_crop_and_the_flips() {
    let crop = |auto_augment| {
        let augment = Augment {
            train_crop_mode: TrainCrop::Rrc,
            hflip: 0.5,
            auto_augment,
            ..Augment::default()
        };
        move |sample| {
            let keyed = augment.keyed(0, 0);
            keyed
                .train_picture(sample, picture("color-large"), (20, 20))
                .unwrap()
        }
    };
    // A policy that never applies what it draws.
    let (without, idle) = (crop(None), crop(Some("rand-p0".parse().unwrap())));
    for sample in 0..10 {
        assert_eq!(without(sample), idle(sample));
    }
}

#[test]
fn a_picture_of_the_size_stays_as_it_is_without_settings() {
    let keyed = Augment::default().keyed(0, 0);
    for name in ["color", "grey"] {
        let same = keyed.train_picture(0, picture(name), (24, 20)).unwrap();
        assert_eq!(same, picture(name));
        let smaller = keyed.train_picture(0, picture(name), (8, 8)).unwrap();
        assert_eq!(smaller.size(), (8, 8));
    }
    assert!(keyed.train_picture(0, picture("grey"), (0, 8)).is_err());
}

#[test]
fn images_in_memory_and_pictures_are_varied_alike() {
    let planes = |picture: &Picture| -> Vec<u8> {
        let bytes = picture.bytes();
        (0..3)
            .flat_map(|c| bytes[c..].iter().step_by(3))
            .copied()
            .collect()
    };
    let image = planes(&picture("color"));
    let set = Dataset::new("x", [3, 24, 20], image, vec![0], vec!["a".into()]).unwrap();
    let normalization = Normalization::imagenet();
    let small = Augment {
        crop_padding: 2,
        flip: true,
        random_erasing: 1.0,
        ..Augment::default()
    };
    for augment in [small, everything()] {
        for epoch in 0..6 {
            let keyed = augment.keyed(5, epoch).filled_with_mean(&normalization);
            let batch = make_batch(&set, &[0], Some(&keyed), &normalization, &Device::Cpu).unwrap();
            let found: Vec<f32> = batch.images.flatten_all().unwrap().to_vec1().unwrap();
            let varied = keyed.train_picture(0, picture("color"), (24, 20)).unwrap();
            let mut expected = normalization.apply(&planes(&varied));
            keyed.erase_values(0, &mut expected, [3, 24, 20]);
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn probabilities_of_the_settings_are_those_of_the_results() {
    let rate = |augment: Augment, hit: fn(&Picture) -> bool| {
        let keyed = augment.keyed(0, 0);
        let varied = |sample| {
            keyed
                .train_picture(sample, picture("color"), (24, 20))
                .unwrap()
        };
        (0..400).filter(|&sample| hit(&varied(sample))).count()
    };
    let changed = |picture: &Picture| *picture != self::picture("color");
    let settings: [fn(&mut Augment); 5] = [
        |augment| augment.hflip = 0.25,
        |augment| augment.vflip = 0.25,
        |augment| augment.grayscale_prob = 0.25,
        |augment| augment.gaussian_blur_prob = 0.25,
        |augment| {
            augment.color_jitter = Some(ColorJitter::of(0.4));
            augment.color_jitter_prob = 0.25;
        },
    ];
    for set in settings {
        let mut augment = Augment::default();
        set(&mut augment);
        // Five standard deviations of 8.7; a blur of the least deviation may change nothing.
        let often = rate(augment, changed);
        assert!((50..=144).contains(&often), "{augment:?}: {often}");
    }
}
