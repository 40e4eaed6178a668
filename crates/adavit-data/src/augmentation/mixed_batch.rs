//! A batch after mixup or CutMix: normalised images, and the targets that belong to them.

use crate::augmentation::augment::KeyedAugment;
use crate::augmentation::mixup::Mixup;
use crate::augmentation::targets::{TargetOptions, mixed_targets};
use crate::error::Result;
use crate::rng::{Stream, rng};

impl KeyedAugment {
    /// Returns whether the images of a batch are mixed, so that labels are no targets for them.
    pub fn mixes(&self) -> bool {
        Mixup::from(self.settings()).is_on()
    }

    /// Mixes the images of a batch, and returns their targets, `(B, K)`; if the settings mix nothing,
    /// these are the smoothed labels.
    ///
    /// What is drawn depends on (seed, epoch, `batch_idx`) only.
    ///
    /// # Shapes
    /// `images`: `dims` = `[B, channels, height, width]`, normalised; `labels`: `(B,)`.
    ///
    /// # Errors
    /// If a label has no class, or sizes do not match.
    pub fn mix_batch(
        &self,
        images: &mut [f32],
        dims: [usize; 4],
        labels: &[u32],
        batch_idx: u64,
        options: TargetOptions,
    ) -> Result<Vec<f32>> {
        let mixup = Mixup::from(self.settings());
        let mut own_share = vec![1.0; labels.len()];
        if mixup.is_on() {
            let mut rng = rng(self.seed(), Stream::Mixup, self.epoch(), batch_idx);
            own_share = mixup.mix(images, dims, &mut rng)?;
        }
        mixed_targets(labels, &own_share, options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augmentation::settings::Augment;

    /// Four images of 12 values, each of its number; labels 0, 1, 2, 0.
    fn mixed(augment: &Augment, smoothing: f64, batch_idx: u64) -> (Vec<f32>, Vec<Vec<f32>>) {
        let mut images: Vec<f32> = (0..4 * 12).map(|i| (i / 12) as f32).collect();
        let options = TargetOptions {
            num_classes: 3,
            smoothing,
        };
        let keyed = augment.keyed(1, 2);
        let targets = keyed
            .mix_batch(&mut images, [4, 3, 2, 2], &[0, 1, 2, 0], batch_idx, options)
            .unwrap();
        (images, targets.chunks(3).map(<[f32]>::to_vec).collect())
    }

    #[test]
    fn without_mixing_targets_are_smoothed_labels() {
        let (images, targets) = mixed(&Augment::default(), 0.3, 0);
        assert!(
            images
                .iter()
                .enumerate()
                .all(|(i, x)| *x == (i / 12) as f32)
        );
        assert_eq!(targets[1], [0.1, 0.8, 0.1]);
        assert!(!Augment::default().keyed(0, 0).mixes());
    }

    #[test]
    fn images_and_targets_are_mixed_by_the_same_share() {
        let mixup = Augment {
            mixup: 1.0,
            ..Augment::default()
        };
        assert!(mixup.keyed(0, 0).mixes());
        let (images, targets) = mixed(&mixup, 0.0, 0);
        // Image 0 of label 0 with image 3 of label 0, 1 of label 1 with 2 of label 2.
        let share = targets[1][1];
        assert!(share > 0.0 && share < 1.0);
        assert!((images[0] - 3.0 * (1.0 - share)).abs() < 1e-5);
        assert!((images[12] - (share + 2.0 * (1.0 - share))).abs() < 1e-5);
        assert_eq!(targets[0], [1.0, 0.0, 0.0]);
        assert_eq!(mixed(&mixup, 0.0, 0), (images.clone(), targets));
        assert_ne!(mixed(&mixup, 0.0, 1).0, images);
    }

    #[test]
    fn a_label_without_a_class_is_refused() {
        let keyed = Augment::default().keyed(0, 0);
        let options = TargetOptions {
            num_classes: 2,
            smoothing: 0.0,
        };
        let error = keyed
            .mix_batch(&mut [0.0; 2], [2, 1, 1, 1], &[0, 2], 0, options)
            .unwrap_err();
        assert!(error.to_string().contains("found 2 of image 1"), "{error}");
    }
}
