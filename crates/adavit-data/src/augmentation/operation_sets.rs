//! The sets of operations that RandAugment draws from, with timm's weights.

use rand::RngCore;

use crate::augmentation::levels::Kind;
use crate::rng::{below, unit};

/// A set by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Set {
    All,
    Increasing,
    Weights,
    ThreeAugment,
    WeightedThreeAugment,
}

impl Set {
    /// The operations and how often each is drawn.
    pub(super) fn weights(self) -> &'static [(Kind, f64)] {
        match self {
            Self::All => &ALL,
            Self::Increasing => &INCREASING,
            Self::Weights => &WEIGHTS,
            Self::ThreeAugment => &THREE_AUGMENT,
            Self::WeightedThreeAugment => &WEIGHTED_THREE_AUGMENT,
        }
    }

    /// Whether an operation is drawn at most once, as timm does where weights differ.
    pub(super) fn without_replacement(self) -> bool {
        matches!(self, Self::Weights | Self::WeightedThreeAugment)
    }

    /// Draws `count` operations, or all of them if there are fewer and none is drawn twice.
    pub(super) fn draw(self, count: usize, rng: &mut impl RngCore) -> Vec<Kind> {
        let all = self.weights();
        if !self.without_replacement() {
            let kind = |_| all[below(rng, all.len() as u64) as usize].0;
            return (0..count).map(kind).collect();
        }
        let mut left = all.to_vec();
        let kind = |_| {
            let total: f64 = left.iter().map(|(_, weight)| weight).sum();
            let mut rest = unit(rng) * total;
            let place = left.iter().position(|(_, weight)| {
                rest -= weight;
                rest < 0.0
            });
            left.remove(place.unwrap_or(left.len() - 1)).0
        };
        (0..count.min(all.len())).map(kind).collect()
    }

    /// Reads the name behind `t`; a sentence says what else it may be.
    pub(super) fn named(name: &str) -> Result<Self, String> {
        match name {
            "weights" => Ok(Self::Weights),
            "3a" => Ok(Self::ThreeAugment),
            "3aw" => Ok(Self::WeightedThreeAugment),
            _ => Err(format!(
                "expected \"tweights\", \"t3a\" or \"t3aw\", found \"t{name}\""
            )),
        }
    }
}

const ALL: [(Kind, f64); 15] = [
    (Kind::AutoContrast, 1.0),
    (Kind::Equalize, 1.0),
    (Kind::Invert, 1.0),
    (Kind::Rotate, 1.0),
    (Kind::Posterize, 1.0),
    (Kind::Solarize, 1.0),
    (Kind::SolarizeAdd, 1.0),
    (Kind::Color, 1.0),
    (Kind::Contrast, 1.0),
    (Kind::Brightness, 1.0),
    (Kind::Sharpness, 1.0),
    (Kind::ShearX, 1.0),
    (Kind::ShearY, 1.0),
    (Kind::TranslateXRel, 1.0),
    (Kind::TranslateYRel, 1.0),
];

const INCREASING: [(Kind, f64); 15] = [
    (Kind::AutoContrast, 1.0),
    (Kind::Equalize, 1.0),
    (Kind::Invert, 1.0),
    (Kind::Rotate, 1.0),
    (Kind::PosterizeIncreasing, 1.0),
    (Kind::SolarizeIncreasing, 1.0),
    (Kind::SolarizeAdd, 1.0),
    (Kind::ColorIncreasing, 1.0),
    (Kind::ContrastIncreasing, 1.0),
    (Kind::BrightnessIncreasing, 1.0),
    (Kind::SharpnessIncreasing, 1.0),
    (Kind::ShearX, 1.0),
    (Kind::ShearY, 1.0),
    (Kind::TranslateXRel, 1.0),
    (Kind::TranslateYRel, 1.0),
];

const WEIGHTS: [(Kind, f64); 15] = [
    (Kind::Rotate, 3.0),
    (Kind::ShearX, 2.0),
    (Kind::ShearY, 2.0),
    (Kind::TranslateXRel, 1.0),
    (Kind::TranslateYRel, 1.0),
    (Kind::ColorIncreasing, 0.25),
    (Kind::SharpnessIncreasing, 0.25),
    (Kind::AutoContrast, 0.25),
    (Kind::SolarizeIncreasing, 0.05),
    (Kind::SolarizeAdd, 0.05),
    (Kind::ContrastIncreasing, 0.05),
    (Kind::BrightnessIncreasing, 0.05),
    (Kind::Equalize, 0.05),
    (Kind::PosterizeIncreasing, 0.05),
    (Kind::Invert, 0.05),
];

const THREE_AUGMENT: [(Kind, f64); 3] = [
    (Kind::SolarizeIncreasing, 1.0),
    (Kind::Desaturate, 1.0),
    (Kind::GaussianBlur, 1.0),
];

const WEIGHTED_THREE_AUGMENT: [(Kind, f64); 14] = [
    (Kind::SolarizeIncreasing, 6.0),
    (Kind::Desaturate, 6.0),
    (Kind::GaussianBlur, 6.0),
    (Kind::Rotate, 3.0),
    (Kind::ShearX, 2.0),
    (Kind::ShearY, 2.0),
    (Kind::PosterizeIncreasing, 1.0),
    (Kind::AutoContrast, 1.0),
    (Kind::ColorIncreasing, 1.0),
    (Kind::SharpnessIncreasing, 1.0),
    (Kind::ContrastIncreasing, 1.0),
    (Kind::BrightnessIncreasing, 1.0),
    (Kind::Equalize, 1.0),
    (Kind::Invert, 1.0),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Stream, rng};

    #[test]
    fn weighted_operations_are_drawn_once_and_by_weight() {
        let set = Set::Weights;
        let mut rng = rng(3, Stream::Augment, 0, 0);
        let mut rotations = 0;
        for _ in 0..4_000 {
            let kinds = set.draw(2, &mut rng);
            assert_ne!(kinds[0], kinds[1]);
            rotations += usize::from(kinds[0] == Kind::Rotate);
        }
        // 3 of 10.05 in all; five standard deviations of 29.
        assert!(rotations.abs_diff(1_194) < 145, "{rotations}");
        assert_eq!(set.draw(15, &mut rng).len(), 15);
    }
}
