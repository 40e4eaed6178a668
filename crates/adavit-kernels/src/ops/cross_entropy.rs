//! Cross entropy with soft targets: -mean over images of sum_k t_k log softmax(logits)_k.
//!
//! The gradient of a row of logits is (softmax sum_k t_k - t) / B.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use crate::composed;
use crate::cpu::lanes;
use crate::cpu::rows::Pass;
use crate::cpu::simd::Level;
use crate::ops::fused::{self, slice, tensor, values};
use crate::shape;
use crate::trace::operation;

/// Returns the mean cross entropy, a scalar.
///
/// # Shapes
/// `logits`: `(B, K)`, `targets`: `(B, K)` probabilities, without gradient.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    cross_entropy_at(Level::current(), logits, targets)
}

pub(crate) fn cross_entropy_at(level: Level, logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    shape::same("cross_entropy targets", logits, targets)?;
    let (_, k) = logits.dims2()?;
    let targets = targets.detach();
    if fused::applies(&[logits, &targets]) && k > 0 {
        let targets = targets.contiguous()?;
        let op = CrossEntropy { level, targets };
        return logits.contiguous()?.apply_op1(op);
    }
    composed::cross_entropy(logits, &targets)
}

struct CrossEntropy {
    level: Level,
    targets: Tensor,
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let _span = operation("cross_entropy", 0);
        let (b, k) = layout.shape().dims2()?;
        let targets = values(&self.targets)?;
        let images = slice(logits, layout)?
            .chunks_exact(k)
            .zip(targets.chunks_exact(k));
        let mut row = vec![0.0; k];
        let sum: f32 = images
            .map(|(logits, targets)| {
                self.level.run(
                    #[inline(always)]
                    || row_loss(logits, targets, &mut row),
                )
            })
            .sum();
        Ok((CpuStorage::F32(vec![sum / b as f32]), Shape::from(())))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let _span = operation("cross_entropy backward", 0);
        let (b, k) = logits.dims2()?;
        let scale = grad.to_scalar::<f32>()? / b as f32;
        let ds = Pass::rows(self.level, k).map2(
            &values(logits)?,
            &values(&self.targets)?,
            #[inline(always)]
            |_, ds, logits, targets| {
                ds.copy_from_slice(logits);
                for (ds, targets) in ds.chunks_exact_mut(k).zip(targets.chunks_exact(k)) {
                    let factor = lanes::sum_of(
                        targets,
                        #[inline(always)]
                        |t| t,
                    ) / lanes::exp_row(ds);
                    for (d, t) in ds.iter_mut().zip(targets) {
                        *d = scale * (*d * factor - t);
                    }
                }
            },
        );
        Ok(Some(tensor(ds, logits)?))
    }
}

/// Returns sum_k t_k (log sum exp - logit_k); `row` is overwritten.
#[inline(always)]
fn row_loss(logits: &[f32], targets: &[f32], row: &mut [f32]) -> f32 {
    row.copy_from_slice(logits);
    let top = lanes::max(logits);
    let log_sum = lanes::exp_row(row).ln();
    let terms = targets.iter().zip(logits);
    terms.map(|(t, x)| t * (log_sum - (x - top))).sum()
}
