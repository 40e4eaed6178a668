//! Attention of a batch: all (image, head) pairs on rayon's pool.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use crate::args::HeadGate;
use crate::cpu::head::{Channels, Head};
use crate::cpu::shared::{Shared, with_scratch};
use crate::cpu::simd::Level;
use crate::ops::attention::pair::{Backward, Forward, GateValue, Pair};
use crate::trace::operation;

/// The gates of the heads, `(B, H)`, by value.
#[derive(Debug, Clone)]
pub(super) enum GateValues {
    All,
    Full(Vec<f32>),
    Partial(Vec<f32>),
}

/// The kept tokens of an image, and the others.
#[derive(Debug, Clone, Default)]
pub(super) struct Selection {
    pub(super) kept: Vec<usize>,
    pub(super) dropped: Vec<usize>,
    /// Whether a token gate is NaN, so that the kept tokens are unknown.
    pub(super) unknown: bool,
}

/// The sizes of q, k and v, `(B, N, C)` each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dims {
    pub(super) b: usize,
    pub(super) n: usize,
    pub(super) c: usize,
}

/// The values of q, k and v, each with `stride` values from token to token.
#[derive(Clone, Copy)]
pub(super) struct QkvValues<'a> {
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
    pub(super) gates: GateValues,
}

impl Pairs {
    /// Multiply-adds of the two products of a forward, as if every head were on.
    fn macs(&self, Dims { b, c, .. }: Dims) -> usize {
        let each = |selection: &Selection| 2 * selection.kept.len().pow(2) * c;
        let sum: usize = self.selections.iter().map(each).sum();
        sum * b / self.selections.len().max(1)
    }

    /// Returns pair `index`, counted image by image.
    fn pair<'a>(&'a self, index: usize, dims: Dims, values: QkvValues<'a>) -> Pair<'a> {
        let Dims { n, c, .. } = dims;
        let (image, head) = (index / self.num_heads, index % self.num_heads);
        let selection = &self.selections[if self.selections.len() == 1 { 0 } else { image }];
        let gate = match &self.gates {
            GateValues::Full(gates) if gates[index] == 0.0 => GateValue::Full(0.0),
            // A factor of everything that the pair gives.
            _ if selection.unknown => GateValue::Full(f32::NAN),
            GateValues::All => GateValue::Full(1.0),
            GateValues::Full(gates) => GateValue::Full(gates[index]),
            GateValues::Partial(gates) => GateValue::Partial(gates[index]),
        };
        let width = c / self.num_heads;
        let channels = |stride: usize| Channels {
            start: image * n * stride + head * width,
            stride,
        };
        let kept = Head {
            inputs: channels(values.stride),
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
            gated: !matches!(self.gates, GateValues::All),
            q: values.q,
            k: values.k,
            v: values.v,
        }
    }

    /// Returns the attended values `(B, N, C)`.
    pub(super) fn forward(&self, dims: Dims, values: QkvValues) -> Vec<f32> {
        let _span = operation("attention", self.macs(dims));
        let Dims { b, n, c } = dims;
        let mut ys = vec![0.0; b * n * c];
        let shared = Shared::new(&mut ys);
        (0..b * self.num_heads).into_par_iter().for_each(|index| {
            let pair = self.pair(index, dims, values);
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
        dims: Dims,
        values: QkvValues,
        grad: &[f32],
        outputs: &[Shared; 3],
    ) -> Vec<f32> {
        let _span = operation("attention backward", self.macs(dims) * 5 / 2);
        (0..dims.b * self.num_heads)
            .into_par_iter()
            .map(|index| {
                let pair = self.pair(index, dims, values);
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

/// Returns each image's kept and dropped tokens, or one selection of all `n`.
pub(super) fn selections(n: usize, tokens: Option<&Tensor>) -> Result<Vec<Selection>> {
    let Some(tokens) = tokens else {
        let all = Selection {
            kept: (0..n).collect(),
            ..Selection::default()
        };
        return Ok(vec![all]);
    };
    let rows = tokens.to_vec2::<f32>()?;
    let split = |row: Vec<f32>| {
        let (kept, dropped) = (0..n).partition(|token| row[*token] != 0.0);
        Selection {
            kept,
            dropped,
            unknown: row.iter().any(|gate| gate.is_nan()),
        }
    };
    Ok(rows.into_iter().map(split).collect())
}

pub(super) fn gate_values(heads: HeadGate) -> Result<GateValues> {
    let values = |gates: &Tensor| gates.flatten_all()?.to_vec1();
    Ok(match heads {
        HeadGate::All => GateValues::All,
        HeadGate::Full(gates) => GateValues::Full(values(gates)?),
        HeadGate::Partial(gates) => GateValues::Partial(values(gates)?),
    })
}
