//! The operations of RandAugment by timm's names, and what a magnitude means for each.
//!
//! `share` = magnitude / 10; "signed" is negated with probability 1/2.
//!
//! | operation | argument |
//! | --- | --- |
//! | Rotate | 30 `share` degrees, signed |
//! | Posterize, PosterizeIncreasing | floor(4 `share`) bits; 4 minus that |
//! | Solarize, SolarizeIncreasing | from 256 `share` on; from 256 minus that on |
//! | SolarizeAdd | 110 `share`, at most 128 |
//! | Color, Contrast, Brightness, Sharpness | 0.1 + 1.8 `share` |
//! | the same, Increasing | 1 + 0.9 `share`, signed, at least 0.1 |
//! | ShearX, ShearY | 0.3 `share`, signed |
//! | TranslateXRel, TranslateYRel | 0.45 `share` of the side, signed |
//! | Desaturate | saturation 1 - (0.5 + 0.5 `share`) |
//! | GaussianBlur | deviation 0.1 + 1.9 `share` |

use rand::RngCore;

use crate::augmentation::distributions::either_sign;
use crate::augmentation::ops::op::Op;

/// The magnitude that means "all".
pub(super) const FULL: f64 = 10.0;

/// An operation of RandAugment, without its magnitude.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    AutoContrast,
    Equalize,
    Invert,
    Rotate,
    Posterize,
    PosterizeIncreasing,
    Solarize,
    SolarizeIncreasing,
    SolarizeAdd,
    Color,
    ColorIncreasing,
    Contrast,
    ContrastIncreasing,
    Brightness,
    BrightnessIncreasing,
    Sharpness,
    SharpnessIncreasing,
    ShearX,
    ShearY,
    TranslateXRel,
    TranslateYRel,
    Desaturate,
    GaussianBlur,
}

impl Kind {
    /// Returns the operation of this magnitude on a picture of `(height, width)`; the sign is drawn.
    pub(super) fn op(
        self,
        magnitude: f64,
        (height, width): (usize, usize),
        rng: &mut impl RngCore,
    ) -> Op {
        let share = magnitude / FULL;
        // Every kind draws the sign, so that what follows does not depend on the kind.
        let sign = either_sign(rng, 1.0);
        let enhance = share * 1.8 + 0.1;
        let increasing = (1.0 + sign * share * 0.9).max(0.1);
        let bits = (share * 4.0) as u32;
        let threshold = (share * 256.0).floor().min(256.0);
        match self {
            Self::AutoContrast => Op::AutoContrast,
            Self::Equalize => Op::Equalize,
            Self::Invert => Op::Invert,
            Self::Rotate => Op::Rotate(sign * share * 30.0),
            Self::Posterize => Op::Posterize(bits),
            Self::PosterizeIncreasing => Op::Posterize(4_u32.saturating_sub(bits)),
            Self::Solarize => Op::Solarize(threshold),
            Self::SolarizeIncreasing => Op::Solarize(256.0 - threshold),
            Self::SolarizeAdd => Op::SolarizeAdd((share * 110.0).min(128.0) as u8),
            Self::Color => Op::Color(enhance),
            Self::ColorIncreasing => Op::Color(increasing),
            Self::Contrast => Op::Contrast(enhance),
            Self::ContrastIncreasing => Op::Contrast(increasing),
            Self::Brightness => Op::Brightness(enhance),
            Self::BrightnessIncreasing => Op::Brightness(increasing),
            Self::Sharpness => Op::Sharpness(enhance),
            Self::SharpnessIncreasing => Op::Sharpness(increasing),
            Self::ShearX => Op::ShearX(sign * share * 0.3),
            Self::ShearY => Op::ShearY(sign * share * 0.3),
            Self::TranslateXRel => Op::TranslateX(sign * share * 0.45 * width as f64),
            Self::TranslateYRel => Op::TranslateY(sign * share * 0.45 * height as f64),
            Self::Desaturate => Op::Color(1.0 - (0.5 + 0.5 * share).clamp(0.5, 1.0)),
            Self::GaussianBlur => Op::GaussianBlur((0.1 + 1.9 * share).clamp(0.1, 2.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Stream, rng};

    /// Both signs of an operation of this magnitude on a picture of 20x50, sorted.
    fn both(kind: Kind, magnitude: f64) -> [String; 2] {
        let mut rng = rng(0, Stream::Augment, 0, 0);
        let draws = (0..40).map(|_| format!("{:?}", kind.op(magnitude, (20, 50), &mut rng)));
        let seen: std::collections::BTreeSet<String> = draws.collect();
        let seen: Vec<String> = seen.into_iter().collect();
        match &seen[..] {
            [one] => [one.clone(), one.clone()],
            [first, second] => [first.clone(), second.clone()],
            _ => panic!("{seen:?}"),
        }
    }

    /// timm's `LEVEL_TO_ARG` of magnitude 5 and 9.
    #[test]
    fn arguments_are_those_of_timm() {
        for (kind, magnitude, expected) in [
            (Kind::Rotate, 5.0, ["Rotate(-15.0)", "Rotate(15.0)"]),
            (Kind::Posterize, 9.0, ["Posterize(3)"; 2]),
            (Kind::PosterizeIncreasing, 9.0, ["Posterize(1)"; 2]),
            (Kind::PosterizeIncreasing, 10.0, ["Posterize(0)"; 2]),
            (Kind::Solarize, 5.0, ["Solarize(128.0)"; 2]),
            (Kind::SolarizeIncreasing, 9.0, ["Solarize(26.0)"; 2]),
            (Kind::SolarizeAdd, 9.0, ["SolarizeAdd(99)"; 2]),
            (Kind::SolarizeAdd, 30.0, ["SolarizeAdd(128)"; 2]),
            (Kind::Color, 5.0, ["Color(1.0)"; 2]),
            (Kind::ColorIncreasing, 5.0, ["Color(0.55)", "Color(1.45)"]),
            (Kind::Contrast, 0.0, ["Contrast(0.1)"; 2]),
            (
                Kind::ContrastIncreasing,
                20.0,
                ["Contrast(0.1)", "Contrast(2.8)"],
            ),
            (
                Kind::Brightness,
                10.0,
                ["Brightness(1.9000000000000001)"; 2],
            ),
            (Kind::ShearX, 10.0, ["ShearX(-0.3)", "ShearX(0.3)"]),
            (
                Kind::TranslateXRel,
                10.0,
                ["TranslateX(-22.5)", "TranslateX(22.5)"],
            ),
            (
                Kind::TranslateYRel,
                10.0,
                ["TranslateY(-9.0)", "TranslateY(9.0)"],
            ),
            (Kind::Desaturate, 10.0, ["Color(0.0)"; 2]),
            (Kind::GaussianBlur, 10.0, ["GaussianBlur(2.0)"; 2]),
        ] {
            assert_eq!(both(kind, magnitude), expected, "{kind:?}");
        }
    }
}
