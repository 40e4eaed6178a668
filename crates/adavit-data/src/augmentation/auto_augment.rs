//! A policy of drawn operations, by its name: RandAugment, TrivialAugment or 3-Augment.

use std::fmt;
use std::str::FromStr;

use rand::RngCore;
use serde::{Deserialize, Serialize};

use crate::augmentation::interpolation::TrainInterpolation;
use crate::augmentation::ops::affine::Sampling;
use crate::augmentation::ops::op::Op;
use crate::augmentation::rand_augment::RandAugment;
use crate::augmentation::{three_augment, trivial_augment};
use crate::error::{Error, Result};
use crate::picture::Picture;

/// Which policy varies the colours and the shape of a picture; timm's `auto_augment`.
///
/// In a file it is a text: that of [`RandAugment`], `ta_wide` or `3a`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum AutoAugment {
    /// `rand-...`
    Rand(RandAugment),
    /// `ta_wide`: torchvision's `TrivialAugmentWide`.
    TrivialWide,
    /// `3a`: DeiT III's 3-Augment, without the colour jitter that follows it.
    ThreeAugment,
}

/// What the operations need to know besides the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surroundings {
    /// The filter of operations that move pixels; TrivialAugment has its own.
    pub interpolation: TrainInterpolation,
    /// The colour outside of the picture, timm's mean of the data; TrivialAugment has its own.
    pub fill: [u8; 3],
}

impl Default for Surroundings {
    /// Filters drawn at random, and grey.
    fn default() -> Self {
        Self {
            interpolation: TrainInterpolation::Random,
            fill: [128; 3],
        }
    }
}

impl AutoAugment {
    /// Draws the operations for a picture of `(height, width)`, each with how it samples.
    pub fn draw(
        &self,
        size: (usize, usize),
        surroundings: &Surroundings,
        rng: &mut impl RngCore,
    ) -> Vec<(Op, Sampling)> {
        let ops = match self {
            Self::Rand(augment) => augment.draw(size, rng),
            Self::ThreeAugment => vec![three_augment::draw(rng)],
            Self::TrivialWide => {
                let op = trivial_augment::draw(rng).into_iter();
                return op.map(|op| (op, trivial_augment::SAMPLING)).collect();
            }
        };
        let sampling = |_: &Op| Sampling {
            filter: surroundings.interpolation.draw_filter(rng),
            fill: surroundings.fill,
        };
        let samplings: Vec<_> = ops.iter().map(sampling).collect();
        ops.into_iter().zip(samplings).collect()
    }

    /// Returns the picture after the drawn operations, of the same size.
    #[must_use]
    pub fn apply(
        &self,
        picture: Picture,
        surroundings: &Surroundings,
        rng: &mut impl RngCore,
    ) -> Picture {
        let drawn = self.draw(picture.size(), surroundings, rng).into_iter();
        drawn.fold(picture, |picture, (op, sampling)| {
            op.apply(picture, sampling)
        })
    }
}

impl FromStr for AutoAugment {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "ta_wide" => Ok(Self::TrivialWide),
            "3a" => Ok(Self::ThreeAugment),
            _ if text.starts_with("rand") => text.parse().map(Self::Rand),
            _ => Err(Error::Setting(format!(
                "augment.auto_augment: expected \"rand-...\", \"ta_wide\" or \"3a\", found {text:?}"
            ))),
        }
    }
}

/// The text that [`FromStr`] reads.
impl fmt::Display for AutoAugment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rand(augment) => augment.fmt(f),
            Self::TrivialWide => f.write_str("ta_wide"),
            Self::ThreeAugment => f.write_str("3a"),
        }
    }
}

impl TryFrom<String> for AutoAugment {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<AutoAugment> for String {
    fn from(augment: AutoAugment) -> Self {
        augment.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augmentation::ops::affine::Filter;
    use crate::rng::{Stream, rng};

    #[test]
    fn policies_are_texts_in_files() {
        for text in ["rand-m9-n2-p0.5-mstd0.5-inc1", "ta_wide", "3a"] {
            let json = format!("{text:?}");
            let policy: AutoAugment = serde_json::from_str(&json).unwrap();
            assert_eq!(serde_json::to_string(&policy).unwrap(), json);
        }
    }

    #[test]
    fn other_policies_are_refused() {
        for text in ["v0", "original", "augmix-m5", "3", ""] {
            let error = text.parse::<AutoAugment>().unwrap_err().to_string();
            assert!(error.contains("\"ta_wide\" or \"3a\""), "{text}: {error}");
        }
        let json = serde_json::from_str::<AutoAugment>("\"rand-q1\"").unwrap_err();
        assert!(json.to_string().contains("found \"q1\""), "{json}");
    }

    #[test]
    fn filters_and_fill_are_those_of_the_surroundings() {
        let policy: AutoAugment = "rand-p1-n1".parse().unwrap();
        let mut rng = rng(0, Stream::Augment, 0, 0);
        let mut filters = |interpolation| -> Vec<Filter> {
            let surroundings = Surroundings {
                interpolation,
                fill: [1, 2, 3],
            };
            let draw = |_| policy.draw((8, 8), &surroundings, &mut rng)[0].1;
            let samplings: Vec<Sampling> = (0..50).map(draw).collect();
            assert!(samplings.iter().all(|sampling| sampling.fill == [1, 2, 3]));
            samplings.iter().map(|sampling| sampling.filter).collect()
        };
        let random = filters(TrainInterpolation::Random);
        assert!(random.contains(&Filter::Bilinear) && random.contains(&Filter::Bicubic));
        assert!(!random.contains(&Filter::Nearest));
        let bilinear = filters(TrainInterpolation::Bilinear);
        assert!(bilinear.iter().all(|&filter| filter == Filter::Bilinear));
    }

    #[test]
    fn every_policy_keeps_size_and_channels_of_small_pictures() {
        let mut rng = rng(1, Stream::Augment, 0, 0);
        for text in ["rand-m10-n4-p1-mstd2-inc1", "rand-t3aw-p1", "ta_wide", "3a"] {
            let policy: AutoAugment = text.parse().unwrap();
            for size in [(1, 1), (3, 2), (8, 9)] {
                for channels in [1, 3] {
                    let bytes = vec![7; size.0 * size.1 * channels];
                    let picture = Picture::new(channels, size, bytes).unwrap();
                    for _ in 0..30 {
                        let picture = picture.clone();
                        let varied = policy.apply(picture, &Surroundings::default(), &mut rng);
                        assert_eq!((varied.size(), varied.channels()), (size, channels));
                    }
                }
            }
        }
    }
}
