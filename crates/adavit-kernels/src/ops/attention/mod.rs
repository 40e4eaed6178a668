//! Multi-head attention with gates: y = softmax(q k^T / sqrt(D) + mask) v per head.
//!
//! Tokens: a pair attends if both tokens are kept, and each token sees itself.
//! Heads, full deactivation: q, k, v and y are multiplied by the head's gate;
//! partial deactivation: the attention matrix of an off head is the identity.
//! Meng et al., AdaViT, CVPR 2022 (arXiv 2111.15668), section 3.

mod class;
mod multi_head;
mod pair;
mod pairs;

use std::sync::Arc;

use candle_core::{Result, Tensor};

use self::class::ClassAttention;
#[cfg(test)]
pub(crate) use self::multi_head::multi_head_attention_at;
pub use self::multi_head::{AttentionMaps, multi_head_attention};
use self::pairs::{Attention, GateTap, Gates, Pairs, Selection};
use crate::cpu::simd::Level;
use crate::ops::fused;
use crate::{composed, shape};

/// How head gates `(B, H)` act on attention.
#[derive(Debug, Clone, Copy)]
pub enum HeadGate<'a> {
    /// Every head is on.
    All,
    /// Query, key and value of an off head are zero, and so is its output.
    Full(&'a Tensor),
    /// The attention matrix of an off head is the identity: its value passes through.
    Partial(&'a Tensor),
}

impl<'a> HeadGate<'a> {
    fn gates(self) -> Option<&'a Tensor> {
        match self {
            HeadGate::All => None,
            HeadGate::Full(gates) | HeadGate::Partial(gates) => Some(gates),
        }
    }
}

/// Returns the attended values, `(B, N, C)`, before the projection.
///
/// # Shapes
/// `q`, `k`, `v`: `(B, N, C)` as they come from their products, `C = num_heads * D`.
/// `tokens`: `(B, N)`, 0 or 1; it enters without gradient. Head gates: `(B, H)`, with gradient.
///
/// # NaN
/// A NaN in a kept token spreads, within its head, to every token that attends to it, and a NaN
/// among the gates to what they gate: a token gate to its image, a head gate to the kept tokens of
/// its head. In f32 on the CPU what is masked out is not read, so a NaN there goes no further: a
/// dropped token gives its own value and nothing to others, and a head with gate 0 gives zeros
/// ([`HeadGate::Full`]) or its values ([`HeadGate::Partial`], whose gate still gets a gradient from
/// the attention that it turned off). Elsewhere the masks are factors and large negative scores,
/// which let a NaN through.
pub fn attention(
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    num_heads: usize,
    tokens: Option<&Tensor>,
    heads: HeadGate,
) -> Result<Tensor> {
    attention_at(Level::current(), (q, k, v), num_heads, tokens, heads)
}

pub(crate) fn attention_at(
    level: Level,
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    num_heads: usize,
    tokens: Option<&Tensor>,
    heads: HeadGate,
) -> Result<Tensor> {
    shape::attention(q, k, num_heads, tokens)?;
    shape::same("attention", k, v)?;
    if let Some(gates) = heads.gates() {
        shape::expect("attention head gates", gates, &[q.dim(0)?, num_heads])?;
    }
    let gates = heads.gates();
    let operands: Vec<&Tensor> = [q, k, v].into_iter().chain(tokens).chain(gates).collect();
    if !fused::applies(&operands) || q.elem_count() == 0 {
        return composed::attention((q, k, v), num_heads, tokens, heads);
    }
    let op = Attention {
        pairs: Pairs {
            level,
            num_heads,
            selections: selections(q.dim(1)?, tokens)?,
            gates: gate_values(heads)?,
        },
        gate_gradient: Arc::default(),
    };
    let q = match gates {
        Some(gates) if gates.track_op() => {
            let gate_gradient = Arc::clone(&op.gate_gradient);
            let gates = gates.contiguous()?;
            q.contiguous()?
                .apply_op2(&gates, GateTap { gate_gradient })?
        }
        _ => q.contiguous()?,
    };
    q.apply_op3(&k.contiguous()?, &v.contiguous()?, op)
}

/// Returns the class token's attention row of each head, `(B, H, N)`: softmax of its query with
/// every key, restricted to kept tokens.
///
/// # Shapes
/// As for [`attention`].
///
/// # NaN
/// As for [`attention`]: a NaN in a token seen, or in a token gate of the image, spreads to every
/// token seen; in f32 on the CPU the others are not read.
pub fn class_attention(
    q: &Tensor,
    k: &Tensor,
    num_heads: usize,
    tokens: Option<&Tensor>,
) -> Result<Tensor> {
    class_attention_at(Level::current(), (q, k), num_heads, tokens)
}

pub(crate) fn class_attention_at(
    level: Level,
    (q, k): (&Tensor, &Tensor),
    num_heads: usize,
    tokens: Option<&Tensor>,
) -> Result<Tensor> {
    shape::attention(q, k, num_heads, tokens)?;
    let operands: Vec<&Tensor> = [q, k].into_iter().chain(tokens).collect();
    if !fused::applies(&operands) || q.elem_count() == 0 {
        return composed::class_attention(q, k, num_heads, tokens);
    }
    let sees = |mut selection: Selection| {
        if selection.kept.first() != Some(&0) {
            // Dropped, the class token sees itself alone.
            selection.kept = vec![0];
        }
        selection
    };
    let seen = selections(q.dim(1)?, tokens)?
        .into_iter()
        .map(sees)
        .collect();
    let op = ClassAttention {
        level,
        num_heads,
        seen,
    };
    q.contiguous()?.apply_op2(&k.contiguous()?, op)
}

/// Returns each image's kept and dropped tokens, or one selection of all `n`.
fn selections(n: usize, tokens: Option<&Tensor>) -> Result<Vec<Selection>> {
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

fn gate_values(heads: HeadGate) -> Result<Gates> {
    let values = |gates: &Tensor| gates.flatten_all()?.to_vec1();
    Ok(match heads {
        HeadGate::All => Gates::All,
        HeadGate::Full(gates) => Gates::Full(values(gates)?),
        HeadGate::Partial(gates) => Gates::Partial(values(gates)?),
    })
}
