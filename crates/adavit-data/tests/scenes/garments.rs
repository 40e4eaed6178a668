//! The garments that scenes are built from: where they come from, and which are refused.

use adavit_data::{Dataset, Error, FASHION_SCENES, Part, load_splits, write_part};

use super::{parts, pixels, repository, scenes};

/// A set of `per_class` garments of each class, whose pixels are all `value(label)`.
fn garments(per_class: usize, value: impl Fn(u8) -> u8) -> Dataset {
    let labels: Vec<u8> = (0..10 * per_class).map(|i| (i % 10) as u8).collect();
    let images = labels.iter().flat_map(|label| [value(*label); 784]);
    let names = (0..10).map(|class| class.to_string()).collect();
    Dataset::new("made", [1, 28, 28], images.collect(), labels.clone(), names).unwrap()
}

/// What is said of scenes built from the IDX files of these sets.
fn refused(train: &Dataset, test: &Dataset) -> String {
    let folder = tempfile::tempdir().unwrap();
    for (part, set) in [(Part::Train, train), (Part::Test, test)] {
        write_part(folder.path(), part, set, &set.indices()).unwrap();
    }
    let error = load_splits(FASHION_SCENES, Some(folder.path())).unwrap_err();
    assert!(error.is_input_error(), "{error:?}");
    error.to_string()
}

#[test]
fn a_folder_of_idx_files_gives_the_garments() {
    let folder = tempfile::tempdir().unwrap();
    let set = garments(2, |label| 100 + label);
    for part in [Part::Train, Part::Test] {
        write_part(folder.path(), part, &set, &set.indices()).unwrap();
    }
    let splits = load_splits(FASHION_SCENES, Some(folder.path())).unwrap();
    for part in parts(&splits) {
        let truth = part.scene_truth(4).unwrap();
        let garment = truth.boxes()[0];
        let image = pixels(part.as_ref(), 4, None);
        let first = garment.window.top * 72 + garment.window.left;
        assert_eq!(u32::from(image[first]), 100 + garment.class);
    }
    let shipped = repository().join("data/fashion-mnist-subset");
    let by_folder = load_splits(FASHION_SCENES, Some(&shipped)).unwrap();
    assert_eq!(
        pixels(by_folder.test.as_ref(), 3, None),
        pixels(scenes().test.as_ref(), 3, None)
    );
}

#[test]
fn garments_that_cannot_be_used_are_refused_with_the_reason() {
    let good = garments(2, |_| 200);
    let dark = garments(2, |label| if label == 3 { 15 } else { 200 });
    let text = refused(&good, &dark);
    assert!(
        text.contains("nothing is seen of garment 3 of fashion-mnist"),
        "{text}"
    );
    // The only garment of a class would be for the held-out scenes.
    let text = refused(&garments(1, |_| 200), &good);
    assert!(
        text.contains("found none of class 0 (T-shirt/top)"),
        "{text}"
    );
    let names = (0..10).map(|class| class.to_string()).collect();
    let small = Dataset::new(
        "small",
        [1, 2, 2],
        vec![99; 80],
        (0..20).map(|i| i % 10).collect(),
        names,
    );
    let small = small.unwrap();
    let text = refused(&small, &small);
    assert!(
        text.contains("28x28 pixels") && text.contains("[1, 2, 2]"),
        "{text}"
    );
}

#[test]
fn missing_and_damaged_garments_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = load_splits(FASHION_SCENES, Some(folder.path())).unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    let text = error.to_string();
    for part in [
        "fashion-scenes is built from garments",
        folder
            .path()
            .join("data/fashion-mnist-subset")
            .to_str()
            .unwrap(),
        "four IDX files",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let shipped = repository().join("data/fashion-mnist-subset");
    for entry in std::fs::read_dir(shipped).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let broken = folder.path().join("train-images-idx3-ubyte.gz");
    let bytes = std::fs::read(&broken).unwrap();
    std::fs::write(&broken, &bytes[..bytes.len() / 2]).unwrap();
    let text = load_splits(FASHION_SCENES, Some(folder.path()))
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("train-images-idx3-ubyte.gz: truncated"),
        "{text}"
    );
}
