//! The scenes of one part, as labelled images.

use std::fmt;
use std::sync::OnceLock;

use rayon::prelude::*;

use crate::augmentation::augment::KeyedAugment;
use crate::error::Result;
use crate::labelled::Labelled;
use crate::normalization::{ChannelSums, Normalization};
use crate::rng::{Stream, rng};
use crate::scenes::garments::Garments;
use crate::scenes::protocol::{
    CANVAS, CLASSES, FASHION_SCENES, HELD_OUT_SCENES, SEED, TEST_SCENES, TRAIN_SCENES,
};
use crate::scenes::scene::Scene;
use crate::scenes::truth::SceneTruth;

/// Scenes that mean and deviation are computed from: more change the third digit of nothing.
const MEASURED: usize = 2_000;

/// What scenes are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScenePart {
    /// Training: new scenes in each epoch.
    Train,
    /// Choosing epochs and thresholds.
    HeldOut,
    /// Testing.
    Test,
}

impl ScenePart {
    fn scenes(self) -> usize {
        match self {
            Self::Train => TRAIN_SCENES,
            Self::HeldOut => HELD_OUT_SCENES,
            Self::Test => TEST_SCENES,
        }
    }

    /// The number that keys the fixed scenes of this part.
    fn key(self) -> u64 {
        match self {
            Self::Train => 0,
            Self::HeldOut => 1,
            Self::Test => 2,
        }
    }
}

impl fmt::Display for ScenePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::HeldOut => "held out",
            Self::Test => "test",
        })
    }
}

/// The scenes of one part.
///
/// Sample `i` is of class `i` modulo the number of classes, in every part and every epoch. A training scene
/// is keyed by (seed, epoch, sample) of its augmentation; a scene of another part, or without an
/// augmentation, by (part, sample).
#[derive(Debug)]
pub(super) struct FashionScenes {
    part: ScenePart,
    garments: Garments,
    normalization: OnceLock<Normalization>,
}

impl FashionScenes {
    pub(super) fn new(part: ScenePart, garments: Garments) -> Self {
        Self {
            part,
            garments,
            normalization: OnceLock::new(),
        }
    }

    /// Returns the scene of a sample, as training with `augment` sees it before that changes it.
    pub(super) fn scene(&self, index: usize, augment: Option<&KeyedAugment>) -> Scene {
        let sample = index as u64;
        let mut rng = match augment {
            Some(augment) if self.part == ScenePart::Train => {
                rng(augment.seed(), Stream::Scene, augment.epoch(), sample)
            }
            _ => rng(SEED, Stream::FixedScene, self.part.key(), sample),
        };
        Scene::draw(&self.garments, index % CLASSES, &mut rng)
    }

    #[cfg(test)]
    pub(super) fn garments(&self) -> &Garments {
        &self.garments
    }
}

impl Labelled for FashionScenes {
    fn name(&self) -> &'static str {
        FASHION_SCENES
    }

    fn len(&self) -> usize {
        self.part.scenes()
    }

    fn class_names(&self) -> &[String] {
        self.garments.class_names()
    }

    fn dims(&self) -> [usize; 3] {
        [1, CANVAS, CANVAS]
    }

    fn label(&self, index: usize) -> u32 {
        (index % CLASSES) as u32
    }

    fn place(&self, index: usize) -> String {
        format!("{FASHION_SCENES} ({}): scene {index}", self.part)
    }

    fn normalization(&self) -> Result<Normalization> {
        let measured = || {
            let scenes: Vec<Vec<u8>> = (0..MEASURED)
                .into_par_iter()
                .map(|index| self.scene(index, None).pixels)
                .collect();
            let mut sums = ChannelSums::new(1);
            for scene in &scenes {
                sums.add(scene);
            }
            sums.normalization()
        };
        Ok(self.normalization.get_or_init(measured).clone())
    }

    fn identify(&self, take: &mut dyn FnMut(&[u8])) -> Result<()> {
        take(FASHION_SCENES.as_bytes());
        take(&self.part.key().to_le_bytes());
        self.garments.identify(take);
        Ok(())
    }

    fn pixels(&self, index: usize, augment: Option<&KeyedAugment>, out: &mut [u8]) -> Result<()> {
        let scene = self.scene(index, augment);
        match augment {
            Some(augment) => augment.apply(index as u64, &scene.pixels, self.dims(), out)?,
            None => out.copy_from_slice(&scene.pixels),
        }
        Ok(())
    }

    fn scene_truth(&self, index: usize) -> Option<SceneTruth> {
        Some(self.scene(index, None).truth)
    }
}
