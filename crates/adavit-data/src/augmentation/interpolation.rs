//! The filter of a training crop: a fixed one, or one of two at random.

use rand::RngCore;
use serde::{Deserialize, Serialize};

use crate::augmentation::ops::affine::Filter;
use crate::picture::Interpolation;
use crate::rng::below;

/// The filter that resizes and moves training pictures; timm's `train_interpolation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainInterpolation {
    /// Bilinear or bicubic, drawn for each operation.
    #[default]
    Random,
    /// Always bilinear.
    Bilinear,
    /// Always bicubic.
    Bicubic,
}

impl TrainInterpolation {
    pub(super) fn draw(self, rng: &mut impl RngCore) -> Interpolation {
        match self {
            Self::Random if below(rng, 2) == 0 => Interpolation::Bilinear,
            Self::Bilinear => Interpolation::Bilinear,
            Self::Random | Self::Bicubic => Interpolation::Bicubic,
        }
    }

    pub(super) fn draw_filter(self, rng: &mut impl RngCore) -> Filter {
        match self.draw(rng) {
            Interpolation::Bilinear => Filter::Bilinear,
            Interpolation::Bicubic => Filter::Bicubic,
        }
    }

    /// The filter of a resize in which nothing is drawn.
    pub(super) fn fixed(self) -> Interpolation {
        match self {
            Self::Bilinear => Interpolation::Bilinear,
            Self::Random | Self::Bicubic => Interpolation::Bicubic,
        }
    }
}
