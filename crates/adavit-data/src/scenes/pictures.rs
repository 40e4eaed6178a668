//! The scenes as pictures of a data set, to be looked at, counted and packed: those of training are the
//! fixed ones, which belong to no epoch.

use std::path::Path;

use crate::error::{Error, Result};
use crate::formats::left_out::LeftOut;
use crate::formats::open::Found;
use crate::formats::part_name::PartName;
use crate::formats::picture_set::PictureSet;
use crate::formats::pixels::png;
use crate::formats::store::{RawPart, Store};
use crate::labelled::Labelled;
use crate::picture::Picture;
use crate::scenes::open::garments;
use crate::scenes::parts::SceneParts;
use crate::scenes::protocol::{CANVAS, FASHION_SCENES};
use crate::scenes::set::FashionScenes;

/// Opens [`FASHION_SCENES`] as pictures; `data_dir` is as for [`load_splits`](crate::load_splits).
///
/// # Errors
/// As for [`load_splits`](crate::load_splits).
pub fn open_scenes(data_dir: Option<&Path>) -> Result<Found> {
    let parts = SceneParts::of(garments(data_dir)?)?;
    let class_names = parts.train.class_names().to_vec();
    let set = |scenes: FashionScenes, part: PartName| {
        let name = format!("{FASHION_SCENES} ({part})");
        let numbers: Vec<u32> = (0..class_names.len() as u32).collect();
        let part = RawPart {
            part: Some(part),
            classes: class_names.clone(),
            class_of: (0..scenes.len()).map(|i| scenes.label(i)).collect(),
            empty_classes: Vec::new(),
            by_path: false,
            store: Box::new(SceneStore(scenes)),
        };
        PictureSet::new(name, class_names.clone(), part, &numbers)
    };
    Ok(Found {
        format: "scenes built from garments",
        train: Some(set(parts.train, PartName::Train)),
        val: Some(set(parts.held_out, PartName::Val)),
        test: Some(set(parts.test, PartName::Test)),
        whole: None,
        classes: format!("classes: {} garments by name", class_names.len()),
        class_names,
        left_out: LeftOut::default(),
    })
}

/// Scenes in place of files.
#[derive(Debug)]
struct SceneStore(FashionScenes);

impl SceneStore {
    fn picture(&self, entry: usize) -> Result<Picture> {
        let scene = self.0.scene(entry, None);
        Picture::new(1, (CANVAS, CANVAS), scene.pixels)
            .map_err(|message| self.fault(entry, message))
    }

    fn fault(&self, entry: usize, message: String) -> Error {
        Error::Picture {
            path: self.place(entry).into(),
            message,
        }
    }
}

impl Store for SceneStore {
    fn bytes(&self, entry: usize) -> Result<Vec<u8>> {
        png(&self.picture(entry)?).map_err(|message| self.fault(entry, message))
    }

    fn place(&self, entry: usize) -> String {
        self.0.place(entry)
    }

    fn pixels(&self, entry: usize) -> Option<Result<Picture>> {
        Some(self.picture(entry))
    }
}
