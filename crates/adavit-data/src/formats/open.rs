//! Finds what a path holds.

use std::fs;
use std::path::{Path, PathBuf};

use crate::classes::Classes;
use crate::error::{Error, Result};
use crate::formats::left_out::LeftOut;
use crate::formats::listing::list;
use crate::formats::options::OpenOptions;
use crate::formats::part_name::PartName;
use crate::formats::picture_set::PictureSet;
use crate::formats::store::Listed;
use crate::formats::{cifar, disk, idx_pictures, manifest};

/// Folders that shards lie in.
const SHARD_FOLDERS: [&str; 8] = [
    "data",
    "train",
    "val",
    "valid",
    "validation",
    "test",
    "training",
    "testing",
];

/// What each format looks like.
const FORMATS: &str = "expected one of:
  folders of pictures  train/CLASS/x.jpg with val/, valid/, validation/ or test/; or CLASS/x.jpg
  a list               a .csv file with the columns path,label[,split], or .jsonl with the same keys
  parquet shards       train-00000-of-00003.parquet, in the folder or in data/
  tar shards           train-000000.tar with KEY.jpg and KEY.cls or KEY.json, or CLASS/x.jpg
  CIFAR                data_batch_1.bin ... test_batch.bin, or train.bin and test.bin
  IDX                  train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, ...";

/// A data set that was found.
#[derive(Debug)]
pub struct Found {
    /// The format, as `folders of pictures`.
    pub format: &'static str,
    /// The part to train on.
    pub train: Option<PictureSet>,
    /// The part to choose by while training.
    pub val: Option<PictureSet>,
    /// The part to measure at the end.
    pub test: Option<PictureSet>,
    /// All pictures, where the data has no parts.
    pub whole: Option<PictureSet>,
    /// A name for each class, in the order of the labels.
    pub class_names: Vec<String>,
    /// How classes were decided, in a sentence: `classes: 10 folders by name`.
    pub classes: String,
    /// What is not in the parts, and why.
    pub left_out: LeftOut,
}

impl Found {
    /// Iterates over the parts that there are.
    pub fn parts(&self) -> impl Iterator<Item = &PictureSet> {
        let parts = [&self.train, &self.val, &self.test, &self.whole];
        parts.into_iter().flatten()
    }
}

/// Opens the labelled pictures at a path, whatever their format is.
///
/// Formats: folders of classes (also as in Tiny-ImageNet), lists in CSV or JSON lines, parquet shards
/// as on the Hugging Face hub (feature `parquet`), tar shards as WebDataset's (feature `tar`), the
/// binary files of CIFAR, and IDX files.
///
/// # Errors
/// [`Error::Data`] if the path holds none of these, or what it holds is damaged; if labels cannot be
/// matched with the classes of `options`, both are listed.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Found> {
    let listed = match fs::metadata(path) {
        Ok(data) if data.is_dir() => open_folder(path, options)?,
        Ok(_) => open_file(path, options)?,
        Err(error) => {
            return Err(Error::data(
                path,
                format!("cannot be opened: {error}; {FORMATS}"),
            ));
        }
    };
    found(path, listed, options)
}

fn found(path: &Path, listed: Listed, options: &OpenOptions) -> Result<Found> {
    let classes = Classes::decide(path, &listed, options)?;
    let mut found = Found {
        format: listed.format,
        train: None,
        val: None,
        test: None,
        whole: None,
        class_names: classes.names.clone(),
        classes: classes.how.clone(),
        left_out: listed.left_out,
    };
    for part in listed.parts {
        let numbers = classes.numbers(&part.classes);
        let (name, place) = match part.part {
            None => (path.display().to_string(), &mut found.whole),
            Some(part) => {
                let place = match part {
                    PartName::Train => &mut found.train,
                    PartName::Val => &mut found.val,
                    PartName::Test => &mut found.test,
                };
                (format!("{} ({part})", path.display()), place)
            }
        };
        if place.is_some() {
            return Err(Error::data(
                path,
                format!("{name} is there twice; remove one"),
            ));
        }
        *place = Some(PictureSet::new(name, classes.names.clone(), part, &numbers));
    }
    Ok(found)
}

/// The ending of a file's name, in lower case; both of `.tar.gz`.
fn ending(path: &Path) -> String {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .to_ascii_lowercase();
    let mut pieces = name.rsplit('.');
    let last = pieces.next().unwrap_or_default();
    match pieces.next() {
        Some("tar") => format!("tar.{last}"),
        Some(_) => last.to_owned(),
        None => String::new(),
    }
}

/// Endings of compressed archives.
const COMPRESSED: [&str; 5] = ["tar.gz", "tgz", "tar.xz", "tar.zst", "tar.bz2"];

fn open_file(path: &Path, options: &OpenOptions) -> Result<Listed> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let files = [path.to_path_buf()];
    match ending(path).as_str() {
        "csv" | "jsonl" | "ndjson" => manifest::open(path, options),
        "parquet" => open_parquet(path, &files, options),
        "tar" => open_tar(folder, &files, options),
        "zip" => Err(compressed(path)),
        ending if COMPRESSED.contains(&ending) => Err(compressed(path)),
        found => {
            let found = if found.is_empty() {
                "a file without an ending".into()
            } else {
                format!("a .{found} file")
            };
            Err(Error::data(
                path,
                format!("{found} is no data set; {FORMATS}"),
            ))
        }
    }
}

fn compressed(path: &Path) -> Error {
    Error::data(
        path,
        "a compressed archive cannot be read by place; decompress it (gunzip, unzip, tar -xf) and open \
         the .tar files or the folder",
    )
}

fn open_folder(path: &Path, options: &OpenOptions) -> Result<Listed> {
    if let Some(listed) = idx_pictures::open(path)? {
        return Ok(listed);
    }
    if let Some(folder) = cifar::find(path)? {
        return cifar::open(&folder);
    }
    let shards = shards(path, "parquet")?;
    if !shards.is_empty() {
        return open_parquet(path, &shards, options);
    }
    let shards = self::shards(path, "tar")?;
    if !shards.is_empty() {
        check_beside_archives(path, &shards, options)?;
        return open_tar(path, &shards, options);
    }
    if let Some(listed) = disk::open(path, options)? {
        return Ok(listed);
    }
    let names = names(path).unwrap_or_default();
    if let Some(name) = names
        .iter()
        .find(|name| COMPRESSED.contains(&ending(Path::new(name)).as_str()))
    {
        return Err(compressed(&path.join(name)));
    }
    let some: Vec<&str> = names.iter().take(8).map(String::as_str).collect();
    let found = match names.len() {
        0 => "an empty folder".to_owned(),
        n if n > some.len() => format!("{}, ... ({n} entries)", some.join(", ")),
        _ => some.join(", "),
    };
    Err(Error::data(
        path,
        format!("no data set, found {found}; {FORMATS}"),
    ))
}

/// Fails where archives are not all that a folder holds: compressed ones, or folders of pictures.
fn check_beside_archives(path: &Path, shards: &[PathBuf], options: &OpenOptions) -> Result<()> {
    let names = names(path).unwrap_or_default();
    let is_compressed = |name: &&String| COMPRESSED.contains(&ending(Path::new(name)).as_str());
    if let Some(name) = names.iter().find(is_compressed) {
        return Err(compressed(&path.join(name)));
    }
    let (tree, _) = list(path, options.cache.as_deref())?;
    let Some(picture) = tree.pictures.iter().find(|picture| picture.contains('/')) else {
        return Ok(());
    };
    Err(Error::data(
        path,
        format!(
            "expected archives or folders of pictures, found both: {} and {picture}; open the archive by \
             its own path, or move it elsewhere",
            shards[0].display()
        ),
    ))
}

/// The names in a folder, sorted, except hidden ones.
fn names(path: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The files of an ending in a folder; if there is none, in its folders of shards.
fn shards(path: &Path, wanted: &str) -> Result<Vec<PathBuf>> {
    let inside = |folder: &Path| -> Result<Vec<PathBuf>> {
        let names = names(folder)
            .map_err(|error| Error::data(folder, format!("cannot be read: {error}")))?;
        let paths = names.iter().map(|name| folder.join(name));
        Ok(paths
            .filter(|path| ending(path) == wanted && path.is_file())
            .collect())
    };
    let mut found = inside(path)?;
    if found.is_empty() {
        for folder in SHARD_FOLDERS.map(|name| path.join(name)) {
            if folder.is_dir() {
                found.extend(inside(&folder)?);
            }
        }
    }
    Ok(found)
}

#[cfg(feature = "parquet")]
fn open_parquet(path: &Path, files: &[PathBuf], options: &OpenOptions) -> Result<Listed> {
    use crate::formats::{parquet_shards, shard_names};
    if let Some(missing) = shard_names::missing(files).filter(|_| path.is_dir()) {
        return Err(Error::data(
            path,
            format!("{missing}; copy or download it too"),
        ));
    }
    parquet_shards::open(path, files, options)
}

#[cfg(not(feature = "parquet"))]
fn open_parquet(path: &Path, _files: &[PathBuf], _options: &OpenOptions) -> Result<Listed> {
    Err(without(path, "parquet"))
}

#[cfg(feature = "tar")]
fn open_tar(folder: &Path, shards: &[PathBuf], options: &OpenOptions) -> Result<Listed> {
    crate::formats::tar_shards::open(folder, shards, options)
}

#[cfg(not(feature = "tar"))]
fn open_tar(folder: &Path, _shards: &[PathBuf], _options: &OpenOptions) -> Result<Listed> {
    Err(without(folder, "tar"))
}

#[cfg(not(all(feature = "parquet", feature = "tar")))]
fn without(path: &Path, feature: &str) -> Error {
    Error::data(
        path,
        format!(
            "{feature} shards, but this program is built without the feature {feature}; build it with the \
             feature, or convert the data to folders of pictures"
        ),
    )
}
