//! CIFAR-10 and CIFAR-100 in their binary form.
//!
//! ```text
//! CIFAR-10   label (1) | 3x32x32 bytes                data_batch_1.bin ... test_batch.bin, batches.meta.txt
//! CIFAR-100  coarse (1) | fine (1) | 3x32x32 bytes    train.bin, test.bin, fine_label_names.txt
//! ```
//!
//! The fine label is the class. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images",
//! 2009.

use std::fs::{self, File};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::formats::left_out::LeftOut;
use crate::formats::part_name::PartName;
use crate::formats::pixels::{Layout, Shape, png};
use crate::formats::store::{Labels, Listed, RawPart, Store, names_of, read_text};
use crate::picture::Picture;

const SHAPE: Shape = Shape {
    channels: 3,
    height: 32,
    width: 32,
    layout: Layout::ChannelsFirst,
};
const PIXELS: usize = 3 * 32 * 32;

/// One of the two data sets.
struct Kind {
    /// Labels in front of the pixels; the last one is the class.
    labels: usize,
    classes: usize,
    names: &'static str,
}

const TEN: Kind = Kind {
    labels: 1,
    classes: 10,
    names: "batches.meta.txt",
};
const HUNDRED: Kind = Kind {
    labels: 2,
    classes: 100,
    names: "fine_label_names.txt",
};

/// Pictures in the records of files.
#[derive(Debug)]
struct Records {
    labels: usize,
    files: Vec<PathBuf>,
    /// The first entry of each file.
    starts: Vec<usize>,
}

impl Records {
    /// The file of an entry, and the place in it.
    fn find(&self, entry: usize) -> (&Path, usize) {
        let file = self.starts.partition_point(|start| *start <= entry) - 1;
        (&self.files[file], entry - self.starts[file])
    }

    fn read(&self, entry: usize) -> Result<Picture> {
        let (path, record) = self.find(entry);
        let fail = |message: String| Error::data(path, format!("record {record} {message}"));
        let mut pixels = vec![0; PIXELS];
        let at = record * (self.labels + PIXELS) + self.labels;
        File::open(path)
            .and_then(|mut file| {
                file.seek(SeekFrom::Start(at as u64))?;
                file.read_exact(&mut pixels)
            })
            .map_err(|error| fail(format!("cannot be read: {error}")))?;
        SHAPE.picture(&pixels).map_err(fail)
    }
}

impl Store for Records {
    fn bytes(&self, entry: usize) -> Result<Vec<u8>> {
        let (path, _) = self.find(entry);
        png(&self.read(entry)?).map_err(|message| Error::data(path, message))
    }

    fn place(&self, entry: usize) -> String {
        let (path, record) = self.find(entry);
        format!("{}: record {record}", path.display())
    }

    fn pixels(&self, entry: usize) -> Option<Result<Picture>> {
        Some(self.read(entry))
    }
}

/// Returns the folder of CIFAR files that a path is or holds, `None` if there is none.
///
/// # Errors
/// If the files are Python's pickles.
pub(crate) fn find(path: &Path) -> Result<Option<PathBuf>> {
    let inner = ["cifar-10-batches-bin", "cifar-100-binary"].map(|name| path.join(name));
    let folders = inner.into_iter().chain([path.to_path_buf()]);
    let is_one = |folder: &PathBuf| {
        let has = |name: &str| folder.join(name).is_file();
        has("data_batch_1.bin")
            || has("test_batch.bin")
            || has("train.bin")
            || has(HUNDRED.names) && has("test.bin")
    };
    if let Some(folder) = folders.into_iter().find(is_one) {
        return Ok(Some(folder));
    }
    let pickles = [
        "data_batch_1",
        "cifar-10-batches-py",
        "cifar-100-python",
        "batches.meta",
    ];
    match pickles.iter().find(|name| path.join(name).exists()) {
        Some(found) => Err(Error::data(
            path,
            format!(
                "{found} is CIFAR as Python's pickles, which are programs and are not read; download the \
                 binary version (cifar-10-binary.tar.gz or cifar-100-binary.tar.gz) and unpack it"
            ),
        )),
        None => Ok(None),
    }
}

/// Lists the pictures of a folder that [`find`] returned.
///
/// # Errors
/// If a file does not hold whole records, or a label is no class.
pub(crate) fn open(folder: &Path) -> Result<Listed> {
    let ten = (1..=5).map(|i| format!("data_batch_{i}.bin"));
    let is_ten =
        folder.join("test_batch.bin").is_file() || folder.join("data_batch_1.bin").is_file();
    let (kind, train, test) = if is_ten {
        (TEN, ten.collect(), "test_batch.bin")
    } else {
        (HUNDRED, vec!["train.bin".to_owned()], "test.bin")
    };
    let names = folder.join(kind.names);
    let class_names = if names.is_file() {
        let names = names_of(&read_text(&names)?);
        names.into_iter().filter(|name| !name.is_empty()).collect()
    } else {
        (0..kind.classes).map(|class| class.to_string()).collect()
    };
    let mut parts = Vec::new();
    for (part, names) in [
        (PartName::Train, train),
        (PartName::Test, vec![test.to_owned()]),
    ] {
        let files: Vec<PathBuf> = names.iter().map(|name| folder.join(name)).collect();
        let (there, missing): (Vec<PathBuf>, Vec<PathBuf>) =
            files.into_iter().partition(|path| path.is_file());
        match (there.is_empty(), missing.first()) {
            (true, _) => {}
            (false, Some(path)) => {
                return Err(Error::data(
                    path,
                    "missing, but others of the part are there; copy it too",
                ));
            }
            (false, None) => parts.push(read_part(part, there, &kind)?),
        }
    }
    Ok(Listed {
        format: "CIFAR binary files",
        carrier: "labels",
        parts,
        class_names,
        left_out: LeftOut::default(),
    })
}

fn read_part(part: PartName, files: Vec<PathBuf>, kind: &Kind) -> Result<RawPart> {
    let mut labels = Labels::default();
    let mut class_of = Vec::new();
    let mut starts = Vec::new();
    for path in &files {
        starts.push(class_of.len());
        for label in read_labels(path, kind)? {
            class_of.push(labels.place(&label.to_string()));
        }
    }
    Ok(RawPart {
        part: Some(part),
        classes: labels.classes,
        class_of,
        empty_classes: Vec::new(),
        by_path: false,
        store: Box::new(Records {
            labels: kind.labels,
            files,
            starts,
        }),
    })
}

fn read_labels(path: &Path, kind: &Kind) -> Result<Vec<u8>> {
    let record = kind.labels + PIXELS;
    let unreadable = |error| Error::data(path, format!("cannot be read: {error}"));
    let size = fs::metadata(path).map_err(unreadable)?.len();
    if size == 0 || size % record as u64 != 0 {
        return Err(Error::data(
            path,
            format!(
                "expected whole records of {record} bytes, found {size} bytes; copy or download it again"
            ),
        ));
    }
    let mut file = BufReader::new(File::open(path).map_err(unreadable)?);
    let mut labels = Vec::new();
    let mut bytes = vec![0; record];
    for i in 0..size / record as u64 {
        file.read_exact(&mut bytes).map_err(unreadable)?;
        let label = bytes[kind.labels - 1];
        if usize::from(label) >= kind.classes {
            return Err(Error::data(
                path,
                format!(
                    "record {i}: expected a label below {}, found {label}; is it another file under this name?",
                    kind.classes
                ),
            ));
        }
        labels.push(label);
    }
    Ok(labels)
}
