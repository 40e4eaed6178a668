//! The order of an epoch, and the batches cut from it.

use candle_core::{Device, Tensor};

use crate::augmentation::augment::KeyedAugment;
use crate::dataset::Dataset;
use crate::error::Result;
use crate::normalization::Normalization;
use crate::rng::{Stream, rng, shuffle};

/// Images and labels that go through the model together.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `(B, channels, height, width)` f32, normalised.
    pub images: Tensor,
    /// `(B,)` u32.
    pub labels: Tensor,
    /// Index in the data set of every image, which keys its noise.
    pub samples: Vec<u64>,
}

/// A source of labelled images, in memory or not, that gives batches for an evaluation.
///
/// Implement it for a data set of your own; [`Dataset`] and, with the feature `pictures`,
/// `ImageFolder` do.
pub trait Labelled: Sync + std::fmt::Debug {
    /// Returns the name under which the images were loaded.
    fn name(&self) -> &str;

    /// Returns the number of images, at least 1.
    fn len(&self) -> usize;

    /// Returns false: there is at least one image.
    fn is_empty(&self) -> bool {
        false
    }

    /// Returns a name for each class, in the order of the labels.
    fn class_names(&self) -> &[String];

    /// Returns the images at `indices`, in that order, normalised per channel.
    ///
    /// # Errors
    /// If `normalization` has another number of channels than the images, or an image cannot be read.
    fn batch(
        &self,
        indices: &[u32],
        normalization: &Normalization,
        device: &Device,
    ) -> Result<Batch>;
}

impl Labelled for Dataset {
    fn name(&self) -> &str {
        self.name()
    }

    fn len(&self) -> usize {
        self.len()
    }

    fn class_names(&self) -> &[String] {
        self.class_names()
    }

    fn batch(
        &self,
        indices: &[u32],
        normalization: &Normalization,
        device: &Device,
    ) -> Result<Batch> {
        make_batch(self, indices, None, normalization, device)
    }
}

/// Returns `indices` in the order of `epoch`: a shuffle that depends on `(seed, epoch)` only.
pub fn epoch_order(indices: &[u32], seed: u64, epoch: u64) -> Vec<u32> {
    let mut order = indices.to_vec();
    shuffle(&mut order, &mut rng(seed, Stream::Shuffle, epoch, 0));
    order
}

/// Cuts `order` into batches of `batch_size`; the last one holds what is left.
///
/// # Panics
/// If `batch_size` is 0.
pub fn batches(order: &[u32], batch_size: usize) -> std::slice::Chunks<'_, u32> {
    order.chunks(batch_size)
}

/// Makes one batch of the images at `indices`: augmented if `augment` is given, then normalised per
/// channel, (pixel / 255 - mean) / std.
///
/// The result for an image does not depend on the other images or on its place.
///
/// # Shapes
/// B = `indices.len()`, which may be 0; see [`Batch`].
///
/// # Errors
/// [`Error::Setting`](crate::Error::Setting) if `normalization` has another number of channels than the images, or the crop
/// padding is not below their size.
///
/// # Panics
/// If an index is not below `dataset.len()`.
pub fn make_batch(
    dataset: &Dataset,
    indices: &[u32],
    augment: Option<&KeyedAugment>,
    normalization: &Normalization,
    device: &Device,
) -> Result<Batch> {
    let dims @ [channels, height, width] = dataset.dims();
    if let Some(augment) = augment {
        augment.validate(dims)?;
    }
    let tables = normalization.tables(channels)?;
    let mut pixels = Vec::with_capacity(indices.len() * channels * height * width);
    let mut augmented = vec![0; channels * height * width];
    for &i in indices {
        let mut image = dataset.image(i as usize);
        if let Some(augment) = augment {
            augment.apply(u64::from(i), image, dims, &mut augmented);
            image = &augmented;
        }
        tables.extend(&mut pixels, image);
    }
    let labels: Vec<u32> = indices
        .iter()
        .map(|&i| u32::from(dataset.label(i as usize)))
        .collect();
    Ok(Batch {
        images: Tensor::from_vec(pixels, (indices.len(), channels, height, width), device)?,
        labels: Tensor::from_vec(labels, indices.len(), device)?,
        samples: indices.iter().map(|&i| u64::from(i)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augmentation::augment::Augment;

    fn dataset() -> Dataset {
        let images = (0..6 * 2 * 4 * 4).map(|i| (i * 7 % 256) as u8).collect();
        let names = (0..3).map(|i| i.to_string()).collect();
        Dataset::new("x", [2, 4, 4], images, vec![0, 1, 2, 0, 1, 2], names).unwrap()
    }

    #[test]
    fn order_is_a_permutation() {
        let indices: Vec<u32> = (0..500).map(|i| 3 * i).collect();
        let mut order = epoch_order(&indices, 0, 0);
        assert_ne!(order, indices);
        order.sort_unstable();
        assert_eq!(order, indices);
        assert!(epoch_order(&[], 0, 0).is_empty());
    }

    #[test]
    fn order_differs_between_epochs_and_seeds_only() {
        let indices: Vec<u32> = (0..100).collect();
        let order = epoch_order(&indices, 1, 2);
        assert_eq!(order, epoch_order(&indices, 1, 2));
        assert_ne!(order, epoch_order(&indices, 1, 3));
        assert_ne!(order, epoch_order(&indices, 2, 2));
        assert_ne!(order, epoch_order(&indices, 2, 1));
    }

    #[test]
    fn last_partial_batch_is_kept() {
        let order: Vec<u32> = (0..10).collect();
        let sizes: Vec<_> = batches(&order, 4).map(<[u32]>::len).collect();
        assert_eq!(sizes, [4, 4, 2]);
        assert_eq!(batches(&order, 4).flatten().count(), 10);
    }

    #[test]
    fn batch_is_normalised_per_channel_and_keeps_labels_and_samples() {
        let set = dataset();
        let stats = set.normalization();
        let batch = make_batch(&set, &[4, 2], None, &stats, &Device::Cpu).unwrap();
        assert_eq!(batch.images.dims(), [2, 2, 4, 4]);
        assert_eq!(batch.labels.to_vec1::<u32>().unwrap(), [1, 2]);
        assert_eq!(batch.samples, [4, 2]);
        let values = batch
            .images
            .get(1)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        for (i, (&byte, &value)) in set.image(2).iter().zip(&values).enumerate() {
            let c = i / 16;
            let expected = (f32::from(byte) / 255.0 - stats.mean[c] as f32) / stats.std[c] as f32;
            assert_eq!(value, expected);
        }
    }

    #[test]
    fn augmented_image_does_not_depend_on_its_place_in_the_batch() {
        let set = dataset();
        let stats = set.normalization();
        let augment = Augment {
            crop_padding: 2,
            flip: true,
            ..Augment::default()
        };
        let keyed = augment.keyed(3, 1);
        let rows = |indices: &[u32]| -> Vec<Vec<f32>> {
            let batch = make_batch(&set, indices, Some(&keyed), &stats, &Device::Cpu).unwrap();
            batch.images.flatten_from(1).unwrap().to_vec2().unwrap()
        };
        let together = rows(&[0, 1, 2, 3, 4, 5]);
        for (i, reversed) in rows(&[5, 4, 3, 2, 1, 0]).iter().rev().enumerate() {
            assert_eq!(reversed, &together[i]);
            assert_eq!(rows(&[i as u32])[0], together[i]);
        }
    }

    #[test]
    fn padding_is_the_raw_zero_before_normalisation() {
        let names = vec!["0".to_owned()];
        let set = Dataset::new("x", [1, 2, 2], vec![255; 4], vec![0], names).unwrap();
        let stats = Normalization {
            mean: vec![0.25],
            std: vec![0.5],
        };
        let augment = Augment {
            crop_padding: 1,
            flip: false,
            ..Augment::default()
        };
        let mut seen: Vec<f32> = (0..8)
            .flat_map(|epoch| {
                let keyed = augment.keyed(0, epoch);
                let batch = make_batch(&set, &[0], Some(&keyed), &stats, &Device::Cpu).unwrap();
                batch.images.flatten_all().unwrap().to_vec1().unwrap()
            })
            .collect();
        seen.sort_by(f32::total_cmp);
        seen.dedup();
        assert_eq!(seen, [-0.5, 1.5]);
    }

    #[test]
    fn empty_batch_is_an_ordinary_case() {
        let set = dataset();
        let batch = make_batch(&set, &[], None, &set.normalization(), &Device::Cpu).unwrap();
        assert_eq!(batch.images.dims(), [0, 2, 4, 4]);
    }

    #[test]
    fn statistics_of_another_number_of_channels_are_refused() {
        let set = dataset();
        let stats = Normalization {
            mean: vec![0.0],
            std: vec![1.0],
        };
        let error = make_batch(&set, &[0], None, &stats, &Device::Cpu).unwrap_err();
        assert!(error.to_string().contains("expected 2 means"), "{error}");
    }
}
