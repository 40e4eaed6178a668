//! Contract of `fashion-scenes`: its protocol is frozen, a scene is what its truth says, and no scene depends
//! on anything but its key.
#![expect(
    clippy::unwrap_used,
    reason = "the helpers here are test code, which clippy does not see"
)]

mod garments;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use adavit_data::{
    Augment, BatchPlan, FASHION_SCENES, KeyedAugment, Labelled, Loader, LoaderOptions, SceneTruth,
    Splits, Subset, Window, epoch_order, load, load_splits,
};
use candle_core::Device;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn scenes() -> Splits {
    load_splits(FASHION_SCENES, Some(&repository())).unwrap()
}

fn parts(splits: &Splits) -> [Arc<dyn Labelled>; 3] {
    [
        Arc::clone(&splits.train),
        Arc::clone(splits.val.as_ref().unwrap()),
        Arc::clone(&splits.test),
    ]
}

/// An augmentation that changes nothing but the key of the scene.
fn keyed(seed: u64, epoch: u64) -> KeyedAugment {
    let nothing = Augment {
        crop_padding: 0,
        flip: false,
        random_erasing: 0.0,
        ..Augment::default()
    };
    nothing.keyed(seed, epoch)
}

fn pixels(set: &dyn Labelled, index: usize, augment: Option<&KeyedAugment>) -> Vec<u8> {
    let mut out = vec![0; 72 * 72];
    set.pixels(index, augment, &mut out).unwrap();
    out
}

#[test]
fn the_protocol_is_frozen() {
    let splits = scenes();
    let [train, held_out, test] = parts(&splits);
    let lengths = [&train, &held_out, &test].map(|part| part.len());
    assert_eq!(lengths, [40_000, 4_000, 10_000]);
    let epoch = keyed(7, 3);
    let mut sums = Vec::new();
    for (part, augment) in [
        (&train, None),
        (&train, Some(&epoch)),
        (&held_out, None),
        (&test, None),
    ] {
        let mut hasher = crc32fast::Hasher::new();
        for index in (0..40).chain([3_999]) {
            hasher.update(&pixels(part.as_ref(), index, augment));
        }
        sums.push(hasher.finalize());
    }
    // Whatever changes one of these numbers makes another data set, whose results do not compare.
    // `reference.py` beside this file makes the same scenes from docs/scenes.md alone.
    assert_eq!(
        sums,
        [0x53de_7e7b, 0xc08a_93b4, 0xb957_5b1e, 0x44d3_fe32],
        "{sums:#x?}"
    );
    let statistics = train.normalization().unwrap();
    let found = (statistics.mean[0], statistics.std[0]);
    assert_eq!(
        found,
        (f64::from(0.132_909_76_f32), f64::from(0.275_976_45_f32))
    );
}

#[test]
fn a_scene_is_what_its_truth_says() {
    for part in parts(&scenes()) {
        let mut counts = [0_i32; 6];
        for index in 0..600 {
            let truth = part.scene_truth(index).unwrap();
            let label = part.label(index);
            assert_eq!(label as usize, index % 10);
            assert_majority(&truth, label);
            assert_apart(&truth);
            let image = pixels(part.as_ref(), index, None);
            let mut area = 0;
            for garment in truth.boxes() {
                let Window {
                    top,
                    left,
                    height,
                    width,
                } = garment.window;
                assert!(top + height <= 72 && left + width <= 72, "{garment:?}");
                // The longer side of what is seen of a garment is at least half of its picture's.
                assert!((10..=30).contains(&height.max(width)), "{garment:?}");
                let rows = (top..top + height).map(|row| &image[row * 72 + left..][..width]);
                let bright = rows.flatten().filter(|pixel| **pixel >= 16).count();
                assert!(garment.area > 0 && garment.area <= bright, "{garment:?}");
                area += garment.area;
            }
            assert_eq!(truth.area(), area);
            counts[truth.garments()] += 1;
        }
        // Within five standard deviations of a binomial (600, 1/3).
        for n in [1, 3, 5] {
            assert!((counts[n] - 200).abs() < 58, "{counts:?}");
        }
    }
}

/// More than half of the garments are of the label's class, and no two others share a class.
fn assert_majority(truth: &SceneTruth, label: u32) {
    let mut of_class = [0; 10];
    for garment in truth.boxes() {
        of_class[garment.class as usize] += 1;
    }
    let n = truth.garments();
    assert!([1, 3, 5].contains(&n), "{n}");
    for (class, of_class) in of_class.into_iter().enumerate() {
        if class == label as usize {
            assert_eq!(of_class, n / 2 + 1, "{truth:?}");
        } else {
            assert!(of_class <= 1, "{truth:?}");
        }
    }
}

/// No two garments have a pixel in common.
fn assert_apart(truth: &SceneTruth) {
    let mut taken = vec![false; 72 * 72];
    for garment in truth.boxes() {
        let window = garment.window;
        for row in window.top..window.top + window.height {
            for place in &mut taken[row * 72 + window.left..][..window.width] {
                assert!(!*place, "{truth:?}");
                *place = true;
            }
        }
    }
}

#[test]
fn all_classes_are_equally_likely() {
    for part in parts(&scenes()) {
        let mut counts = [0; 10];
        (0..part.len()).for_each(|index| counts[part.label(index) as usize] += 1);
        assert_eq!(counts, [part.len() / 10; 10]);
        assert_eq!(part.class_names()[9], "Ankle boot");
        assert_eq!(part.dims(), [1, 72, 72]);
    }
}

#[test]
fn training_scenes_are_new_in_each_epoch_and_for_each_seed() {
    let train = scenes().train;
    for index in [0, 17, 39_999] {
        let draws = [(0, 0), (0, 1), (1, 0)].map(|(seed, epoch)| keyed(seed, epoch));
        let mut seen: Vec<Vec<u8>> = draws
            .iter()
            .map(|augment| pixels(train.as_ref(), index, Some(augment)))
            .collect();
        seen.push(pixels(train.as_ref(), index, None));
        for again in &draws {
            assert!(seen.contains(&pixels(train.as_ref(), index, Some(again))));
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 4, "{index}");
    }
}

#[test]
fn held_out_and_test_scenes_depend_on_the_sample_alone() {
    let splits = scenes();
    for part in &parts(&splits)[1..] {
        for index in [0, 17, 3_999] {
            let fixed = pixels(part.as_ref(), index, None);
            for augment in [keyed(0, 0), keyed(9, 4)] {
                assert_eq!(pixels(part.as_ref(), index, Some(&augment)), fixed);
            }
        }
    }
    // They are drawn from other keys and garments.
    let [train, held_out, test] = parts(&splits).map(|part| pixels(part.as_ref(), 5, None));
    assert!(train != held_out && train != test && held_out != test);
}

#[test]
fn a_repeat_of_a_scene_is_the_same_scene() {
    let train = scenes().train;
    let (first, second) = (keyed(2, 3), keyed(2, 3).repeat(1));
    assert_eq!(
        pixels(train.as_ref(), 8, Some(&first)),
        pixels(train.as_ref(), 8, Some(&second))
    );
}

#[test]
fn augmentation_varies_the_scene_of_its_epoch() {
    let train = scenes().train;
    let flipping = Augment {
        crop_padding: 0,
        flip: true,
        random_erasing: 0.0,
        ..Augment::default()
    };
    let mut flipped = 0;
    for index in 0..40 {
        let plain = pixels(train.as_ref(), index, Some(&keyed(1, 2)));
        let varied = pixels(train.as_ref(), index, Some(&flipping.keyed(1, 2)));
        let mirrored: Vec<u8> = plain
            .chunks_exact(72)
            .flat_map(|row| row.iter().rev().copied())
            .collect();
        assert!(varied == plain || varied == mirrored);
        flipped += usize::from(varied == mirrored);
    }
    assert!((8..=32).contains(&flipped), "{flipped}");
}

#[test]
fn batches_are_the_same_for_any_number_of_workers_and_after_a_resume() {
    let train = scenes().train;
    let normalization = train.normalization().unwrap();
    let order = epoch_order(&(0..200).collect::<Vec<_>>(), 5, 1);
    let made = |workers: usize, first: usize| -> Vec<Vec<f32>> {
        let options = LoaderOptions {
            workers,
            ..LoaderOptions::default()
        };
        let set = Arc::clone(&train);
        let loader = Loader::new(set, normalization.clone(), Device::Cpu, options).unwrap();
        let plan = BatchPlan {
            augment: Some(keyed(5, 1)),
            ..BatchPlan::of_order(&order, 32, first)
        };
        let batches = loader.batches(plan).unwrap();
        batches
            .map(|batch| batch.unwrap().images.flatten_all().unwrap())
            .map(|images| images.to_vec1().unwrap())
            .collect()
    };
    let alone = made(0, 0);
    assert_eq!(alone.len(), 7);
    for workers in [1, 3] {
        assert!(made(workers, 0) == alone, "{workers} workers");
    }
    // A run that resumes within the epoch has made four of them.
    assert!(made(2, 4) == alone[4..]);
}

#[test]
fn a_subset_knows_the_truth_of_its_scenes() {
    let test = scenes().test;
    let some = Subset::new("some".into(), Arc::clone(&test), vec![7, 3]);
    assert_eq!(some.scene_truth(0), test.scene_truth(7));
    assert_eq!(some.scene_truth(1), test.scene_truth(3));
    let garments = load("fashion-mnist-subset", Some(&repository())).unwrap();
    assert_eq!(garments.test.scene_truth(0), None);
}

#[test]
fn parts_are_told_apart_by_their_bytes() {
    let sum = |part: &Arc<dyn Labelled>| {
        let mut hasher = crc32fast::Hasher::new();
        part.identify(&mut |bytes| hasher.update(bytes)).unwrap();
        hasher.finalize()
    };
    let splits = scenes();
    let [train, held_out, test] = parts(&splits).map(|part| sum(&part));
    assert!(train != held_out && train != test && held_out != test);
    assert_eq!(sum(&scenes().train), train);
}

#[test]
fn the_places_of_scenes_name_their_part() {
    let [train, held_out, test] = parts(&scenes()).map(|part| part.place(12));
    assert_eq!(train, "fashion-scenes (train): scene 12");
    assert_eq!(held_out, "fashion-scenes (held out): scene 12");
    assert_eq!(test, "fashion-scenes (test): scene 12");
}

#[test]
fn scenes_are_not_loaded_into_memory_as_a_whole() {
    let text = load(FASHION_SCENES, Some(&repository()))
        .unwrap_err()
        .to_string();
    assert!(text.contains("load_splits"), "{text}");
}

#[cfg(feature = "pictures")]
#[test]
fn the_scenes_are_also_pictures() {
    let found = adavit_data::open_scenes(Some(&repository())).unwrap();
    let splits = scenes();
    for (set, part) in found.parts().zip(parts(&splits)) {
        assert_eq!(set.len(), part.len());
        for index in [0, 11, 3_999] {
            assert_eq!(set.label(index), part.label(index));
            let picture = set.picture(index, 1).unwrap();
            assert_eq!(picture.bytes(), pixels(part.as_ref(), index, None));
        }
    }
    let names: Vec<&str> = found.parts().map(adavit_data::PictureSet::name).collect();
    assert_eq!(
        names,
        [
            "fashion-scenes (train)",
            "fashion-scenes (val)",
            "fashion-scenes (test)"
        ]
    );
}
