//! CIFAR and IDX files.

use adavit_data::{OpenOptions, Part, PictureSet, write_idx};

use crate::files::{error, folder, found, put};

fn record(labels: &[u8], value: u8) -> Vec<u8> {
    let mut bytes = labels.to_vec();
    for channel in 0..3 {
        bytes.extend([value + channel; 1024]);
    }
    bytes
}

#[test]
fn cifar_10_holds_records_of_a_label_and_planes() {
    let root = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..10).map(|class| format!("class {class}")).collect();
    put(
        root.path(),
        "cifar-10-batches-bin/batches.meta.txt",
        names.join("\n").as_bytes(),
    );
    for i in 1..=5 {
        let bytes = [record(&[i], i), record(&[0], 100 + i)].concat();
        put(
            root.path(),
            &format!("cifar-10-batches-bin/data_batch_{i}.bin"),
            &bytes,
        );
    }
    put(
        root.path(),
        "cifar-10-batches-bin/test_batch.bin",
        &record(&[9], 50),
    );
    let found = found(root.path());
    assert_eq!(found.format, "CIFAR binary files");
    assert_eq!(found.class_names[9], "class 9");
    let train = found.train.unwrap();
    assert_eq!(train.labels(), [1, 0, 2, 0, 3, 0, 4, 0, 5, 0]);
    let picture = train.picture(3, 3).unwrap();
    assert_eq!(
        (picture.size(), &picture.bytes()[..3]),
        ((32, 32), &[102, 103, 104][..])
    );
    assert_eq!(found.test.unwrap().labels(), [9]);
    assert_eq!(
        adavit_data::Picture::decode(&train.bytes(3).unwrap(), 3).unwrap(),
        picture
    );
}

#[test]
fn cifar_100_takes_the_fine_label_and_refuses_what_is_cut_or_foreign() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "train.bin", &record(&[3, 99], 1));
    put(root.path(), "test.bin", &record(&[3, 42], 1));
    let set = found(root.path());
    assert_eq!(set.train.unwrap().labels(), [99]);
    assert_eq!(set.class_names.len(), 100);
    put(root.path(), "test.bin", &record(&[3, 100], 1));
    assert!(error(root.path(), &OpenOptions::default()).contains("below 100, found 100"));
    put(root.path(), "test.bin", &record(&[3, 42], 1)[..3000]);
    assert!(error(root.path(), &OpenOptions::default()).contains("found 3000 bytes"));
    let pickles = tempfile::tempdir().unwrap();
    put(pickles.path(), "data_batch_1", b"\x80");
    assert!(error(pickles.path(), &OpenOptions::default()).contains("binary version"));
}

fn pixels(set: &PictureSet, channels: usize) -> Vec<(u32, adavit_data::Picture)> {
    let picture = |i| (set.label(i), set.picture(i, channels).unwrap());
    (0..set.len()).map(picture).collect()
}

#[test]
fn idx_files_give_back_what_was_packed() {
    let root = folder(&["cat/a.png", "dog/b.png", "dog/c.png"]);
    let set = found(root.path()).whole.unwrap();
    for channels in [1, 3] {
        let packed = tempfile::tempdir().unwrap();
        write_idx(packed.path(), Part::Train, &set, channels).unwrap();
        write_idx(packed.path(), Part::Test, &set, channels).unwrap();
        let found = found(packed.path());
        assert_eq!(found.format, "IDX files");
        assert_eq!(found.class_names, ["cat", "dog"]);
        let expected = pixels(&set, channels);
        assert_eq!(pixels(&found.train.unwrap(), channels), expected);
        assert_eq!(pixels(&found.test.unwrap(), channels), expected);
    }
}

#[test]
fn planes_first_are_understood_too() {
    let root = tempfile::tempdir().unwrap();
    let header = |dims: &[u32], kind: u8| {
        let mut bytes = vec![0, 0, 8, kind];
        bytes.extend(dims.iter().flat_map(|dim| dim.to_be_bytes()));
        bytes
    };
    let mut images = header(&[1, 3, 2, 5], 4);
    images.extend(0..30);
    put(root.path(), "train-images-idx4-ubyte", &images);
    let mut labels = header(&[1], 1);
    labels.push(0);
    put(root.path(), "train-labels-idx1-ubyte", &labels);
    let picture = found(root.path()).train.unwrap().picture(0, 3).unwrap();
    assert_eq!(
        (picture.size(), &picture.bytes()[..4]),
        ((2, 5), &[0, 10, 20, 1][..])
    );
    images[11] = 7;
    put(root.path(), "train-images-idx4-ubyte", &images);
    assert!(error(root.path(), &OpenOptions::default()).contains("truncated"));
}
