//! What tests of prepared layers share: tensors as slices, and the message of a panic.

use candle_core::{DType, Tensor};

/// Marks what nothing may write.
pub(crate) const UNTOUCHED: f32 = -77.0;

pub(crate) fn narrow(xs: &Tensor) -> Tensor {
    xs.to_dtype(DType::F32).unwrap()
}

pub(crate) fn floats(xs: &Tensor) -> Vec<f32> {
    narrow(xs).flatten_all().unwrap().to_vec1().unwrap()
}

/// Returns the message of the panic that `f` has to end with.
pub(crate) fn panic_of(f: impl FnOnce()) -> String {
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).unwrap_err();
    match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => panic.downcast::<&str>().unwrap().to_string(),
    }
}
