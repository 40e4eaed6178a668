//! Contract: 1,000 damaged data sets of every format are a clear error or are left out and counted.
//! None ends the program, takes much memory or touches a file outside.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers here are test code, which clippy does not see"
)]

use std::fs;
use std::path::{Path, PathBuf};

use adavit_data::rng::{Stream, below, rng};
use adavit_data::{Faulty, Found, OpenOptions, Part, open, write_idx};
use rand::RngCore;

/// Damaged sets of all formats together.
const CASES: u64 = 1_000;

fn png(number: u8) -> Vec<u8> {
    let image = image::GrayImage::from_raw(2, 2, vec![number, 7, 9, 1]).unwrap();
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn put(root: &Path, path: &str, bytes: &[u8]) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A whole data set: its files, and which of them is opened.
struct Whole {
    files: Vec<(String, Vec<u8>)>,
    opened: &'static str,
}

impl Whole {
    fn of(root: &Path, opened: &'static str) -> Self {
        let mut files = Vec::new();
        collect(root, root, &mut files);
        files.sort();
        Self { files, opened }
    }
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            let name = path
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .replace('\\', "/");
            files.push((name, fs::read(&path).unwrap()));
        }
    }
}

fn build(opened: &'static str, write: impl FnOnce(&Path)) -> Whole {
    let root = tempfile::tempdir().unwrap();
    write(root.path());
    open(&root.path().join(opened), &OpenOptions::default()).unwrap();
    Whole::of(root.path(), opened)
}

fn folder(root: &Path) {
    for (number, class) in [(0, "cat"), (1, "cat"), (2, "dog"), (3, "eel")] {
        put(root, &format!("{class}/{number}.png"), &png(number));
    }
}

fn set(root: &Path) -> adavit_data::PictureSet {
    folder(root);
    open(root, &OpenOptions::default()).unwrap().whole.unwrap()
}

fn wholes() -> Vec<Whole> {
    let mut wholes = vec![
        build("", folder),
        build("", |root| {
            put(root, "train/a/images/0.png", &png(0));
            put(root, "train/b/images/1.png", &png(1));
            put(root, "val/images/2.png", &png(2));
            put(root, "val/images/3.png", &png(3));
            put(
                root,
                "val/val_annotations.txt",
                b"2.png\tb\t0\t0\n3.png\ta\t0\t0\n",
            );
        }),
        build("list.csv", |root| {
            folder(root);
            put(
                root,
                "list.csv",
                b"path,label,split\ncat/0.png,0,train\ndog/2.png,1,train\ncat/1.png,0,val\n",
            );
        }),
        build("list.jsonl", |root| {
            folder(root);
            put(
                root,
                "list.jsonl",
                b"{\"path\":\"cat/0.png\",\"label\":0}\n{\"path\":\"dog/2.png\",\"label\":1}\n",
            );
        }),
        build("", |root| {
            for name in ["train.bin", "test.bin"] {
                let mut bytes = vec![5; 2 * 3074];
                bytes[1] = 0;
                put(root, name, &bytes);
            }
            let names: Vec<String> = (0..100).map(|class| format!("class {class}")).collect();
            put(root, "fine_label_names.txt", names.join("\n").as_bytes());
        }),
        build("", |root| {
            let other = tempfile::tempdir().unwrap();
            write_idx(root, Part::Train, &set(other.path()), 3).unwrap();
            write_idx(root, Part::Test, &set(other.path()), 1).unwrap();
        }),
    ];
    wholes.extend(shards());
    wholes
}

#[cfg(not(all(feature = "tar", feature = "parquet")))]
fn shards() -> Vec<Whole> {
    Vec::new()
}

#[cfg(all(feature = "tar", feature = "parquet"))]
fn shards() -> Vec<Whole> {
    let packed = |write: &dyn Fn(&Path, &adavit_data::PictureSet)| {
        build("", |root| {
            let other = tempfile::tempdir().unwrap();
            write(root, &set(other.path()));
        })
    };
    vec![
        packed(&|root, set| drop(adavit_data::write_tar(root, "train", set, 3).unwrap())),
        packed(&|root, set| drop(adavit_data::write_parquet(root, "train", set, 3).unwrap())),
        build("", |root| {
            let mut tar = tar::Builder::new(Vec::new());
            for (path, number) in [("train/cat/0.png", 0), ("train/dog/1.png", 1)] {
                let bytes = png(number);
                let mut header = tar::Header::new_ustar();
                header.set_size(bytes.len() as u64);
                tar.append_data(&mut header, path, &bytes[..]).unwrap();
            }
            put(root, "x.tar", &tar.into_inner().unwrap());
        }),
    ]
}

/// Damages bytes in one of the ways that files break.
fn damage(bytes: &mut Vec<u8>, random: &mut impl RngCore) {
    let at = |random: &mut _, n: usize| below(random, n.max(1) as u64) as usize;
    let n = bytes.len();
    match below(random, 7) {
        0 => bytes.truncate(at(random, n)),
        1 if n > 0 => {
            for _ in 0..=below(random, 4) {
                let i = at(random, n);
                bytes[i] ^= 1 << below(random, 8);
            }
        }
        2 if n > 0 => {
            let i = at(random, n);
            bytes[i] = random.next_u32() as u8;
        }
        3 => {
            let start = at(random, n);
            let end = (start + 1 + at(random, 64)).min(n);
            bytes[start..end].fill(if below(random, 2) == 0 { 0 } else { 0xff });
        }
        4 => {
            let more: Vec<u8> = (0..=at(random, 40))
                .map(|_| random.next_u32() as u8)
                .collect();
            let i = at(random, n);
            bytes.splice(i..i, more);
        }
        5 => {
            let start = at(random, n);
            let end = (start + 1 + at(random, 600)).min(n);
            drop(bytes.drain(start..end));
        }
        _ => {
            // A number becomes a larger one, or a sign.
            let digits: Vec<usize> = (0..n).filter(|i| bytes[*i].is_ascii_digit()).collect();
            if let Some(i) = digits.get(at(random, digits.len())) {
                let others = [
                    "4294967295",
                    "99999999999999999999",
                    "-1",
                    "../..",
                    "1048577",
                    "\0",
                ];
                let other = others[at(random, others.len())];
                bytes.splice(*i..=*i, other.bytes());
            }
        }
    }
}

/// Reads everything: each picture is one, or an error with its place.
fn read(found: &Found) {
    for set in found.parts() {
        assert_eq!(set.labels().len(), set.len());
        for i in 0..set.len() {
            assert!((set.label(i) as usize) < found.class_names.len());
            assert!(!set.place(i).is_empty());
            let _ = set.bytes(i);
            if let Err(error) = set.picture(i, 3) {
                assert!(!error.to_string().is_empty());
            }
        }
    }
}

/// What lies in a folder, apart from one entry.
fn others(folder: &Path, except: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries.filter(|path| path != except).collect()
}

#[test]
fn a_thousand_damaged_sets_are_errors_or_counted() {
    let wholes = wholes();
    let mut random = rng(7, Stream::Subset, 0, 0);
    let outside = tempfile::tempdir().unwrap();
    let (mut opened, mut refused) = (0, 0);
    for case in 0..CASES {
        let whole = &wholes[(case % wholes.len() as u64) as usize];
        let root = outside.path().join("in");
        fs::create_dir(&root).unwrap();
        let victim = below(&mut random, whole.files.len() as u64) as usize;
        let is_missing = below(&mut random, 20) == 0;
        for (i, (path, bytes)) in whole.files.iter().enumerate() {
            let mut bytes = bytes.clone();
            if i == victim {
                if is_missing {
                    continue;
                }
                damage(&mut bytes, &mut random);
            }
            put(&root, path, &bytes);
        }
        let faulty = if below(&mut random, 2) == 0 {
            Faulty::Refuse
        } else {
            Faulty::LeaveOut
        };
        let options = OpenOptions {
            faulty,
            num_classes: (below(&mut random, 4) == 0).then_some(3),
            ..OpenOptions::default()
        };
        match open(&root.join(whole.opened), &options) {
            Ok(found) => {
                // A file may disappear or shrink between opening and reading.
                let gone = root.join(&whole.files[(case as usize) % whole.files.len()].0);
                if below(&mut random, 4) == 0 && gone.exists() {
                    fs::remove_file(&gone).unwrap();
                }
                read(&found);
                opened += 1;
            }
            Err(error) => {
                assert!(error.is_input_error(), "case {case}: {error}");
                let text = error.to_string();
                assert!(text.len() > 20, "case {case}: {text}");
                refused += 1;
            }
        }
        assert!(others(outside.path(), &root).is_empty(), "case {case}");
        fs::remove_dir_all(&root).unwrap();
    }
    assert!(
        opened > 100 && refused > 100,
        "{opened} opened, {refused} refused"
    );
    assert!(peak_bytes() < 1 << 30);
}

/// The most memory that the process has had, where the system says it.
fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes =
        line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
