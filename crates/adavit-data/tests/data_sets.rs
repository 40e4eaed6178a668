//! Contract: a data set of IDX files loads whole and unchanged, or is refused in one line that names
//! the file, what was expected and what was found.
#![expect(
    clippy::unwrap_used,
    reason = "the helpers here are test code, which clippy does not see"
)]

use std::io::Write;
use std::path::Path;

use adavit_data::{Dataset, Datasets, Error, Part, load, write_part};
use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

const TRAIN_IMAGES: &str = "train-images-idx3-ubyte";
const TRAIN_LABELS: &str = "train-labels-idx1-ubyte";
const TEST_IMAGES: &str = "t10k-images-idx3-ubyte";
const TEST_LABELS: &str = "t10k-labels-idx1-ubyte";

fn idx(header: &[u32], body: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_be_bytes()).collect();
    bytes.extend_from_slice(body);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn images(n: u32) -> Vec<u8> {
    let pixels: Vec<u8> = (0..n * 6).map(|i| (i * 37 % 251) as u8).collect();
    idx(&[0x803, n, 2, 3], &pixels)
}

fn labels(values: &[u8]) -> Vec<u8> {
    idx(&[0x801, values.len() as u32], values)
}

/// A good folder, plain: four training images of three classes, two test images.
fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    put(&dir, TRAIN_IMAGES, &images(4));
    put(&dir, TRAIN_LABELS, &labels(&[0, 2, 1, 2]));
    put(&dir, TEST_IMAGES, &images(2));
    put(&dir, TEST_LABELS, &labels(&[1, 0]));
    dir
}

fn put(dir: &TempDir, name: &str, bytes: &[u8]) {
    std::fs::write(dir.path().join(name), bytes).unwrap();
}

fn load_path(dir: &Path) -> Result<Datasets, Error> {
    load(dir.to_str().unwrap(), None)
}

/// Loads a folder in which `name` holds `bytes`; returns the message of the refusal.
fn refused(name: &str, bytes: &[u8]) -> String {
    let dir = folder();
    put(&dir, name, bytes);
    let error = load_path(dir.path()).unwrap_err();
    assert!(error.is_input_error(), "{error:?}");
    let message = error.to_string();
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.contains(name), "{message} does not name {name}");
    message
}

/// Same images, sizes and labels, whatever the names.
fn assert_same(left: &Datasets, right: &Datasets) {
    for (a, b) in [(&left.train, &right.train), (&left.test, &right.test)] {
        assert_eq!(a.dims(), b.dims());
        assert_eq!(a.labels(), b.labels());
        assert!((0..a.len()).all(|i| a.image(i) == b.image(i)));
    }
}

#[test]
fn plain_gzip_and_dotted_names_give_the_same_data() {
    let plain = folder();
    let splits = load_path(plain.path()).unwrap();
    let (zipped, dotted) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in [TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS] {
        let bytes = std::fs::read(plain.path().join(name)).unwrap();
        put(&zipped, &format!("{name}.gz"), &gzip(&bytes));
        // Compressed under a name without .gz: the content decides.
        put(&dotted, &name.replace("-idx", ".idx"), &gzip(&bytes));
    }
    for dir in [&zipped, &dotted] {
        assert_same(&load_path(dir.path()).unwrap(), &splits);
    }
}

#[test]
fn unknown_folder_has_numbered_classes() {
    let splits = load_path(folder().path()).unwrap();
    assert_eq!(splits.train.class_names(), ["0", "1", "2"]);
    assert_eq!(splits.test.num_classes(), 3);
    assert_eq!(splits.train.dims(), [1, 2, 3]);
    assert_eq!(splits.train.image(0), [0, 37, 74, 111, 148, 185]);
    assert_eq!(splits.train.labels(), [0, 2, 1, 2]);
    assert_eq!((splits.train.len(), splits.test.len()), (4, 2));
}

#[test]
fn several_gzip_members_are_one_file() {
    let dir = folder();
    let bytes = images(4);
    let members = [gzip(&bytes[..20]), gzip(&bytes[20..])].concat();
    put(&dir, TRAIN_IMAGES, &members);
    assert_same(
        &load_path(dir.path()).unwrap(),
        &load_path(folder().path()).unwrap(),
    );
}

#[test]
fn missing_folder_and_missing_file_say_what_was_tried() {
    let dir = folder();
    let missing = dir.path().join("nowhere");
    let message = load_path(&missing).unwrap_err().to_string();
    assert!(message.contains("nowhere: no such folder"), "{message}");
    for (name, data_dir) in [
        ("mnist", &missing),
        ("fashion-mnist", &dir.path().join(TEST_IMAGES)),
    ] {
        let error = load(name, Some(data_dir)).unwrap_err();
        assert!(error.is_input_error());
        assert!(
            error.to_string().contains("expected a folder of the four"),
            "{error}"
        );
    }

    std::fs::remove_file(dir.path().join(TEST_LABELS)).unwrap();
    let message = load_path(dir.path()).unwrap_err().to_string();
    for tried in [
        "t10k-labels-idx1-ubyte.gz, t10k-labels-idx1-ubyte,",
        "t10k-labels.idx1-ubyte",
    ] {
        assert!(message.contains(tried), "{message}");
    }
}

#[test]
fn truncated_and_corrupt_gzip_are_distinguished() {
    let whole = gzip(&images(4));
    for length in [2, 9, 15, whole.len() - 9, whole.len() - 1] {
        let message = refused(TRAIN_IMAGES, &whole[..length]);
        assert!(message.contains("truncated gzip"), "{length}: {message}");
    }
    let mut flipped = whole.clone();
    let sum = whole.len() - 8;
    flipped[sum] ^= 1;
    assert!(refused(TRAIN_IMAGES, &flipped).contains("corrupt gzip"));
    let mut broken = whole.clone();
    broken[10] = 0xff;
    assert!(refused(TRAIN_IMAGES, &broken).contains("corrupt gzip"));
    let followed = [whole, b"garbage after the member".to_vec()].concat();
    assert!(refused(TRAIN_IMAGES, &followed).contains("corrupt gzip"));
}

#[test]
fn wrong_magic_is_refused() {
    let message = refused(TRAIN_IMAGES, &labels(&[0, 1, 2, 0]));
    assert!(
        message.contains("begin with 0x00000803, found 0x00000801"),
        "{message}"
    );
    let message = refused(TEST_LABELS, b"\x89PNG\r\n\x1a\n");
    assert!(message.contains("found 0x89504e47"), "{message}");
}

#[test]
fn truncated_header_and_body_are_refused() {
    let whole = images(4);
    for (length, expected) in [
        (0, "found 0"),
        (3, "found 3"),
        (12, "found 12"),
        (30, "found 14"),
    ] {
        let message = refused(TRAIN_IMAGES, &whole[..length]);
        assert!(
            message.contains("truncated") && message.contains(expected),
            "{message}"
        );
    }
    // A sound gzip of a body that is too short is not a truncated gzip.
    let message = refused(TRAIN_IMAGES, &gzip(&whole[..30]));
    assert!(
        message.contains("expected 24 bytes after the header, found 14"),
        "{message}"
    );
}

#[test]
fn trailing_bytes_are_refused() {
    let long = [images(4), vec![0]].concat();
    for bytes in [gzip(&long), long] {
        assert!(refused(TRAIN_IMAGES, &bytes).contains("found more"));
    }
    let long = [labels(&[0, 1]), vec![0]].concat();
    assert!(refused(TEST_LABELS, &long).contains("found more"));
}

#[test]
fn counts_that_do_not_match_are_refused() {
    let message = refused(TRAIN_IMAGES, &images(3));
    assert!(message.contains("3 images, but"), "{message}");
    assert!(message.contains("holds 4 labels"), "{message}");
}

#[test]
fn empty_sets_and_empty_images_are_refused() {
    assert!(refused(TRAIN_LABELS, &labels(&[])).contains("at least one label"));
    let message = refused(TRAIN_IMAGES, &idx(&[0x803, 4, 0, 3], &[]));
    assert!(message.contains("at least one pixel"), "{message}");
}

#[test]
fn label_without_a_class_is_refused() {
    let message = refused(TEST_LABELS, &labels(&[1, 3]));
    assert!(
        message.contains("label 3 of image 1 is not below the number of classes, 3"),
        "{message}"
    );
    let dir = folder();
    put(&dir, TRAIN_LABELS, &labels(&[0, 10, 1, 2]));
    let error = load("fashion-mnist", Some(dir.path())).unwrap_err();
    assert!(error.to_string().contains("label 10"), "{error}");
}

#[test]
fn parts_of_two_image_sizes_are_refused() {
    let dir = folder();
    put(&dir, TEST_IMAGES, &idx(&[0x803, 2, 1, 1], &[1, 2]));
    let message = load_path(dir.path()).unwrap_err().to_string();
    assert!(
        message.contains("training images are 2x3, test images 1x1"),
        "{message}"
    );
}

#[test]
fn hostile_header_does_not_allocate() {
    let before = peak_virtual_kib();
    // 3.2 GB that are not there, plain and compressed; then more than 64 bits can count.
    let claim = idx(&[0x803, 4, 20_000, 40_000], &[7; 100]);
    assert!(refused(TRAIN_IMAGES, &claim).contains("found 100"));
    assert!(refused(TRAIN_IMAGES, &gzip(&claim)).contains("found 100"));
    let message = refused(
        TRAIN_IMAGES,
        &idx(&[0x803, 4, u32::MAX, u32::MAX], &[7; 100]),
    );
    assert!(
        message.contains("the header claims 4 images of 4294967295x4294967295"),
        "{message}"
    );
    assert!(refused(TRAIN_LABELS, &idx(&[0x801, u32::MAX], &[0; 4])).contains("found 4"));
    // Threads of other tests reserve address space too, far less than this.
    assert!(peak_virtual_kib() - before < 1 << 20);
}

/// The largest address space of this process so far; 0 where the system does not tell.
fn peak_virtual_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

#[test]
fn unknown_name_lists_the_known_ones() {
    let error = load("cifar", None).unwrap_err();
    assert!(error.is_input_error());
    let message = error.to_string();
    for name in [
        "\"cifar\"",
        "fashion-mnist-subset",
        "fashion-mnist,",
        "mnist",
        "path",
    ] {
        assert!(message.contains(name), "{message}");
    }
}

#[cfg(not(feature = "hub"))]
#[test]
fn data_set_that_does_not_ship_asks_for_a_folder_or_the_feature() {
    for name in ["mnist", "fashion-mnist"] {
        let message = load(name, None).unwrap_err().to_string();
        assert!(
            message.contains("data_dir") && message.contains("feature hub"),
            "{message}"
        );
    }
}

#[test]
fn shipped_data_set_that_is_not_there_says_where_it_was_looked_for() {
    let dir = folder();
    let error = load("fashion-mnist-subset", Some(dir.path())).unwrap_err();
    assert!(error.is_input_error());
    let tried = dir.path().join("data/fashion-mnist-subset");
    assert!(
        error.to_string().contains(tried.to_str().unwrap()),
        "{error}"
    );
}

#[test]
fn path_with_a_data_folder_is_refused() {
    let dir = folder();
    let error = load(dir.path().to_str().unwrap(), Some(dir.path())).unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
}

#[test]
fn written_part_reads_back() {
    let dir = folder();
    let splits = load_path(dir.path()).unwrap();
    let out = tempfile::tempdir().unwrap();
    write_part(out.path(), Part::Train, &splits.train, &[1, 3]).unwrap();
    write_part(out.path(), Part::Test, &splits.train, &[0]).unwrap();
    let back = load_path(out.path()).unwrap();
    assert_eq!(back.train.labels(), [2, 2]);
    assert_eq!(back.train.image(0), splits.train.image(1));
    assert_eq!(back.train.image(1), splits.train.image(3));
    assert_eq!(back.test.image(0), splits.train.image(0));
    // Nothing temporary is left beside the four files.
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 4);

    let error = write_part(&out.path().join("none"), Part::Test, &splits.test, &[0]).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
    let colour = Dataset::new("c", [3, 1, 1], vec![0; 3], vec![0], vec!["0".to_owned()]).unwrap();
    assert!(write_part(out.path(), Part::Test, &colour, &[0]).is_err());
}
