//! The images of an evaluation, and whether they fit a model.

use adavit_data::{Labelled, Normalization};
use adavit_model::ModelConfig;
use candle_core::Device;

use crate::error::{Error, Result};

/// The images to evaluate on, and how they become an input.
#[derive(Debug, Clone, Copy)]
pub struct Images<'a> {
    /// Where they are.
    pub dataset: &'a dyn Labelled,
    /// Which of them.
    pub indices: &'a [u32],
    /// How they are normalised.
    pub normalization: &'a Normalization,
    /// Images per forward.
    pub batch_size: usize,
    /// Where to compute.
    pub device: &'a Device,
}

/// Checks that the images are of the model's size and have no more classes than it.
///
/// # Errors
/// [`Error::Mismatch`] if they do not fit.
pub fn check_images(config: &ModelConfig, dataset: &dyn Labelled) -> Result<()> {
    let [channels, height, width] = dataset.dims();
    let (expected_height, expected_width) = config.img_size;
    let expected = [config.in_chans, expected_height, expected_width];
    if dataset.dims() == expected && dataset.class_names().len() <= config.num_classes {
        return Ok(());
    }
    Err(Error::Mismatch(format!(
        "{}: expected {} channels, {expected_height}x{expected_width} pixels and at most {} \
         classes for a model of {}, found {channels}, {height}x{width} and {}; choose other data, \
         or sizes in the [model] table of a configuration",
        dataset.name(),
        config.in_chans,
        config.num_classes,
        config.preset,
        dataset.class_names().len(),
    )))
}
