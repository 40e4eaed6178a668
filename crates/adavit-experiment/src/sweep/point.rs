//! One point of the curve: a model on the test images.

use std::fmt;
use std::path::{Path, PathBuf};

use adavit_decision::Usage;
use adavit_model::write_file;
use adavit_train::{Evaluation, Evaluator, Machine};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The batch sizes at which speeds are measured.
pub(super) const BATCHES: [usize; 2] = [1, 32];

/// What kind of model a point is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// The dense model.
    Dense,
    /// The adaptive model, trained for its budget.
    Adaptive,
    /// The adaptive model of another budget, its thresholds moved.
    Calibrated,
    /// Random decisions.
    Random,
    /// Random decisions, fine-tuned.
    RandomTuned,
    /// Token reduction by attention.
    Evit,
    /// Token reduction by attention, fine-tuned.
    EvitTuned,
    /// Token reduction by merging.
    Tome,
    /// Token reduction by merging, fine-tuned.
    TomeTuned,
    /// A smaller dense model.
    Smaller,
    /// The adaptive model of a changed recipe.
    Variant,
}

impl ModelKind {
    /// Whether token reduction computes it, which the prepared path cannot run.
    pub(super) fn reduces_tokens(self) -> bool {
        matches!(
            self,
            Self::Evit | Self::EvitTuned | Self::Tome | Self::TomeTuned
        )
    }

    /// Its name in charts and tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Adaptive => "adaptive",
            Self::Calibrated => "adaptive, thresholds moved",
            Self::Random => "random policy",
            Self::RandomTuned => "random policy, fine-tuned",
            Self::Evit => "EViT",
            Self::EvitTuned => "EViT, fine-tuned",
            Self::Tome => "ToMe",
            Self::TomeTuned => "ToMe, fine-tuned",
            Self::Smaller => "smaller dense models",
            Self::Variant => "variants",
        }
    }
}

/// The speed of a model, and the time that it saves of the dense model's, measured in turn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Images per forward.
    pub batch: usize,
    /// Images per second.
    pub images_per_s: f64,
    /// The dense model's time over this model's.
    pub time_saved: f64,
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self {
            batch,
            images_per_s,
            time_saved,
        } = self;
        write!(
            f,
            "batch {batch}: {images_per_s:.0} images/s, time saved {time_saved:.2}"
        )
    }
}

/// A model on the test images. Ratios are in [0, 1], multiply-adds per image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Its name, unique in the sweep.
    pub name: String,
    /// What it is.
    pub kind: ModelKind,
    /// Of its training.
    pub seed: u64,
    /// The share of the dense model's multiply-adds that it was made for.
    pub budget: Option<f64>,
    /// Accuracy; the mean over draws of random decisions.
    pub top1: f64,
    /// Mean multiply-adds; these, their percentiles and the usage are of the first draw of random
    /// decisions.
    pub macs: f64,
    /// What 10 % of the images stay below.
    pub macs_p10: u64,
    /// What 90 % of the images stay below.
    pub macs_p90: u64,
    /// Mean multiply-adds over those of the sweep's dense model.
    pub macs_share: f64,
    /// At batch 1 and at batch 32, by the prepared path; empty for token reduction, which it cannot
    /// run.
    pub speeds: Vec<Speed>,
    /// What these were measured on.
    pub machine: Machine,
    /// The source that measured them.
    pub speeds_commit: String,
    /// What is kept; none where nothing is decided.
    pub usage: Option<Usage>,
    /// The checkpoint.
    pub checkpoint: PathBuf,
    /// Seconds of training, from the dense model on; 0 without.
    pub train_seconds: f64,
    /// The source that measured everything else.
    pub commit: String,
    /// How many draws of random decisions there were; 1 without.
    pub draws: u8,
    /// For each test image, how many draws got it right: a digit each.
    pub right: String,
}

/// How many draws of each image were right.
#[derive(Debug, Default)]
pub(super) struct Right {
    counts: Vec<u8>,
    draws: u8,
}

impl Right {
    /// Adds a draw, which is evaluated to its end.
    pub(super) fn add(&mut self, mut draw: Evaluator) -> Result<Evaluation> {
        let mut right = Vec::with_capacity(self.counts.len());
        for batch in &mut draw {
            right.extend(batch?.iter().map(|image| image.label == image.predicted));
        }
        self.add_draw(&right);
        Ok(draw.finish()?)
    }

    fn add_draw(&mut self, right: &[bool]) {
        self.counts.resize(right.len(), 0);
        for (count, right) in self.counts.iter_mut().zip(right) {
            *count += u8::from(*right);
        }
        self.draws += 1;
    }

    pub(super) fn draws(&self) -> u8 {
        self.draws
    }

    /// The share of images and draws that were right.
    pub(super) fn top1(&self) -> f64 {
        let sum: u64 = self.counts.iter().map(|count| u64::from(*count)).sum();
        sum as f64 / (self.counts.len() as f64 * f64::from(self.draws))
    }

    /// The counts, a digit each.
    pub(super) fn digits(&self) -> String {
        let digits = self.counts.iter().map(|count| char::from(b'0' + count));
        digits.collect()
    }
}

impl Point {
    /// The speed at a batch size.
    pub fn speed(&self, batch: usize) -> Option<&Speed> {
        self.speeds.iter().find(|speed| speed.batch == batch)
    }

    /// The share of draws that got each image right.
    pub(super) fn shares(&self) -> impl Iterator<Item = f64> + '_ {
        let digits = self.right.bytes().map(|digit| f64::from(digit - b'0'));
        digits.map(|count| count / f64::from(self.draws))
    }

    pub(super) fn file(folder: &Path, name: &str) -> PathBuf {
        folder.join(format!("{name}.json"))
    }

    /// Reads the points of these names that were measured, all of the same test images.
    pub(super) fn read_all(
        folder: &Path,
        names: impl Iterator<Item = String>,
    ) -> Result<Vec<Option<Self>>> {
        let points = names.map(|name| Self::read(folder, &name));
        let points = points.collect::<Result<Vec<_>>>()?;
        let mut images = points.iter().flatten();
        if let Some(first) = images.next()
            && let Some(other) = images.find(|point| point.right.len() != first.right.len())
        {
            return Err(Error::File {
                path: Self::file(folder, &other.name),
                message: format!(
                    "expected {} test images, as {} has, found {}; remove the file to measure it \
                     again",
                    first.right.len(),
                    first.name,
                    other.right.len()
                ),
            });
        }
        Ok(points)
    }

    /// Reads the point of a name, if it was measured.
    fn read(folder: &Path, name: &str) -> Result<Option<Self>> {
        let path = Self::file(folder, name);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = std::fs::read(&path).map_err(Error::io("reading", &path))?;
        let damaged = |message: String| Error::File {
            path: path.clone(),
            message: format!("{message}; remove the file to measure it again"),
        };
        let mut point: Self =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        let digits = |digit: u8| digit.is_ascii_digit() && digit - b'0' <= point.draws;
        let right = !point.right.is_empty() && point.right.bytes().all(digits);
        if point.draws == 0 || point.name != name || point.macs <= 0.0 || !right {
            return Err(damaged(format!(
                "expected the point {name}, multiply-adds above 0, and a digit of at most `draws` \
                 for each image"
            )));
        }
        if point.kind.reduces_tokens() {
            // Older files have speeds of candle's operations, which do not compare with the others.
            point.speeds.clear();
        }
        Ok(Some(point))
    }

    /// A point of a test, right where `right` says so: two images a second, twice as fast as the plain
    /// model.
    #[cfg(test)]
    pub(super) fn made(name: &str, kind: ModelKind, right: &str) -> Self {
        let mut counted = Right::default();
        let bits: Vec<bool> = right.chars().map(|digit| digit == '1').collect();
        counted.add_draw(&bits);
        Self {
            name: name.into(),
            kind,
            seed: 0,
            budget: None,
            top1: counted.top1(),
            macs: 1e6,
            macs_p10: 1_000_000,
            macs_p90: 1_000_000,
            macs_share: 0.5,
            speeds: BATCHES
                .map(|batch| Speed {
                    batch,
                    images_per_s: 2.0,
                    time_saved: 2.0,
                })
                .into(),
            machine: Machine::this("cpu"),
            speeds_commit: "test".into(),
            usage: None,
            checkpoint: PathBuf::new(),
            train_seconds: 0.0,
            commit: "test".into(),
            draws: counted.draws(),
            right: counted.digits(),
        }
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(Error::io("making", folder))?;
        let text = serde_json::to_vec_pretty(self).map_err(|error| Error::Encode {
            what: "a point",
            message: format!("{}: {error}", self.name),
        })?;
        Ok(write_file(&Self::file(folder, &self.name), &text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_of_token_reduction_by_a_slower_path_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        for kind in [ModelKind::Evit, ModelKind::TomeTuned, ModelKind::Adaptive] {
            Point::made("a", kind, "101").write(folder.path()).unwrap();
            let point = Point::read(folder.path(), "a").unwrap().unwrap();
            assert_eq!(point.speeds.is_empty(), kind != ModelKind::Adaptive);
        }
    }

    #[test]
    fn a_damaged_point_is_refused_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let point = Point::made("a", ModelKind::Adaptive, "101");
        let names = || ["a", "b"].map(String::from).into_iter();
        let refused = |expected: &str| {
            let error = Point::read_all(folder.path(), names()).unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains(expected) && text.contains("remove the file"),
                "{text}"
            );
        };
        point.write(folder.path()).unwrap();
        let found = Point::read_all(folder.path(), names()).unwrap();
        assert_eq!(found, [Some(point.clone()), None]);

        let damages: [fn(&mut Point); 4] = [
            |point| point.right = "102".into(),
            |point| point.right.clear(),
            |point| point.macs = 0.0,
            |point| point.draws = 0,
        ];
        for damage in damages {
            let mut damaged = point.clone();
            damage(&mut damaged);
            damaged.write(folder.path()).unwrap();
            refused("a.json");
        }
        std::fs::write(Point::file(folder.path(), "a"), "{").unwrap();
        refused("a.json");
        point.write(folder.path()).unwrap();
        let other = Point::made("b", ModelKind::Adaptive, "10");
        other.write(folder.path()).unwrap();
        refused("expected 3 test images, as a has, found 2");
    }
}
