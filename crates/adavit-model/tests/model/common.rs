//! What several contracts need.

use std::path::PathBuf;

use adavit_model::{ModelConfig, Tensors, is_decision_tensor, read_tensors};
use candle_core::{Device, Tensor};

/// A file of this crate's tests.
pub(crate) fn file(name: &str) -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests");
    tests.join(name)
}

/// `b` made images, `(b, in_chans, height, width)`, which `seed` tells apart.
pub(crate) fn images(config: &ModelConfig, b: usize, seed: u64) -> Tensor {
    let (height, width) = config.img_size;
    let shape = (b, config.in_chans, height, width);
    let len = b * config.in_chans * height * width;
    let values = (0..len).map(|i| ((i * i % 9973) as f32 * 0.37 + seed as f32).sin());
    Tensor::from_vec(values.collect::<Vec<f32>>(), shape, &Device::Cpu).unwrap()
}

/// Makes decision networks wide, so that decisions differ between images and tokens.
pub(crate) fn widen_decisions(tensors: &mut Tensors) {
    for (name, tensor) in tensors {
        if is_decision_tensor(name) && tensor.rank() == 2 {
            *tensor = (&*tensor * 50.0).unwrap();
        }
    }
}

/// The weights that a recording holds.
pub(crate) fn recorded_weights(recording: &str) -> Tensors {
    let tensors = read_tensors(&file(&format!("recordings/{recording}.safetensors")));
    let named = tensors.unwrap().into_iter();
    named
        .filter_map(|(name, tensor)| Some((name.strip_prefix("weights.")?.to_string(), tensor)))
        .collect()
}

/// The numbers of a tensor.
pub(crate) fn values(xs: &Tensor) -> Vec<f32> {
    xs.flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference between two tensors.
pub(crate) fn difference(xs: &Tensor, ys: &Tensor) -> f32 {
    assert_eq!(xs.dims(), ys.dims());
    let (xs, ys) = (values(xs), values(ys));
    let differences = xs.iter().zip(&ys).map(|(x, y)| (x - y).abs());
    differences.fold(0.0, |most, difference| {
        if difference.is_nan() {
            f32::NAN
        } else {
            most.max(difference)
        }
    })
}
