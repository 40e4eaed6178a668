//! The settings of augmentation, with timm's names, and their ranges.

use serde::{Deserialize, Serialize};

use crate::augmentation::auto_augment::AutoAugment;
use crate::augmentation::color_jitter::ColorJitter;
use crate::augmentation::interpolation::TrainInterpolation;
use crate::augmentation::mixup::{Mixup, MixupMode};
use crate::augmentation::random_erasing::{ErasingMode, RandomErasing};
use crate::augmentation::resized_crop::RandomResizedCrop;
use crate::augmentation::three_augment;
use crate::error::{Error, Result};

/// How training images are varied; the default changes nothing.
///
/// Names and meanings are timm's, except for the first three, which are the recipe of small images.
/// Turning one variation off leaves the draws of the others as they were. `docs/augmentation.md` has
/// the definition of each.
///
/// ```
/// use adavit_data::{Augment, TrainCrop};
/// let augment = Augment {
///     train_crop_mode: TrainCrop::Rrc,
///     hflip: 0.5,
///     auto_augment: Some("rand-m9-mstd0.5-inc1".parse()?),
///     reprob: 0.25,
///     ..Augment::default()
/// };
/// augment.validate([3, 224, 224])?;
/// # Ok::<(), adavit_data::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Zero pixels added on every side before a random crop of the original size.
    pub crop_padding: usize,
    /// Whether half of the images are mirrored left to right.
    pub flip: bool,
    /// Probability that a rectangle of the image is overwritten by uniform random bytes (Zhong et
    /// al. 2020; bounds as timm's `reprob`), in [0, 1].
    pub random_erasing: f64,
    /// How a picture of any size becomes one of the model's size.
    #[serde(skip_serializing_if = "is_default")]
    pub train_crop_mode: TrainCrop,
    /// Least and largest area of the window of [`TrainCrop::Rrc`] over the picture's; [0.08, 1] if not
    /// set.
    #[serde(skip_serializing_if = "is_default")]
    pub scale: Option<(f64, f64)>,
    /// Least and largest width over height of that window; [3/4, 4/3] if not set.
    #[serde(skip_serializing_if = "is_default")]
    pub ratio: Option<(f64, f64)>,
    /// The filter of crops and of operations that move pixels.
    #[serde(skip_serializing_if = "is_default")]
    pub train_interpolation: TrainInterpolation,
    /// Probability of a mirror image left to right, in [0, 1].
    #[serde(skip_serializing_if = "is_default")]
    pub hflip: f64,
    /// Probability of a mirror image top to bottom, in [0, 1].
    #[serde(skip_serializing_if = "is_default")]
    pub vflip: f64,
    /// RandAugment, TrivialAugment or 3-Augment.
    #[serde(skip_serializing_if = "is_default")]
    pub auto_augment: Option<AutoAugment>,
    /// Random brightness, contrast, saturation and hue. As in timm, ignored with an `auto_augment` other
    /// than `3a`; with `3a` and not set, 0.3 as in DeiT III.
    #[serde(skip_serializing_if = "is_default")]
    pub color_jitter: Option<ColorJitter>,
    /// Probability of the colour jitter, in [0, 1].
    #[serde(skip_serializing_if = "is_one")]
    pub color_jitter_prob: f64,
    /// Whether colours are jittered with every `auto_augment`.
    #[serde(skip_serializing_if = "is_default")]
    pub force_color_jitter: bool,
    /// Probability of a grey picture, in [0, 1].
    #[serde(skip_serializing_if = "is_default")]
    pub grayscale_prob: f64,
    /// Probability of a Gaussian blur of a deviation in [0.1, 2), in [0, 1].
    #[serde(skip_serializing_if = "is_default")]
    pub gaussian_blur_prob: f64,
    /// Probability of erasing rectangles of the normalised image, in [0, 1].
    #[serde(skip_serializing_if = "is_default")]
    pub reprob: f64,
    /// What such a rectangle holds.
    #[serde(skip_serializing_if = "is_default")]
    pub remode: ErasingMode,
    /// The most rectangles.
    #[serde(skip_serializing_if = "is_one_rectangle")]
    pub recount: u32,
    /// Alpha of mixup; 0 turns it off.
    #[serde(skip_serializing_if = "is_default")]
    pub mixup: f64,
    /// Alpha of CutMix; 0 turns it off.
    #[serde(skip_serializing_if = "is_default")]
    pub cutmix: f64,
    /// Least and largest side of CutMix's box over the image's, instead of alpha.
    #[serde(skip_serializing_if = "is_default")]
    pub cutmix_minmax: Option<(f64, f64)>,
    /// Probability of mixing, in [0, 1].
    #[serde(skip_serializing_if = "is_one")]
    pub mixup_prob: f64,
    /// Probability of CutMix rather than mixup if both are on, in [0, 1].
    #[serde(skip_serializing_if = "is_half")]
    pub mixup_switch_prob: f64,
    /// Which images of a batch share a draw.
    #[serde(skip_serializing_if = "is_default")]
    pub mixup_mode: MixupMode,
    /// How often a picture occurs in a row, each time varied otherwise; 0 and 1 mean once.
    #[serde(skip_serializing_if = "is_default")]
    pub aug_repeats: u32,
}

/// How a training picture of any size becomes one of the model's size; timm's `train_crop_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainCrop {
    /// Its centre: the shorter side is resized to the model's. A picture of the size stays as it is.
    #[default]
    Center,
    /// [`RandomResizedCrop`].
    Rrc,
    /// DeiT III's [`SimpleRandomCrop`](crate::SimpleRandomCrop).
    Src,
}

impl Default for Augment {
    fn default() -> Self {
        Self {
            crop_padding: 0,
            flip: false,
            random_erasing: 0.0,
            train_crop_mode: TrainCrop::Center,
            scale: None,
            ratio: None,
            train_interpolation: TrainInterpolation::Random,
            hflip: 0.0,
            vflip: 0.0,
            auto_augment: None,
            color_jitter: None,
            color_jitter_prob: 1.0,
            force_color_jitter: false,
            grayscale_prob: 0.0,
            gaussian_blur_prob: 0.0,
            reprob: 0.0,
            remode: ErasingMode::Const,
            recount: 1,
            mixup: 0.0,
            cutmix: 0.0,
            cutmix_minmax: None,
            mixup_prob: 1.0,
            mixup_switch_prob: 0.5,
            mixup_mode: MixupMode::Batch,
            aug_repeats: 0,
        }
    }
}

impl Augment {
    /// Checks the augmentation against the size of the images.
    ///
    /// # Errors
    /// [`Error::Setting`] if a crop could lose the whole image, or as
    /// [`Self::validate_probabilities`].
    pub fn validate(&self, [_, height, width]: [usize; 3]) -> Result<()> {
        if self.crop_padding >= height.min(width) {
            return Err(Error::Setting(format!(
                "augment.crop_padding: expected less than a side of the images, {height}x{width}, found {}",
                self.crop_padding
            )));
        }
        self.validate_probabilities()
    }

    /// Checks what does not depend on the size of the images.
    ///
    /// # Errors
    /// [`Error::Setting`] if a probability is outside of [0, 1], or a range is empty.
    pub fn validate_probabilities(&self) -> Result<()> {
        for (name, probability) in [
            ("random_erasing", self.random_erasing),
            ("hflip", self.hflip),
            ("vflip", self.vflip),
            ("color_jitter_prob", self.color_jitter_prob),
            ("grayscale_prob", self.grayscale_prob),
            ("gaussian_blur_prob", self.gaussian_blur_prob),
        ] {
            if !(0.0..=1.0).contains(&probability) {
                return Err(Error::Setting(format!(
                    "augment.{name}: expected a probability in [0, 1], found {probability}"
                )));
            }
        }
        self.resized_crop().validate()?;
        self.jitter().validate()?;
        RandomErasing::from(self).validate()?;
        Mixup::from(self).validate()
    }

    /// The crop of [`TrainCrop::Rrc`].
    pub(super) fn resized_crop(&self) -> RandomResizedCrop {
        let default = RandomResizedCrop::default();
        RandomResizedCrop {
            scale: self.scale.unwrap_or(default.scale),
            ratio: self.ratio.unwrap_or(default.ratio),
            interpolation: self.train_interpolation,
        }
    }

    /// The colour jitter that applies.
    pub(super) fn jitter(&self) -> ColorJitter {
        let jitter = self.color_jitter;
        match self.auto_augment {
            Some(AutoAugment::ThreeAugment) => {
                jitter.unwrap_or(ColorJitter::of(three_augment::JITTER))
            }
            Some(_) if !self.force_color_jitter => ColorJitter::default(),
            _ => jitter.unwrap_or_default(),
        }
    }

    /// Whether anything but the first three settings changes the pixels of an image in memory.
    pub(super) fn changes_pictures(&self) -> bool {
        self.train_crop_mode != TrainCrop::Center
            || self.hflip > 0.0
            || self.vflip > 0.0
            || self.auto_augment.is_some()
            || self.jitter() != ColorJitter::default()
            || self.grayscale_prob > 0.0
            || self.gaussian_blur_prob > 0.0
    }
}

impl From<&Augment> for RandomErasing {
    fn from(augment: &Augment) -> Self {
        Self {
            probability: augment.reprob,
            mode: augment.remode,
            max_count: augment.recount,
            ..Self::default()
        }
    }
}

impl From<&Augment> for Mixup {
    fn from(augment: &Augment) -> Self {
        Self {
            mixup: augment.mixup,
            cutmix: augment.cutmix,
            cutmix_minmax: augment.cutmix_minmax,
            probability: augment.mixup_prob,
            switch_probability: augment.mixup_switch_prob,
            mode: augment.mixup_mode,
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_one(value: &f64) -> bool {
    *value == 1.0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_half(value: &f64) -> bool {
    *value == 0.5
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_one_rectangle(value: &u32) -> bool {
    *value == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIMS: [usize; 3] = [1, 2, 3];

    type Change = fn(&mut Augment);

    fn negative() -> ColorJitter {
        ColorJitter::of(-1.0)
    }

    #[test]
    fn padding_that_could_lose_the_image_is_refused() {
        let augment = |crop_padding| Augment {
            crop_padding,
            ..Augment::default()
        };
        assert!(augment(1).validate(DIMS).is_ok());
        assert!(augment(2).validate(DIMS).is_err());
        assert!(augment(usize::MAX).validate(DIMS).is_err());
    }

    #[test]
    fn what_is_no_probability_is_refused() {
        for random_erasing in [-0.1, 1.1, f64::NAN] {
            let augment = Augment {
                random_erasing,
                ..Augment::default()
            };
            assert!(augment.validate(DIMS).is_err(), "{random_erasing}");
        }
    }

    #[test]
    fn every_setting_out_of_range_is_named() {
        let changes: &[(&str, Change)] = &[
            ("hflip", |a| a.hflip = 2.0),
            ("vflip", |a| a.vflip = -1.0),
            ("color_jitter_prob", |a| a.color_jitter_prob = 1.1),
            ("grayscale_prob", |a| a.grayscale_prob = f64::NAN),
            ("gaussian_blur_prob", |a| a.gaussian_blur_prob = 3.0),
            ("scale", |a| a.scale = Some((0.5, 0.1))),
            ("ratio", |a| a.ratio = Some((-1.0, 1.0))),
            ("color_jitter", |a| a.color_jitter = Some(negative())),
            ("reprob", |a| a.reprob = 1.1),
            ("recount", |a| a.recount = 0),
            ("mixup", |a| a.mixup = f64::INFINITY),
            ("mixup_switch_prob", |a| a.mixup_switch_prob = 2.0),
            ("cutmix_minmax", |a| a.cutmix_minmax = Some((0.5, 1.5))),
        ];
        for (name, change) in changes {
            let mut augment = Augment::default();
            change(&mut augment);
            let error = augment.validate(DIMS).unwrap_err().to_string();
            assert!(error.starts_with(&format!("augment.{name}:")), "{error}");
        }
        assert!(Augment::default().validate(DIMS).is_ok());
    }

    #[test]
    fn what_is_off_is_not_written_and_what_is_on_is_read_back() {
        let json = serde_json::to_string(&Augment::default()).unwrap();
        assert_eq!(
            json,
            r#"{"crop_padding":0,"flip":false,"random_erasing":0.0}"#
        );
        let text = r#"{
            "train_crop_mode": "rrc", "scale": [0.2, 1.0], "ratio": [0.9, 1.1], "hflip": 0.5,
            "vflip": 0.1, "train_interpolation": "bicubic", "color_jitter": 0.3,
            "force_color_jitter": true, "auto_augment": "rand-m9-mstd0.5-inc1", "reprob": 0.25,
            "remode": "pixel", "recount": 2, "mixup": 0.8, "cutmix": 1.0, "mixup_prob": 0.9,
            "mixup_switch_prob": 0.4, "mixup_mode": "elem", "aug_repeats": 3,
            "grayscale_prob": 0.2, "gaussian_blur_prob": 0.3, "color_jitter_prob": 0.7,
            "cutmix_minmax": [0.2, 0.8], "crop_padding": 2, "flip": true, "random_erasing": 0.1
        }"#;
        let augment: Augment = serde_json::from_str(text).unwrap();
        let written = serde_json::to_string(&augment).unwrap();
        assert_eq!(serde_json::from_str::<Augment>(&written).unwrap(), augment);
        assert_eq!(written.matches(':').count(), text.matches(':').count());
        let unknown = serde_json::from_str::<Augment>(r#"{"hflips": 0.5}"#).unwrap_err();
        assert!(unknown.to_string().contains("hflips"), "{unknown}");
    }

    #[test]
    fn colours_are_jittered_when_timm_does() {
        let jitter = |policy: Option<&str>, color_jitter, force_color_jitter| {
            let augment = Augment {
                auto_augment: policy.map(|text| text.parse().unwrap()),
                color_jitter,
                force_color_jitter,
                ..Augment::default()
            };
            augment.jitter()
        };
        let some = ColorJitter::of(0.4);
        assert_eq!(jitter(None, Some(some), false), some);
        assert_eq!(
            jitter(Some("rand"), Some(some), false),
            ColorJitter::of(0.0)
        );
        assert_eq!(jitter(Some("rand"), Some(some), true), some);
        assert_eq!(jitter(Some("ta_wide"), None, true), ColorJitter::of(0.0));
        assert_eq!(jitter(Some("3a"), None, false), ColorJitter::of(0.3));
        assert_eq!(jitter(Some("3a"), Some(some), false), some);
    }
}
