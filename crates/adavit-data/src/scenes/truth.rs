//! What is in a scene. It is known exactly, since the scene is built.

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::picture::Window;

/// A garment in a scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct GarmentBox {
    /// Its class.
    pub class: u32,
    /// The smallest rectangle that holds it.
    #[serde(flatten)]
    pub window: Window,
    /// The pixels that it covers, of those of the rectangle.
    pub area: usize,
}

/// What is in a scene: see [`Labelled::scene_truth`](crate::Labelled::scene_truth).
///
/// Serialised it is `{"garments": N, "area": PIXELS, "boxes": [{"class", "top", "left", "height", "width",
/// "area"}]}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SceneTruth {
    boxes: Vec<GarmentBox>,
}

impl SceneTruth {
    pub(super) fn new(boxes: Vec<GarmentBox>) -> Self {
        Self { boxes }
    }

    /// Returns the number of garments: 1, 3 or 5.
    pub fn garments(&self) -> usize {
        self.boxes.len()
    }

    /// Returns the number of pixels that the garments cover.
    pub fn area(&self) -> usize {
        self.boxes.iter().map(|garment| garment.area).sum()
    }

    /// Returns each garment, in an order that says nothing about it. No two rectangles overlap.
    pub fn boxes(&self) -> &[GarmentBox] {
        &self.boxes
    }
}

impl Serialize for SceneTruth {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut truth = serializer.serialize_struct("SceneTruth", 3)?;
        truth.serialize_field("garments", &self.garments())?;
        truth.serialize_field("area", &self.area())?;
        truth.serialize_field("boxes", &self.boxes)?;
        truth.end()
    }
}
