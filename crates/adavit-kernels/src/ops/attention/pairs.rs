//! Attention as operations of candle: all (image, head) pairs over rayon's pool, head gates inside.
//!
//! candle's operations take three tensors, and the gates would be the fourth. So [`Attention`]
//! holds their values, and its backward leaves their gradient in a place shared with [`GateTap`],
//! which takes (q, gates), passes q on, and hands that gradient over: as q's producer its backward
//! runs after that of attention.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::pair::{Backward, Forward, Gate, Pair};
use crate::cpu::head::{Channels, Head};
use crate::cpu::shared::{Shared, with_scratch};
use crate::cpu::simd::Level;
use crate::ops::fused::{slice, tensor, values};
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

/// q, k and v, each with `stride` values from token to token.
#[derive(Clone, Copy)]
pub(super) struct Operands<'a> {
    pub(super) q: &'a [f32],
    pub(super) k: &'a [f32],
    pub(super) v: &'a [f32],
    pub(super) stride: usize,
}

/// All (image, head) pairs of a batch, and what masks leave of them.
#[derive(Debug)]
pub(super) struct Pairs {
    pub(super) level: Level,
    pub(super) num_heads: usize,
    /// One per image, or a single one for all.
    pub(super) selections: Vec<Selection>,
    pub(super) gates: Gates,
}

impl Pairs {
    /// Multiply-adds of the two products of a forward, as if every head were on.
    pub(super) fn macs(&self, (b, _, c): (usize, usize, usize)) -> usize {
        let each = |selection: &Selection| 2 * selection.kept.len().pow(2) * c;
        let sum: usize = self.selections.iter().map(each).sum();
        sum * b / self.selections.len().max(1)
    }

    /// Returns pair `index`, counted image by image, of `n` tokens and `c` channels.
    fn pair<'a>(
        &'a self,
        index: usize,
        (n, c): (usize, usize),
        operands: Operands<'a>,
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
        let channels = |stride: usize| Channels {
            start: image * n * stride + head * width,
            stride,
        };
        let kept = Head {
            inputs: channels(operands.stride),
            outputs: channels(c),
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
            q: operands.q,
            k: operands.k,
            v: operands.v,
        }
    }

    /// Returns the attended values `(B, N, C)`.
    pub(super) fn forward(&self, (b, n, c): (usize, usize, usize), operands: Operands) -> Vec<f32> {
        let _span = operation("attention", self.macs((b, n, c)));
        let mut ys = vec![0.0; b * n * c];
        let shared = Shared::new(&mut ys);
        (0..b * self.num_heads).into_par_iter().for_each(|index| {
            let pair = self.pair(index, (n, c), operands);
            with_scratch(pair.scratch_len(), |scratch| {
                self.level.dispatch(Forward {
                    pair: &pair,
                    ys: &shared,
                    scratch,
                });
            });
        });
        ys
    }

    /// Writes the gradients of q, k and v, laid out like them and given zeros, from that of the
    /// attended values, and returns the gradient of the gates.
    pub(super) fn backward(
        &self,
        (b, n, c): (usize, usize, usize),
        operands: Operands,
        grad: &[f32],
        outputs: &[Shared; 3],
    ) -> Vec<f32> {
        let _span = operation("attention backward", self.macs((b, n, c)) * 5 / 2);
        (0..b * self.num_heads)
            .into_par_iter()
            .map(|index| {
                let pair = self.pair(index, (n, c), operands);
                with_scratch(pair.scratch_len(), |scratch| {
                    self.level.dispatch(Backward {
                        pair: &pair,
                        grad,
                        outputs,
                        scratch,
                    })
                })
            })
            .collect()
    }
}

/// Attention on q, k and v.
#[derive(Debug)]
pub(super) struct Attention {
    pub(super) pairs: Pairs,
    pub(super) gate_gradient: GateGradient,
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
        let (b, n, c) = layout.shape().dims3()?;
        let operands = Operands {
            q: slice(q, layout)?,
            k: slice(k, k_layout)?,
            v: slice(v, v_layout)?,
            stride: c,
        };
        let ys = self.pairs.forward((b, n, c), operands);
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
        let (b, n, c) = q.dims3()?;
        let grad = grad.contiguous()?;
        let operands = Operands {
            q: &values(q)?,
            k: &values(k)?,
            v: &values(v)?,
            stride: c,
        };
        let mut found = [(); 3].map(|()| vec![0.0; b * n * c]);
        let outputs = found.each_mut().map(|found| Shared::new(found));
        let gates = self
            .pairs
            .backward((b, n, c), operands, &values(&grad)?, &outputs);
        *self
            .gate_gradient
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = gates;
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
