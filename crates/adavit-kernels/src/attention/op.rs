//! Attention as operations of candle: all (image, head) pairs over rayon's pool, head gates inside.
//!
//! candle's operations take three tensors, and the gates would be the fourth. So [`Attention`]
//! holds their values, and its backward leaves their gradient in a place shared with [`GateTap`],
//! which takes (q, gates), passes q on, and hands that gradient over: as q's producer its backward
//! runs after that of attention.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::kernel::Head;
use super::pair::{Backward, Forward, Gate, Pair};
use crate::fused::{slice, tensor, values};
use crate::shared::{Shared, with_scratch};
use crate::simd::Level;
use crate::trace::operation;

/// The gates of the heads, `(B, H)`, by value.
#[derive(Debug, Clone)]
pub(super) enum Gates {
    All,
    Full(Vec<f32>),
    Partial(Vec<f32>),
}

/// The kept tokens of an image, and the others.
#[derive(Debug, Clone, Default)]
pub(super) struct Selection {
    pub(super) kept: Vec<usize>,
    pub(super) dropped: Vec<usize>,
    /// Whether a token gate is NaN, so that nobody knows which tokens are kept.
    pub(super) unknown: bool,
}

/// The gradient of the gates, `(B, H)`, from the last backward of an [`Attention`].
pub(super) type GateGradient = Arc<Mutex<Vec<f32>>>;

#[derive(Debug)]
pub(super) struct Attention {
    pub(super) level: Level,
    pub(super) num_heads: usize,
    /// One per image, or a single one for all.
    pub(super) selections: Vec<Selection>,
    pub(super) gates: Gates,
    pub(super) gate_gradient: GateGradient,
}

impl Attention {
    /// Multiply-adds of the two products of a forward, as if every head were on.
    fn macs(&self, (b, _, c): (usize, usize, usize)) -> usize {
        let each = |selection: &Selection| 2 * selection.kept.len().pow(2) * c;
        let sum: usize = self.selections.iter().map(each).sum();
        sum * b / self.selections.len().max(1)
    }

    /// Returns pair `index` of tensors `(B, N, C)`, counted image by image.
    fn pair<'a>(
        &'a self,
        index: usize,
        (n, c): (usize, usize),
        (q, k, v): (&'a [f32], &'a [f32], &'a [f32]),
    ) -> Pair<'a> {
        let (image, head) = (index / self.num_heads, index % self.num_heads);
        let selection = &self.selections[if self.selections.len() == 1 { 0 } else { image }];
        let gate = match &self.gates {
            Gates::Full(gates) if gates[index] == 0.0 => Gate::Full(0.0),
            // A factor of everything that the pair gives.
            _ if selection.unknown => Gate::Full(f32::NAN),
            Gates::All => Gate::Full(1.0),
            Gates::Full(gates) => Gate::Full(gates[index]),
            Gates::Partial(gates) => Gate::Partial(gates[index]),
        };
        let width = c / self.num_heads;
        let start = image * n * c + head * width;
        let kept = Head {
            start,
            stride: c,
            width,
            tokens: &selection.kept,
        };
        let dropped = Head {
            tokens: &selection.dropped,
            ..kept
        };
        Pair {
            kept,
            dropped,
            gate,
            gated: !matches!(self.gates, Gates::All),
            q,
            k,
            v,
        }
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let _span = operation("attention", self.macs(layout.shape().dims3()?));
        let (b, n, c) = layout.shape().dims3()?;
        let inputs = (slice(q, layout)?, slice(k, k_layout)?, slice(v, v_layout)?);
        let mut ys = vec![0.0; inputs.0.len()];
        let shared = Shared::new(&mut ys);
        (0..b * self.num_heads).into_par_iter().for_each(|index| {
            let pair = self.pair(index, (n, c), inputs);
            with_scratch(pair.scratch_len(), |scratch| {
                self.level.dispatch(Forward {
                    pair: &pair,
                    ys: &shared,
                    scratch,
                });
            });
        });
        Ok((CpuStorage::F32(ys), layout.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let _span = operation("attention backward", self.macs(q.dims3()?) * 5 / 2);
        let (b, n, c) = q.dims3()?;
        let grad = grad.contiguous()?;
        let (q_values, k_values, v_values) = (values(q)?, values(k)?, values(v)?);
        let inputs = (&*q_values, &*k_values, &*v_values);
        let grad = &*values(&grad)?;
        let mut found = [(); 3].map(|()| vec![0.0; grad.len()]);
        let outputs = found.each_mut().map(|found| Shared::new(found));
        let gate_gradient = (0..b * self.num_heads)
            .into_par_iter()
            .map(|index| {
                let pair = self.pair(index, (n, c), inputs);
                with_scratch(pair.scratch_len(), |scratch| {
                    self.level.dispatch(Backward {
                        pair: &pair,
                        grad,
                        outputs: &outputs,
                        scratch,
                    })
                })
            })
            .collect();
        *self
            .gate_gradient
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = gate_gradient;
        let [dq, dk, dv] = found;
        Ok((
            Some(tensor(dq, q)?),
            Some(tensor(dk, k)?),
            Some(tensor(dv, v)?),
        ))
    }
}

/// Passes q on, and the gradient that attention found for the gates back to them.
pub(super) struct GateTap {
    pub(super) gate_gradient: GateGradient,
}

impl CustomOp2 for GateTap {
    fn name(&self) -> &'static str {
        "attention_gate_tap"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        layout: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let _span = operation("gate tap", 0);
        let q = slice(q, layout)?.to_vec();
        Ok((CpuStorage::F32(q), layout.shape().clone()))
    }

    fn bwd(
        &self,
        _: &Tensor,
        gates: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let _span = operation("gate tap backward", 0);
        let found = self
            .gate_gradient
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Ok((Some(grad.clone()), Some(tensor(found.clone(), gates)?)))
    }
}
