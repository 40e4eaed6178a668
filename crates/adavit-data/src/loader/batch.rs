//! One batch: pixels, normalised, with their labels.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use crate::augmentation::augment::KeyedAugment;
use crate::augmentation::repeats::RepeatedSample;
use crate::augmentation::targets::TargetOptions;
use crate::error::{Error, Result};
use crate::labelled::Labelled;
use crate::normalization::{Normalization, Tables};

/// Images and labels that go through the model together.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `(B, channels, height, width)` f32, normalised.
    pub images: Tensor,
    /// `(B,)` u32.
    pub labels: Tensor,
    /// Index in the data set of every image, which keys its noise.
    pub samples: Vec<u64>,
    /// Target probabilities of mixed images, `(B, K)` f32: see [`BatchPlan::targets`]. For images that are
    /// not mixed, the labels are the targets.
    ///
    /// [`BatchPlan::targets`]: crate::BatchPlan::targets
    pub targets: Option<Tensor>,
    /// Images that could not be read and are not in the batch: see [`Broken::Skip`].
    pub skipped: Vec<Skipped>,
}

/// An image that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its index in the data set.
    pub index: u32,
    /// Where it is and what is wrong with it.
    pub message: String,
}

/// What happens where an image cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Broken {
    /// It is an error.
    #[default]
    Stop,
    /// The image is left out of its batch, which is smaller then, and reported.
    Skip,
}

/// What batches are made of.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) set: Arc<dyn Labelled>,
    pub(super) normalization: Normalization,
    pub(super) broken: Broken,
}

/// A batch before it is on a device.
#[derive(Debug, Default)]
pub(super) struct RawBatch {
    dims: [usize; 3],
    pixels: Vec<f32>,
    labels: Vec<u32>,
    samples: Vec<u64>,
    /// `(B, K)`, where images are mixed.
    targets: Vec<f32>,
    skipped: Vec<Skipped>,
}

impl RawBatch {
    pub(super) fn on(self, device: &Device) -> Result<Batch> {
        let ([channels, height, width], n) = (self.dims, self.samples.len());
        let targets = (!self.targets.is_empty()).then(|| {
            let num_classes = self.targets.len() / n;
            Tensor::from_vec(self.targets, (n, num_classes), device)
        });
        Ok(Batch {
            targets: targets.transpose()?,
            images: Tensor::from_vec(self.pixels, (n, channels, height, width), device)?,
            labels: Tensor::from_vec(self.labels, n, device)?,
            samples: self.samples,
            skipped: self.skipped,
        })
    }

    fn with_room(dims: [usize; 3], n: usize) -> Self {
        Self {
            dims,
            pixels: Vec::with_capacity(n * dims.iter().product::<usize>()),
            labels: Vec::with_capacity(n),
            samples: Vec::with_capacity(n),
            targets: Vec::new(),
            skipped: Vec::new(),
        }
    }

    fn push(&mut self, pixels: &[u8], tables: &Tables, label: u32, index: u32) {
        tables.extend(&mut self.pixels, pixels);
        self.labels.push(label);
        self.samples.push(u64::from(index));
    }

    /// Erases rectangles of the image that was pushed last.
    fn erase_last(&mut self, augment: &KeyedAugment) {
        let size: usize = self.dims.iter().product();
        let first = self.pixels.len() - size;
        if let Some(&sample) = self.samples.last() {
            augment.erase_values(sample, &mut self.pixels[first..], self.dims);
        }
    }

    /// Mixes the images, and makes their targets.
    pub(super) fn mix(
        &mut self,
        augment: &KeyedAugment,
        number: u64,
        options: TargetOptions,
    ) -> Result<()> {
        let [channels, height, width] = self.dims;
        let dims = [self.labels.len(), channels, height, width];
        let labels = &self.labels;
        self.targets = augment.mix_batch(&mut self.pixels, dims, labels, number, options)?;
        Ok(())
    }
}

impl Source {
    /// Makes the batch of these samples, in that order. It is cut short where `over` becomes true: nobody
    /// takes it any more.
    pub(super) fn make(
        &self,
        samples: &[RepeatedSample],
        augment: Option<&KeyedAugment>,
        over: &dyn Fn() -> bool,
    ) -> Result<RawBatch> {
        let dims = self.set.dims();
        let tables = self.normalization.tables(dims[0])?;
        let mut batch = RawBatch::with_room(dims, samples.len());
        let mut image = vec![0; dims.iter().product()];
        for &RepeatedSample { index, repeat } in samples {
            if over() {
                break;
            }
            let augment = augment.map(|augment| augment.repeat(repeat));
            match self
                .set
                .pixels(index as usize, augment.as_ref(), &mut image)
            {
                Ok(()) => {
                    let label = self.set.label(index as usize);
                    batch.push(&image, &tables, label, index);
                    if let Some(augment) = &augment {
                        batch.erase_last(augment);
                    }
                }
                Err(error) if self.broken == Broken::Skip => {
                    batch.skipped.push(skipped(index, &error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(batch)
    }
}

/// Makes one batch of the images at `indices`: augmented if `augment` is given, then normalised per
/// channel, (pixel / 255 - mean) / std.
///
/// The result for an image does not depend on the other images or on its place. Images are read in
/// parallel, by rayon's threads.
///
/// # Shapes
/// B = `indices.len()`, which may be 0; see [`Batch`].
///
/// # Errors
/// [`Error::Setting`](crate::Error::Setting) if `normalization` has another number of channels than
/// the images, or the crop padding is not below their size; and if an image cannot be read.
///
/// # Panics
/// If an index is not below `set.len()`.
pub fn make_batch(
    set: &dyn Labelled,
    indices: &[u32],
    augment: Option<&KeyedAugment>,
    normalization: &Normalization,
    device: &Device,
) -> Result<Batch> {
    let augment = augment.map(|augment| augment.filled_with_mean(normalization));
    if let Some(augment) = &augment {
        augment.validate(set.dims())?;
    }
    let read = |index| read(set, index, augment.as_ref());
    batch_of(set, indices, normalization, augment.as_ref(), read)?.on(device)
}

/// Makes one batch of the images at `indices` that can be read, as [`make_batch`] without augmentation;
/// [`Batch::skipped`] names the others.
///
/// # Errors
/// [`Error::Setting`](crate::Error::Setting) if `normalization` has another number of channels than the
/// images.
///
/// # Panics
/// If an index is not below `set.len()`.
pub fn make_readable_batch(
    set: &dyn Labelled,
    indices: &[u32],
    normalization: &Normalization,
    device: &Device,
) -> Result<Batch> {
    let read = |index| match read(set, index, None) {
        Err(error) => Ok(Err(skipped(index, &error))),
        read => read,
    };
    batch_of(set, indices, normalization, None, read)?.on(device)
}

/// The pixels of an image, or that it is skipped.
type Read = Result<Vec<u8>, Skipped>;

fn read(set: &dyn Labelled, index: u32, augment: Option<&KeyedAugment>) -> Result<Read> {
    let mut image = vec![0; set.dims().iter().product()];
    set.pixels(index as usize, augment, &mut image)?;
    Ok(Ok(image))
}

fn skipped(index: u32, error: &Error) -> Skipped {
    Skipped {
        index,
        message: error.to_string(),
    }
}

/// The batch of images that `read` reads, in parallel.
fn batch_of(
    set: &dyn Labelled,
    indices: &[u32],
    normalization: &Normalization,
    augment: Option<&KeyedAugment>,
    read: impl Fn(u32) -> Result<Read> + Sync,
) -> Result<RawBatch> {
    let dims = set.dims();
    let tables = normalization.tables(dims[0])?;
    let images: Vec<Read> = indices
        .par_iter()
        .map(|&i| read(i))
        .collect::<Result<_>>()?;
    let mut batch = RawBatch::with_room(dims, indices.len());
    for (image, &index) in images.into_iter().zip(indices) {
        match image {
            Ok(image) => {
                batch.push(&image, &tables, set.label(index as usize), index);
                if let Some(augment) = augment {
                    batch.erase_last(augment);
                }
            }
            Err(skipped) => batch.skipped.push(skipped),
        }
    }
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augmentation::settings::Augment;
    use crate::dataset::Dataset;

    fn dataset() -> Dataset {
        let images = (0..6 * 2 * 4 * 4).map(|i| (i * 7 % 256) as u8).collect();
        let names = (0..3).map(|i| i.to_string()).collect();
        Dataset::new("x", [2, 4, 4], images, vec![0, 1, 2, 0, 1, 2], names).unwrap()
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
