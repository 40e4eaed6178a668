//! From bytes to the numbers of an input.
//!
//! ```text
//! x = (byte / 255 - mean_c) / std_c          c the channel, all in f32
//! ```
//!
//! A byte has 256 values, so each channel needs a table of 256 numbers.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How pixels become the numbers of an input.
///
/// ```
/// # use adavit_data::Normalization;
/// let normalization = Normalization { mean: vec![0.5], std: vec![0.25] };
/// assert_eq!(normalization.apply(&[0, 255]), [-2.0, 2.0]);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// Mean of each channel, of values in [0, 1].
    pub mean: Vec<f64>,
    /// Standard deviation of each channel.
    pub std: Vec<f64>,
}

impl Normalization {
    /// Returns what ImageNet models of timm expect: mean and deviation of ImageNet's pixels.
    pub fn imagenet() -> Self {
        Self {
            mean: vec![0.485, 0.456, 0.406],
            std: vec![0.229, 0.224, 0.225],
        }
    }

    /// Returns the normalised numbers of an image.
    ///
    /// # Shapes
    /// `pixels`: `(channels, height, width)` u8 -> the same f32, with as many channels as there are
    /// means; anything behind the last whole channel is left out.
    pub fn apply(&self, pixels: &[u8]) -> Vec<f32> {
        let mut values = Vec::with_capacity(pixels.len());
        self.all_tables().extend(&mut values, pixels);
        values
    }

    /// Returns the tables for images of `channels` channels.
    ///
    /// # Errors
    /// [`Error::Setting`] for another number of means or standard deviations.
    pub(crate) fn tables(&self, channels: usize) -> Result<Tables> {
        if self.mean.len() != channels || self.std.len() != channels {
            return Err(Error::Setting(format!(
                "normalization: expected {channels} means and standard deviations, one per \
                 channel, found {} and {}",
                self.mean.len(),
                self.std.len()
            )));
        }
        Ok(self.all_tables())
    }

    fn all_tables(&self) -> Tables {
        let channels = self.mean.iter().zip(&self.std).map(|(&mean, &std)| {
            let (mean, std) = (mean as f32, std as f32);
            std::array::from_fn(|byte| (byte as f32 / 255.0 - mean) / std)
        });
        Tables(channels.collect())
    }
}

/// The normalised number of every byte, per channel.
#[derive(Debug)]
pub(crate) struct Tables(Vec<[f32; 256]>);

impl Tables {
    /// Adds an image's numbers, channel by channel, to `values`.
    pub(crate) fn extend(&self, values: &mut Vec<f32>, image: &[u8]) {
        let plane = image.len() / self.0.len().max(1);
        for (plane, table) in image.chunks_exact(plane.max(1)).zip(&self.0) {
            values.extend(plane.iter().map(|&byte| table[byte as usize]));
        }
    }
}

/// Sums over the pixels of images, for mean and standard deviation of each channel.
///
/// They are integers, so the result does not depend on their order.
#[derive(Debug)]
pub(crate) struct ChannelSums {
    sums: Vec<u64>,
    squares: Vec<u64>,
    /// Pixels of a channel.
    count: u64,
}

impl ChannelSums {
    pub(crate) fn new(channels: usize) -> Self {
        Self {
            sums: vec![0; channels],
            squares: vec![0; channels],
            count: 0,
        }
    }

    /// Adds an image, `(channels, height, width)`.
    pub(crate) fn add(&mut self, image: &[u8]) {
        let plane = image.len() / self.sums.len().max(1);
        let sums = self.sums.iter_mut().zip(&mut self.squares);
        for (pixels, (sum, square)) in image.chunks_exact(plane.max(1)).zip(sums) {
            *sum += pixels.iter().map(|&p| u64::from(p)).sum::<u64>();
            *square += pixels.iter().map(|&p| u64::from(p).pow(2)).sum::<u64>();
        }
        self.count += plane as u64;
    }

    /// Returns mean and standard deviation of pixels scaled to [0, 1], rounded to f32. A constant
    /// channel gets the standard deviation 1, so that normalising never divides by zero.
    pub(crate) fn normalization(&self) -> Normalization {
        let count = self.count as f64;
        let rounded = |value: f64| f64::from((value / 255.0) as f32);
        let channels = self.sums.iter().zip(&self.squares);
        let (mean, std) = channels
            .map(|(&sum, &square)| {
                let mean = sum as f64 / count;
                let variance = (square as f64 / count - mean * mean).max(0.0);
                let std = if variance > 0.0 {
                    variance.sqrt()
                } else {
                    255.0
                };
                (rounded(mean), rounded(std))
            })
            .unzip();
        Normalization { mean, std }
    }
}
