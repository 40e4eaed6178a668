//! Attention of given queries, keys and values as an operation of candle, head gates inside.
//!
//! A custom operation of candle takes three tensors at most, and the gates would be the fourth. So
//! [`Attention`] holds their values. Its backward stores the gradient of the gates in a place that
//! [`GateTap`] shares. The tap takes (q, gates) and passes q on. Since it produces q, candle runs its
//! backward after that of attention, and that returns the gradient of the gates.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

use crate::args::{HeadGate, Qkv};
use crate::cpu::shared::Shared;
use crate::cpu::simd::Level;
use crate::ops::attention::pairs::{Dims, Pairs, QkvValues, gate_values, selections};
use crate::ops::fused::{self, slice, tensor, values};
use crate::trace::operation;
use crate::{composed, shape};

/// Returns the attended values, `(B, N, C)`, before the projection.
///
/// # Shapes
/// `qkv`: `(B, N, C)` each, `C = num_heads * D`.
/// `tokens`: `(B, N)`, 0 or 1, without gradient. Head gates: `(B, H)`, with gradient.
///
/// # NaN
/// A NaN in a kept token spreads, within its head, to every token that attends to it. A NaN gate
/// spreads to what it gates: a token gate to its image, a head gate to the kept tokens of its head.
///
/// In f32 on the CPU, masked values are not read, so a NaN there spreads no further. A dropped token
/// gives its own value and affects no other token. A head with gate 0 gives zeros
/// ([`HeadGate::Full`]) or its values ([`HeadGate::Partial`]); a partial gate still gets a gradient
/// from the attention that it turned off. On other devices and in f64 masks are factors and large
/// negative scores, which let a NaN through.
pub fn attention(
    qkv: Qkv,
    num_heads: usize,
    tokens: Option<&Tensor>,
    heads: HeadGate,
) -> Result<Tensor> {
    attention_at(Level::current(), qkv, num_heads, tokens, heads)
}

pub(crate) fn attention_at(
    level: Level,
    qkv: Qkv,
    num_heads: usize,
    tokens: Option<&Tensor>,
    heads: HeadGate,
) -> Result<Tensor> {
    let Qkv { q, k, v } = qkv;
    shape::attention(q, k, num_heads, tokens)?;
    shape::same("attention", k, v)?;
    if let Some(gates) = heads.gates() {
        shape::expect("attention head gates", gates, &[q.dim(0)?, num_heads])?;
    }
    let gates = heads.gates();
    let operands: Vec<&Tensor> = [q, k, v].into_iter().chain(tokens).chain(gates).collect();
    if !fused::applies(&operands) || q.elem_count() == 0 {
        return composed::attention(qkv, num_heads, tokens, heads);
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

/// The gradient of the gates, `(B, H)`, from the last backward of an [`Attention`].
type GateGradient = Arc<Mutex<Vec<f32>>>;

/// Attention on q, k and v.
#[derive(Debug)]
struct Attention {
    pairs: Pairs,
    gate_gradient: GateGradient,
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
        let values = QkvValues {
            q: slice(q, layout)?,
            k: slice(k, k_layout)?,
            v: slice(v, v_layout)?,
            stride: c,
        };
        let ys = self.pairs.forward(Dims { b, n, c }, values);
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
        let dims = Dims { b, n, c };
        let qkv = QkvValues {
            q: &values(q)?,
            k: &values(k)?,
            v: &values(v)?,
            stride: c,
        };
        let mut found = [(); 3].map(|()| vec![0.0; b * n * c]);
        let outputs = found.each_mut().map(|found| Shared::new(found));
        let gates = self.pairs.backward(dims, qkv, &values(&grad)?, &outputs);
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
struct GateTap {
    gate_gradient: GateGradient,
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
