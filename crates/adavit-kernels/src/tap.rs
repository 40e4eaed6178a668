//! More than three differentiable inputs for one operation.
//!
//! candle's operations take three tensors. A [`Tap`] takes up to three more and gives a tensor of
//! one element, which stands for them as an input of the operation. The backward of the operation
//! leaves their gradients with [`Gradients`]; the tap's, which candle runs later since the tap is a
//! producer, hands them over.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

/// The place where an operation leaves gradients for its taps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gradients(Arc<Mutex<Vec<Option<Tensor>>>>);

impl Gradients {
    /// Leaves the gradients of all tapped inputs, in order.
    pub(crate) fn leave(&self, gradients: Vec<Option<Tensor>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = gradients;
    }

    fn collect(&self, index: usize) -> Option<Tensor> {
        let mut gradients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        gradients.get_mut(index).and_then(Option::take)
    }
}

/// Returns the tensor that stands for `inputs`, two or more.
pub(crate) fn tap(inputs: &[&Tensor], gradients: &Gradients) -> Result<Tensor> {
    let op = |first: usize| Tap {
        first,
        gradients: gradients.clone(),
    };
    let [a, b, rest @ ..] = inputs else {
        bail!("tap: expected two inputs or more, found {}", inputs.len());
    };
    let mut bundle = a.apply_op2(b, op(0))?;
    for (i, input) in rest.iter().enumerate() {
        // The bundle so far has no gradient but the sign to go on.
        bundle = bundle.apply_op2(input, Chain(op(i + 2)))?;
    }
    Ok(bundle)
}

struct Tap {
    first: usize,
    gradients: Gradients,
}

/// A tap of one more input, behind the bundle of those before it.
struct Chain(Tap);

fn one() -> (CpuStorage, Shape) {
    (CpuStorage::F32(vec![0.0]), Shape::from(1))
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
        Ok(one())
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let collect = |index| self.gradients.collect(index);
        Ok((collect(self.first), collect(self.first + 1)))
    }
}

impl CustomOp2 for Chain {
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
        Ok(one())
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(grad.clone()), self.0.gradients.collect(self.0.first)))
    }
}
