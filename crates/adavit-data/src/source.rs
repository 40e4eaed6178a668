//! Data sets by name or by folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::dataset::{Dataset, bad_label};
use crate::error::{Error, Result};
use crate::formats::idx::{Part, RawPart, read_part};
use crate::labelled::Labelled;
use crate::scenes::protocol::FASHION_SCENES;

/// Names that [`load_splits`](crate::load_splits) knows; anything else is the path of a folder of IDX files.
pub const KNOWN_NAMES: [&str; 4] = [
    "fashion-mnist-subset",
    "fashion-mnist",
    "mnist",
    FASHION_SCENES,
];

const FASHION_MNIST_CLASSES: [&str; 10] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];

/// The two parts of a data set in memory, of one image size and one list of classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datasets {
    /// Images to train on, and to hold some out from.
    pub train: Dataset,
    /// Images to test on; nothing is chosen by them.
    pub test: Dataset,
}

/// The parts of a data set, in memory or not, of one image size and one list of classes.
#[derive(Clone, Debug)]
pub struct Splits {
    /// Images to train on, and to hold some out from if there are no others to choose by.
    pub train: Arc<dyn Labelled>,
    /// Images to choose epochs and thresholds by, if the data set has such a part.
    pub val: Option<Arc<dyn Labelled>>,
    /// Images to test on; nothing is chosen by them.
    pub test: Arc<dyn Labelled>,
}

impl From<Datasets> for Splits {
    fn from(sets: Datasets) -> Self {
        Self {
            train: Arc::new(sets.train),
            val: None,
            test: Arc::new(sets.test),
        }
    }
}

/// Loads a data set by its name or by the path of a folder of IDX files.
///
/// - `fashion-mnist-subset` ships with the repository: `data/fashion-mnist-subset` under
///   `data_dir` if given, else under the current folder or one of its parents.
/// - `fashion-mnist`, `mnist`: IDX files in `data_dir`; without it, from the Hugging Face hub if
///   built with the feature `hub`.
/// - A path: the classes are `0`, `1`, ... up to the largest training label.
///
/// [`load_splits`](crate::load_splits) opens these and the data sets that are not in memory.
///
/// # Errors
/// [`Error::Unavailable`] if the name is unknown or there is nowhere to look, [`Error::Data`] if a file
/// is missing, damaged or does not fit the others.
pub fn load(name: &str, data_dir: Option<&Path>) -> Result<Datasets> {
    match (name, data_dir) {
        ("fashion-mnist-subset", _) => read_folder(
            name,
            &shipped(name, data_dir)?,
            Some(&FASHION_MNIST_CLASSES),
        ),
        ("fashion-mnist", Some(dir)) => read_folder(name, dir, Some(&FASHION_MNIST_CLASSES)),
        ("mnist", Some(dir)) => read_folder(name, dir, Some(&digits())),
        ("fashion-mnist", None) => from_hub(name, &FASHION_MNIST_CLASSES),
        ("mnist", None) => from_hub(name, &digits()),
        (FASHION_SCENES, _) => Err(Error::Unavailable(format!(
            "data: {name} is not held in memory, but built scene by scene; open it by load_splits"
        ))),
        (path, None) if Path::new(path).is_dir() => read_folder(path, Path::new(path), None),
        (path, Some(dir)) if Path::new(path).is_dir() => Err(Error::Unavailable(format!(
            "data: {path} is a folder already, so data_dir {} has no use; set one of them",
            dir.display()
        ))),
        (path, _) if Path::new(path).components().count() > 1 => Err(Error::Data {
            path: PathBuf::from(path),
            message:
                "no such folder; expected a folder of IDX files, or of pictures to evaluate on"
                    .to_owned(),
        }),
        (unknown, _) => Err(Error::Unavailable(format!(
            "data: no data set and no folder is called {unknown:?}; known names are {}, or set the path of a folder of IDX files",
            KNOWN_NAMES.join(", ")
        ))),
    }
}

fn digits() -> [&'static str; 10] {
    ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
}

/// Finds the folder of a data set that ships with the repository.
fn shipped(name: &str, data_dir: Option<&Path>) -> Result<PathBuf> {
    if let Some(dir) = data_dir {
        let tried = [dir.join("data").join(name), dir.join(name)];
        return tried.iter().find(|path| path.is_dir()).cloned().ok_or_else(|| {
            Error::Unavailable(format!(
                "data set {name} not found, neither at {} nor at {}; set data_dir to the root of the repository",
                tried[0].display(),
                tried[1].display()
            ))
        });
    }
    let current = std::env::current_dir().map_err(Error::io("finding", Path::new(".")))?;
    let found = current
        .ancestors()
        .map(|dir| dir.join("data").join(name))
        .find(|path| path.is_dir());
    found.ok_or_else(|| {
        Error::Unavailable(format!(
            "data set {name} not found: no data/{name} in {} or its parents; run inside the repository, or set data_dir to its root",
            current.display()
        ))
    })
}

fn read_folder(name: &str, dir: &Path, classes: Option<&[&str]>) -> Result<Datasets> {
    let train = read_part(dir, Part::Train)?;
    let test = read_part(dir, Part::Test)?;
    if (train.height, train.width) != (test.height, test.width) {
        return Err(Error::Data {
            path: dir.to_path_buf(),
            message: format!(
                "training images are {}x{}, test images {}x{}; expected one size",
                train.height, train.width, test.height, test.width
            ),
        });
    }
    let class_names: Vec<String> = if let Some(names) = classes {
        names.iter().map(|&name| name.to_owned()).collect()
    } else {
        let largest = train.labels.iter().max().copied().unwrap_or(0);
        (0..=largest).map(|class| class.to_string()).collect()
    };
    Ok(Datasets {
        train: dataset(name, train, class_names.clone())?,
        test: dataset(name, test, class_names)?,
    })
}

fn dataset(name: &str, raw: RawPart, class_names: Vec<String>) -> Result<Dataset> {
    if let Some(message) = bad_label(&raw.labels, class_names.len()) {
        return Err(Error::Data {
            path: raw.labels_path,
            message: format!("{message}; these are the labels of another data set"),
        });
    }
    Dataset::new(
        name,
        [1, raw.height, raw.width],
        raw.images,
        raw.labels,
        class_names,
    )
}

#[cfg(feature = "hub")]
fn from_hub(name: &str, classes: &[&str]) -> Result<Datasets> {
    let [train, test] = crate::formats::hub::load(name, classes)?;
    Ok(Datasets { train, test })
}

#[cfg(not(feature = "hub"))]
fn from_hub(name: &str, _classes: &[&str]) -> Result<Datasets> {
    Err(Error::Unavailable(format!(
        "data set {name} does not ship with the repository, and this program is built without the feature hub, which downloads it; build with that feature, or set data_dir to the folder of its four IDX files"
    )))
}
