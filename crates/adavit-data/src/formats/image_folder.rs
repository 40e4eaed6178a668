//! Folders of pictures, one folder for each class: torchvision's `ImageFolder`.
//!
//! A picture is read, decoded and preprocessed when its batch is made. Memory holds one batch,
//! whatever the number of pictures.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use walkdir::WalkDir;

use crate::error::{Error, Result};
use crate::loader::{Batch, Labelled};
use crate::normalization::Normalization;
use crate::picture::Picture;
use crate::preprocessing::InputConfig;

/// Endings of picture files, in upper or lower case.
const ENDINGS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// Sub-folders that hold the test images where a folder has several parts; the first existing one is
/// used.
const PARTS: [&str; 4] = ["test", "val", "validation", "valid"];

/// The classes that the folders of an [`ImageFolder`] are looked up in.
#[derive(Debug, Clone, Copy)]
pub struct FolderClasses<'a> {
    /// How many classes there may be.
    pub num_classes: usize,
    /// Their names, in the order of their numbers; empty where they have none.
    pub class_names: &'a [String],
}

impl FolderClasses<'_> {
    /// Returns the label of each folder name, and the names of the classes.
    fn number(&self, names: Vec<String>) -> (Vec<usize>, Vec<String>) {
        let label = |name: &String| self.class_names.iter().position(|class| class == name);
        let known: Option<Vec<usize>> = names.iter().map(label).collect();
        match known {
            Some(labels) => (labels, self.class_names.to_vec()),
            None => ((0..names.len()).collect(), names),
        }
    }
}

/// Labelled pictures of any size, one folder for each class.
#[derive(Debug, Clone)]
pub struct ImageFolder {
    name: String,
    input: InputConfig,
    files: Vec<(PathBuf, u32)>,
    class_names: Vec<String>,
}

impl ImageFolder {
    /// Returns whether a folder holds folders of pictures, itself or in one of its parts.
    pub fn is_one(path: &Path) -> bool {
        let classes = class_folders(&part(path)).unwrap_or_default();
        let mut pictures = classes.iter().flat_map(|folder| pictures(folder));
        pictures.any(|files| !files.is_empty())
    }

    /// Lists the pictures of a folder, or of its sub-folder `test`, `val`, `validation` or `valid` if
    /// there is one.
    ///
    /// Each folder is a class. Where every folder has a name of `classes`, labels are the numbers of
    /// those; otherwise they follow the order of the folders' names.
    ///
    /// # Errors
    /// [`Error::Data`] if there is no picture, or there are more folders than `num_classes`.
    pub fn open(path: &Path, input: &InputConfig, classes: FolderClasses) -> Result<Self> {
        let folder = part(path);
        let fail = |message: String| Error::Data {
            path: folder.clone(),
            message,
        };
        let folders = class_folders(&folder);
        let folders = folders.map_err(|error| fail(format!("cannot be read: {error}")))?;
        let names: Vec<String> = folders.iter().map(|folder| file_name(folder)).collect();
        if names == ["train"] {
            return Err(fail(format!(
                "only training pictures: expected one of the folders {} next to train",
                PARTS.join(", ")
            )));
        }
        let (labels, class_names) = classes.number(names);
        if class_names.len() > classes.num_classes {
            return Err(fail(format!(
                "expected at most {} folders, one for each class of the model, found {}",
                classes.num_classes,
                class_names.len()
            )));
        }
        let mut files = Vec::new();
        for (folder, label) in folders.iter().zip(labels) {
            let found =
                pictures(folder).map_err(|error| fail(format!("cannot be read: {error}")))?;
            files.extend(found.into_iter().map(|file| (file, label as u32)));
        }
        if files.is_empty() {
            return Err(fail(format!(
                "no pictures: expected a folder for each class, with files that end in {}",
                ENDINGS.join(", ")
            )));
        }
        Ok(Self {
            name: path.display().to_string(),
            input: input.clone(),
            files,
            class_names,
        })
    }

    /// The pixels of picture `i`, `(channels, height, width)`.
    fn pixels(&self, i: usize) -> Result<Vec<u8>> {
        let picture = Picture::open(&self.files[i].0, self.input.in_chans)?;
        self.input.pixels(picture)
    }
}

impl Labelled for ImageFolder {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.files.len()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn batch(
        &self,
        indices: &[u32],
        normalization: &Normalization,
        device: &Device,
    ) -> Result<Batch> {
        let (height, width) = self.input.img_size;
        let channels = self.input.in_chans;
        let tables = normalization.tables(channels)?;
        let images: Vec<Vec<u8>> = indices
            .par_iter()
            .map(|i| self.pixels(*i as usize))
            .collect::<Result<_>>()?;
        let mut pixels = Vec::with_capacity(indices.len() * channels * height * width);
        for image in &images {
            tables.extend(&mut pixels, image);
        }
        let labels: Vec<u32> = indices.iter().map(|i| self.files[*i as usize].1).collect();
        Ok(Batch {
            images: Tensor::from_vec(pixels, (indices.len(), channels, height, width), device)?,
            labels: Tensor::from_vec(labels, indices.len(), device)?,
            samples: indices.iter().map(|i| u64::from(*i)).collect(),
        })
    }
}

/// The sub-folder to evaluate on; the folder itself, if it has no parts.
fn part(path: &Path) -> PathBuf {
    let mut parts = PARTS.iter().map(|name| path.join(name));
    parts
        .find(|part| part.is_dir() && class_folders(part).is_ok_and(|found| !found.is_empty()))
        .unwrap_or_else(|| path.to_path_buf())
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Sub-folders in the order of their names, except hidden ones.
fn class_folders(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if path.is_dir() && !file_name(&path).starts_with('.') {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Pictures of a folder and its sub-folders, in the order of their names. A link that leads back to
/// its own folder is an error.
fn pictures(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in WalkDir::new(folder).follow_links(true).sort_by_file_name() {
        let entry = entry?;
        if is_called_picture(entry.path()) && !entry.file_type().is_dir() {
            found.push(entry.into_path());
        }
    }
    Ok(found)
}

/// Returns whether the name of a file ends like that of a picture; hidden files do not count.
pub(crate) fn is_called_picture(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    let hidden = file_name(path).starts_with('.');
    !hidden
        && ENDINGS
            .iter()
            .any(|known| ending.eq_ignore_ascii_case(known))
}
