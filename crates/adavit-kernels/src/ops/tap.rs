//! More than three differentiable inputs for one operation.
//!
//! A custom operation of candle takes three tensors at most. A [`tap`] takes any number and gives a
//! tensor of one element, which stands for them as an input of the operation. The backward of the
//! operation stores their gradients in [`TapGradients`]. candle then runs the backward of the tap,
//! since the tap produced an input, and that returns the gradients.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

/// Where an operation stores gradients for its taps.
#[derive(Debug, Clone, Default)]
pub(crate) struct TapGradients(Arc<Mutex<Vec<Option<Tensor>>>>);

impl TapGradients {
    /// Stores the gradients of all tapped inputs, in order.
    pub(crate) fn store(&self, gradients: Vec<Option<Tensor>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = gradients;
    }

    fn collect(&self, index: usize) -> Option<Tensor> {
        let mut gradients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        gradients.get_mut(index).and_then(Option::take)
    }
}

/// Returns the tensor that stands for `inputs`, two or more.
pub(crate) fn tap(inputs: &[&Tensor], gradients: &TapGradients) -> Result<Tensor> {
    let [first, second, rest @ ..] = inputs else {
        bail!("tap: expected two inputs or more, found {}", inputs.len());
    };
    let tap = |left, right| Tap {
        left,
        right,
        gradients: gradients.clone(),
    };
    let mut bundle = first.apply_op2(second, tap(Some(0), 1))?;
    for (i, input) in rest.iter().enumerate() {
        bundle = bundle.apply_op2(input, tap(None, i + 2))?;
    }
    Ok(bundle)
}

/// Two inputs, of which the left one may be the bundle of those before.
struct Tap {
    /// The place of the left input, unless it is a bundle.
    left: Option<usize>,
    right: usize,
    gradients: TapGradients,
}

impl CustomOp2 for Tap {
    fn name(&self) -> &'static str {
        "tap"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![0.0]), Shape::from(1)))
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let left = match self.left {
            Some(index) => self.gradients.collect(index),
            // The gradient of a bundle only makes candle run the tap before it.
            None => Some(grad.clone()),
        };
        Ok((left, self.gradients.collect(self.right)))
    }
}
