//! Folders of classes on disk, as torchvision's `ImageFolder` and Tiny-ImageNet have them.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::formats::folders::{Assigned, Rules};
use crate::formats::listing::list;
use crate::formats::options::OpenOptions;
use crate::formats::paths::Paths;
use crate::formats::store::{Listed, MOST_FILE_BYTES, RawPart, Store, read_file, read_text};

/// Pictures in files of their own.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) root: PathBuf,
    pub(crate) paths: Paths,
}

impl Store for Files {
    fn bytes(&self, entry: usize) -> Result<Vec<u8>> {
        let path = self.root.join(self.paths.get(entry));
        read_file(&path, MOST_FILE_BYTES)
    }

    fn place(&self, entry: usize) -> String {
        let path = self.root.join(self.paths.get(entry));
        path.display().to_string()
    }
}

/// Lists a folder; `None` if there is no picture in it.
///
/// # Errors
/// As for [`list`] and [`Rules::assign`].
pub(crate) fn open(root: &Path, options: &OpenOptions) -> Result<Option<Listed>> {
    let (tree, mut left_out) = list(root, options.cache.as_deref())?;
    if tree.pictures.is_empty() {
        return match left_out.pictures() {
            0 => Ok(None),
            _ => Err(Error::data(
                root,
                format!("no picture that can be read:\n{left_out}"),
            )),
        };
    }
    let rules = Rules {
        root,
        tree: &tree,
        read: &|file| read_text(&root.join(file)),
        faulty: options.faulty,
    };
    let assigned = rules.assign(&mut left_out)?;
    let part = |found: Assigned| {
        let paths = found
            .pictures
            .iter()
            .map(|i| tree.pictures[*i as usize].as_str());
        RawPart {
            part: found.part,
            classes: found.classes,
            class_of: found.class_of,
            empty_classes: found.empty_classes,
            by_path: true,
            store: Box::new(Files {
                root: root.to_path_buf(),
                paths: paths.collect(),
            }),
        }
    };
    Ok(Some(Listed {
        format: "folders of pictures",
        carrier: "folders",
        parts: assigned.into_iter().map(part).collect(),
        class_names: Vec::new(),
        left_out,
    }))
}
