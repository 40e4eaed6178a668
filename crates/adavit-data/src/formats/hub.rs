//! Data sets from the Hugging Face hub, by candle-datasets.
//!
//! Its loaders give images as f32 in [0, 1]; every value is a byte divided by 255, so rounding
//! gives the byte back.

use candle_core::Tensor;
use candle_datasets::vision;

use crate::dataset::Dataset;
use crate::error::{Error, Result};

/// Both data sets have images of 28 x 28 pixels.
const DIMS: [usize; 3] = [1, 28, 28];

/// Downloads `mnist` or `fashion-mnist`, or takes it from the local cache of the hub: training
/// images, then test images.
pub(crate) fn load(name: &str, classes: &[&str]) -> Result<[Dataset; 2]> {
    let loaded = match name {
        "mnist" => vision::mnist::load(),
        _ => vision::fashion_mnist::load(),
    };
    let loaded = loaded.map_err(|error| {
        // An error of candle may carry a backtrace after its first line.
        let error = error.to_string();
        let cause = error.lines().next().unwrap_or_default();
        Error::Unavailable(format!(
            "cannot download {name} from the Hugging Face hub ({cause}); set data_dir to the folder of its four IDX files"
        ))
    })?;
    let part = |images: &Tensor, labels: &Tensor| {
        let images = images.flatten_all()?.to_vec1::<f32>()?;
        let images = images.iter().map(|&p| (p * 255.0).round() as u8).collect();
        let names = classes.iter().map(|&class| class.to_owned()).collect();
        Dataset::new(name, DIMS, images, labels.to_vec1()?, names)
    };
    Ok([
        part(&loaded.train_images, &loaded.train_labels)?,
        part(&loaded.test_images, &loaded.test_labels)?,
    ])
}
