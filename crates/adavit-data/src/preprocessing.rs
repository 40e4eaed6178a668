//! From a picture of any size to the pixels of a model's input, like timm, torchvision and Pillow.
//!
//! ```text
//! decode -> turn upright -> RGB or grey -> resize, antialiased -> crop the centre -> bytes
//! ```

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::picture::{Interpolation, Picture};

/// What happens to the sides of a picture that is not a square.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CropMode {
    /// The picture keeps its proportions, and loses what is outside of the centre.
    #[default]
    Center,
    /// The picture is squashed, and loses only what `crop_pct` leaves out.
    Squash,
}

/// How a picture of any size becomes one of the model's size; timm's words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Preprocessing {
    /// The filter that resizes.
    pub interpolation: Interpolation,
    /// Side of the crop over the side that the picture is resized to, in (0, 1].
    pub crop_pct: f64,
    /// What happens to proportions.
    pub crop_mode: CropMode,
}

impl Default for Preprocessing {
    /// What timm's DeiT and T2T-ViT expect.
    fn default() -> Self {
        Self {
            interpolation: Interpolation::Bicubic,
            crop_pct: 0.9,
            crop_mode: CropMode::Center,
        }
    }
}

/// What a model takes: timm's `data_config` without the normalization.
#[derive(Debug, Clone, PartialEq)]
pub struct InputConfig {
    /// Channels of the input: 3 for colours, 1 for grey.
    pub in_chans: usize,
    /// Height and width of the input, in pixels.
    pub img_size: (usize, usize),
    /// How a picture of another size becomes one of `img_size`.
    pub preprocessing: Preprocessing,
}

impl Preprocessing {
    /// Checks the settings.
    ///
    /// # Errors
    /// If `crop_pct` is not in (0, 1].
    pub fn validate(&self) -> Result<()> {
        if self.crop_pct > 0.0 && self.crop_pct <= 1.0 {
            return Ok(());
        }
        Err(Error::Setting(format!(
            "crop_pct: expected a number in (0, 1], found {}",
            self.crop_pct
        )))
    }

    /// Returns the centre of `picture`, resized and cropped to `img_size`, height and width.
    ///
    /// # Errors
    /// If `crop_pct` is out of range, or the picture is so long and thin that it would be resized to
    /// more than 32,768 pixels in a direction, or a quarter of a gigabyte.
    pub fn apply(&self, picture: Picture, img_size: (usize, usize)) -> Result<Picture> {
        Ok(self.resized(picture, img_size)?.center_crop(img_size))
    }

    /// Returns the picture before the crop, which no side of `img_size` exceeds.
    pub(crate) fn resized(&self, picture: Picture, img_size: (usize, usize)) -> Result<Picture> {
        self.validate()?;
        let size = self.resized_size(picture.size(), img_size);
        picture.resized(size, self.interpolation)
    }

    /// Returns the size before the crop, as timm and torchvision compute it.
    fn resized_size(
        &self,
        (height, width): (usize, usize),
        img_size: (usize, usize),
    ) -> (usize, usize) {
        let scaled = |side: usize| (side as f64 / self.crop_pct).floor() as usize;
        let (to_height, to_width) = (scaled(img_size.0), scaled(img_size.1));
        if self.crop_mode == CropMode::Squash {
            return (to_height, to_width);
        }
        if to_height == to_width {
            let long = |long: usize, short: usize| {
                (to_height as f64 * long as f64 / short as f64) as usize
            };
            return if height <= width {
                (to_height, long(width, height))
            } else {
                (long(height, width), to_width)
            };
        }
        let ratio = (height as f64 / to_height as f64).min(width as f64 / to_width as f64);
        let side = |side: usize| (side as f64 / ratio).round_ties_even() as usize;
        (side(height).max(img_size.0), side(width).max(img_size.1))
    }
}

impl InputConfig {
    /// Returns the pixels of `picture` as a model takes them, `(in_chans, height, width)`.
    ///
    /// # Errors
    /// As for [`Preprocessing::apply`], or if the picture has another number of channels.
    pub fn pixels(&self, picture: Picture) -> Result<Vec<u8>> {
        if picture.channels() != self.in_chans {
            return Err(Error::Setting(format!(
                "in_chans: expected a picture of {} channels, found one of {}; decode it for this \
                 model",
                self.in_chans,
                picture.channels()
            )));
        }
        let picture = self.preprocessing.apply(picture, self.img_size)?;
        Ok(picture.planes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_side_becomes_the_crop_over_crop_pct() {
        let preprocessing = Preprocessing {
            crop_pct: 0.875,
            ..Preprocessing::default()
        };
        let size = |size, img_size| preprocessing.resized_size(size, img_size);
        assert_eq!(size((300, 500), (224, 224)), (256, 426));
        assert_eq!(size((500, 300), (224, 224)), (426, 256));
        assert_eq!(size((224, 224), (224, 224)), (256, 256));
        assert_eq!(size((300, 500), (224, 112)), (256, 427));
        let squash = Preprocessing {
            crop_mode: CropMode::Squash,
            ..preprocessing.clone()
        };
        assert_eq!(squash.resized_size((300, 500), (224, 112)), (256, 128));
    }

    #[test]
    fn a_picture_of_other_channels_is_refused() {
        let input = InputConfig {
            in_chans: 1,
            img_size: (1, 1),
            preprocessing: Preprocessing::default(),
        };
        let colours = Picture::new(3, (1, 1), vec![0; 3]).unwrap();
        let error = input.pixels(colours).unwrap_err().to_string();
        assert!(error.contains("1 channels, found one of 3"), "{error}");
    }

    #[test]
    fn long_thin_pictures_are_refused_not_resized() {
        let picture = Picture::new(1, (1, 30_000), vec![0; 30_000]).unwrap();
        let error = Preprocessing::default().apply(picture, (224, 224));
        assert!(error.unwrap_err().to_string().contains("at most 32768"));
    }
}
