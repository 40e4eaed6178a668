//! Weights as slices.

use candle_core::{DType, Result, Tensor};

use crate::shape;

/// Returns the bias of `n_out` outputs, zeros where there is none.
pub(super) fn biases(bias: Option<&Tensor>, n_out: usize) -> Result<Vec<f32>> {
    match bias {
        Some(bias) => {
            shape::expect("prepared bias", bias, &[n_out])?;
            floats(bias)
        }
        None => Ok(vec![0.0; n_out]),
    }
}

/// Returns the values of a tensor in f32.
pub(super) fn floats(xs: &Tensor) -> Result<Vec<f32>> {
    xs.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}
