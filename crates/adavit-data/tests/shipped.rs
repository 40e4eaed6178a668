//! Contract: the data set that ships with the repository is unchanged, and an epoch of batches holds
//! each of its images once.

use std::path::{Path, PathBuf};

use adavit_data::{Augment, batches, epoch_order, held_out, load, make_batch};
use candle_core::Device;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn shipped_subset_is_balanced_and_unchanged() {
    let splits = load("fashion-mnist-subset", Some(&repository())).unwrap();
    for (part, per_class, crc) in [
        (&splits.train, 1_000, 0x6e83_a47b_u32),
        (&splits.test, 200, 0xb4bc_ad31),
    ] {
        assert_eq!(part.len(), 10 * per_class);
        assert_eq!(part.dims(), [1, 28, 28]);
        assert_eq!(part.class_names()[9], "Ankle boot");
        let mut counts = [0; 10];
        for &label in part.labels() {
            counts[label as usize] += 1;
        }
        assert_eq!(counts, [per_class; 10]);
        let mut hasher = crc32fast::Hasher::new();
        (0..part.len()).for_each(|i| hasher.update(part.image(i)));
        assert_eq!(hasher.finalize(), crc);
    }
    assert_eq!(crc32fast::hash(splits.train.labels()), 0x113f_72d5);
    assert_eq!(crc32fast::hash(splits.test.labels()), 0x7293_0ec0);
    // Found from this crate's folder through its parents, too.
    assert_eq!(load("fashion-mnist-subset", None).unwrap(), splits);
}

#[test]
fn epoch_of_batches_sees_every_training_image_once() {
    let splits = load("fashion-mnist-subset", Some(&repository())).unwrap();
    let split = held_out(splits.test.len(), 0.1, 0).unwrap();
    let stats = splits.train.normalization();
    let augment = Augment {
        crop_padding: 2,
        flip: true,
        ..Augment::default()
    };
    let order = epoch_order(&split.train, 0, 3);
    let keyed = augment.keyed(0, 3);
    let mut seen = Vec::new();
    for indices in batches(&order, 128) {
        let batch = make_batch(&splits.test, indices, Some(&keyed), &stats, &Device::Cpu).unwrap();
        assert_eq!(batch.images.dims(), [indices.len(), 1, 28, 28]);
        assert_eq!(batch.labels.dims(), [indices.len()]);
        seen.extend(batch.samples);
    }
    seen.sort_unstable();
    assert!(
        seen.into_iter()
            .eq(split.train.iter().map(|&i| u64::from(i)))
    );
}
