//! A training picture: from one of any size to a varied one of the model's size, in timm's order.
//!
//! ```text
//! crop -> small images' recipe -> flips -> policy -> colour jitter -> grayscale -> blur
//! ```

use crate::augmentation::augment::{KeyedAugment, Part};
use crate::augmentation::auto_augment::Surroundings;
use crate::augmentation::color_jitter::ColorJitter;
use crate::augmentation::distributions::uniform;
use crate::augmentation::flip;
use crate::augmentation::ops::affine::{Filter, Sampling};
use crate::augmentation::ops::op::Op;
use crate::augmentation::settings::TrainCrop;
use crate::augmentation::simple_crop::SimpleRandomCrop;
use crate::error::Result;
use crate::picture::{Picture, check_size};
use crate::preprocessing::Preprocessing;
use crate::rng::unit;

impl KeyedAugment {
    /// Returns the picture as training sees it, of `size`, height and width, in bytes.
    ///
    /// What is drawn depends on (seed, epoch, `sample`, repeat) only. Erasing of normalised values follows
    /// after the normalisation: [`Self::erase_values`].
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) if the settings do not fit the size, or the picture is so
    /// long and thin that it would be resized to too many pixels.
    pub fn train_picture(
        &self,
        sample: u64,
        picture: Picture,
        size: (usize, usize),
    ) -> Result<Picture> {
        check_size(size)?;
        self.validate([picture.channels(), size.0, size.1])?;
        let cropped = self.cropped(sample, picture, size)?;
        Ok(self.varied(sample, self.small(sample, cropped)))
    }

    /// Writes the augmented `image`, `dims` = `[channels, height, width]`, into `out`.
    pub(crate) fn apply(
        &self,
        sample: u64,
        image: &[u8],
        dims: [usize; 3],
        out: &mut [u8],
    ) -> Result<()> {
        if self.settings().changes_pictures() {
            let picture = Picture::from_planes(image, dims);
            let varied = self.train_picture(sample, picture, (dims[1], dims[2]))?;
            out.copy_from_slice(&varied.planes());
        } else {
            self.apply_small(sample, image, dims, out);
        }
        Ok(())
    }

    fn cropped(&self, sample: u64, picture: Picture, size: (usize, usize)) -> Result<Picture> {
        let augment = self.settings();
        let interpolation = augment.train_interpolation;
        let mut rng = self.rng(Part::Crop, sample);
        match augment.train_crop_mode {
            TrainCrop::Center if picture.size() == size => Ok(picture),
            TrainCrop::Center => {
                let center = Preprocessing {
                    interpolation: interpolation.fixed(),
                    crop_pct: 1.0,
                    ..Preprocessing::default()
                };
                center.apply(picture, size)
            }
            TrainCrop::Rrc => augment.resized_crop().apply(&picture, size, &mut rng),
            TrainCrop::Src => SimpleRandomCrop { interpolation }.apply(picture, size, &mut rng),
        }
    }

    /// The picture after everything that keeps its size.
    fn varied(&self, sample: u64, mut picture: Picture) -> Picture {
        let augment = self.settings();
        let mut rng = self.rng(Part::Flips, sample);
        let (left_right, top_bottom) = (unit(&mut rng), unit(&mut rng));
        if left_right < augment.hflip {
            flip::left_right(&mut picture);
        }
        if top_bottom < augment.vflip {
            flip::top_bottom(&mut picture);
        }
        let surroundings = Surroundings {
            interpolation: augment.train_interpolation,
            fill: self.fill(),
        };
        if let Some(policy) = augment.auto_augment {
            let mut rng = self.rng(Part::AutoAugment, sample);
            picture = policy.apply(picture, &surroundings, &mut rng);
        }
        let sampling = Sampling {
            filter: Filter::Nearest,
            fill: self.fill(),
        };
        let ops = self.color_ops(sample).into_iter();
        ops.fold(picture, |picture, op| op.apply(picture, sampling))
    }

    /// Colour jitter, grayscale and blur, as far as they are drawn.
    fn color_ops(&self, sample: u64) -> Vec<Op> {
        let augment = self.settings();
        let mut ops = Vec::new();
        let jitter = augment.jitter();
        if jitter != ColorJitter::default() {
            let mut rng = self.rng(Part::ColorJitter, sample);
            if unit(&mut rng) < augment.color_jitter_prob {
                ops = jitter.draw(&mut rng);
            }
        }
        if augment.grayscale_prob > 0.0 {
            let drawn = unit(&mut self.rng(Part::Grayscale, sample));
            ops.extend((drawn < augment.grayscale_prob).then_some(Op::Color(0.0)));
        }
        if augment.gaussian_blur_prob > 0.0 {
            let mut rng = self.rng(Part::Blur, sample);
            let drawn = unit(&mut rng);
            let blur = Op::GaussianBlur23(uniform(&mut rng, 0.1, 2.0));
            ops.extend((drawn < augment.gaussian_blur_prob).then_some(blur));
        }
        ops
    }
}
