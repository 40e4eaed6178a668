//! Multi-head attention with its four maps as one operation: query, key and value are one product, and
//! so are their gradients.
//!
//! The forward saves q, k and v, side by side in each row, and the attended values; the backward frees
//! them. With A the attended values: dWp = dy^T A,
//! dA = dy Wp, then dq, dk, dv by attention, dW = (dq, dk, dv)^T x, dx = (dq, dk, dv) W.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use crate::args::{AffineMap, AttentionMaps, HeadGate};
use crate::cpu::affine::{affine_product, plain_product};
use crate::cpu::packed::Packed;
use crate::cpu::rows;
use crate::cpu::shared::Shared;
use crate::cpu::simd::Level;
use crate::cpu::transposed::{Rowed, transposed_product};
use crate::ops::attention::pairs::{Dims, GateValues, Pairs, QkvValues, gate_values, selections};
use crate::ops::fused::{self, slice, tensor, values};
use crate::ops::saved::Saved;
use crate::ops::tap::{TapGradients, tap};
use crate::trace::operation;
use crate::{composed, shape};

/// Returns `proj(attention(query x, key x, value x))`, with the gates of [`attention`].
///
/// # Shapes
/// `xs`: `(B, N, I)`, token gates `(B, N)`, head gates `(B, H)` -> `(B, N, O)`.
///
/// [`attention`]: crate::attention
pub fn multi_head_attention(
    xs: &Tensor,
    maps: &AttentionMaps,
    num_heads: usize,
    tokens: Option<&Tensor>,
    heads: HeadGate,
) -> Result<Tensor> {
    multi_head_attention_at(Level::current(), xs, maps, num_heads, tokens, heads)
}

pub(crate) fn multi_head_attention_at(
    level: Level,
    xs: &Tensor,
    maps: &AttentionMaps,
    num_heads: usize,
    tokens: Option<&Tensor>,
    heads: HeadGate,
) -> Result<Tensor> {
    let (b, n, _) = xs.dims3()?;
    shape::attention_maps(xs, maps, num_heads)?;
    if let Some(tokens) = tokens {
        shape::expect("attention token gates", tokens, &[b, n])?;
    }
    if let Some(gates) = heads.gates() {
        shape::expect("attention head gates", gates, &[b, num_heads])?;
    }
    let operands: Vec<&Tensor> = maps
        .all()
        .into_iter()
        .flat_map(|map| std::iter::once(map.weight).chain(map.bias))
        .chain(heads.gates())
        .collect();
    let every = || operands.iter().copied().chain([xs]).chain(tokens);
    if !every().all(|xs| fused::applies(&[xs])) || every().any(|xs| xs.elem_count() == 0) {
        return composed::multi_head_attention(xs, maps, num_heads, tokens, heads);
    }
    let operands = operands
        .into_iter()
        .map(Tensor::contiguous)
        .collect::<Result<Vec<_>>>()?;
    let gradients = TapGradients::default();
    let bundle = tap(&operands.iter().collect::<Vec<_>>(), &gradients)?;
    let tracked = xs.track_op() || operands.iter().any(Tensor::track_op);
    let op = MultiHeadAttention {
        pairs: Pairs {
            level,
            num_heads,
            selections: selections(n, tokens)?,
            gates: gate_values(heads)?,
        },
        biases: maps.all().map(|map| map.bias.is_some()),
        operands: operands.iter().map(Tensor::detach).collect(),
        saved: Saved::new(tracked),
        gradients,
    };
    xs.contiguous()?.apply_op2(&bundle, op)
}

/// What the forward saves for the backward.
struct Attended {
    /// q, k and v of each token, side by side.
    qkv: Vec<f32>,
    attended: Vec<f32>,
}

struct MultiHeadAttention {
    pairs: Pairs,
    /// Which of query, key, value and proj have a bias.
    biases: [bool; 4],
    /// Weights, each followed by its bias if there is one, and the gates if there are any.
    operands: Vec<Tensor>,
    saved: Saved<Attended>,
    gradients: TapGradients,
}

impl MultiHeadAttention {
    fn level(&self) -> Level {
        self.pairs.level
    }

    /// Returns map `index`.
    fn map(&self, index: usize) -> AffineMap<'_> {
        let before = &self.biases[..index];
        let at = before
            .iter()
            .map(|bias| 1 + usize::from(*bias))
            .sum::<usize>();
        AffineMap {
            weight: &self.operands[at],
            bias: self.biases[index].then(|| &self.operands[at + 1]),
        }
    }

    /// Returns the channels of q, k and v.
    fn channels(&self) -> Result<usize> {
        self.map(0).weight.dim(0)
    }

    /// Returns the weights of q, k and v one below the other, `(3 C, I)`.
    fn qkv_weight(&self) -> Result<Vec<f32>> {
        let mut weight = Vec::new();
        for index in 0..3 {
            weight.extend_from_slice(&values(self.map(index).weight)?);
        }
        Ok(weight)
    }

    fn bias(&self, index: usize) -> Result<Vec<f32>> {
        let map = self.map(index);
        match map.bias {
            Some(bias) => Ok(values(bias)?.to_vec()),
            None => Ok(vec![0.0; map.weight.dim(0)?]),
        }
    }

    /// Returns the sizes of q, k and v for inputs `(B, N, I)`.
    fn dims(&self, inputs: &Shape) -> Result<Dims> {
        let (b, n, _) = inputs.dims3()?;
        let c = self.channels()?;
        Ok(Dims { b, n, c })
    }

    fn attend(&self, xs: &[f32], dims: Dims) -> Result<Attended> {
        let c = dims.c;
        let n_in = self.map(0).weight.dim(1)?;
        let weight = Packed::transposed(&self.qkv_weight()?, n_in);
        let bias = [self.bias(0)?, self.bias(1)?, self.bias(2)?].concat();
        let qkv = {
            let _span = operation("attention maps", xs.len() * 3 * c);
            affine_product(self.level(), xs, &weight, &bias)
        };
        let attended = self.pairs.forward(dims, qkv_values(&qkv, c));
        Ok(Attended { qkv, attended })
    }

    /// Returns dWp and dbp, and the gradient of the attended values.
    fn proj_gradients(&self, attended: &[f32], grad: &[f32]) -> Result<(MapGradients, Vec<f32>)> {
        let weight = self.map(3).weight;
        let (n_out, c) = weight.dims2()?;
        let _span = operation("attention maps backward", 2 * grad.len() * c);
        let dy = Rowed {
            values: grad,
            width: n_out,
        };
        let attended = Rowed {
            values: attended,
            width: c,
        };
        let dw = transposed_product(self.level(), dy, attended);
        let db = rows::column_sums(self.level(), grad, n_out);
        let weight = Packed::rows(&values(weight)?, c);
        let dx = plain_product(self.level(), grad, &weight);
        Ok((
            MapGradients {
                weight: dw,
                bias: db,
            },
            dx,
        ))
    }

    /// Returns the gradients of qkv and of the gates.
    fn attention_gradients(&self, dims: Dims, qkv: &[f32], grad: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let c = dims.c;
        let mut found = vec![0.0; qkv.len()];
        let all = Shared::new(&mut found);
        let outputs = [all.from(0), all.from(c), all.from(2 * c)];
        let values = qkv_values(qkv, c);
        let gates = self.pairs.backward(dims, values, grad, &outputs);
        (found, gates)
    }

    /// Returns the gradients of the operands, in their order.
    fn in_order(
        &self,
        qkv: &MapGradients,
        proj: MapGradients,
        gates: Vec<f32>,
    ) -> Result<Vec<Option<Tensor>>> {
        let (c, n_in) = self.map(0).weight.dims2()?;
        let weights = qkv.weight.chunks_exact(c * n_in);
        let maps = weights
            .zip(qkv.bias.chunks_exact(c))
            .map(|(weight, bias)| MapGradients {
                weight: weight.to_vec(),
                bias: bias.to_vec(),
            })
            .chain([proj]);
        let mut gradients = Vec::new();
        for (index, found) in maps.enumerate() {
            let map = self.map(index);
            gradients.push(Some(tensor(found.weight, map.weight)?));
            if let Some(bias) = map.bias {
                gradients.push(Some(tensor(found.bias, bias)?));
            }
        }
        if !matches!(self.pairs.gates, GateValues::All) {
            let shape = self.operands.last().expect("gates are the last operand");
            gradients.push(Some(tensor(gates, shape)?));
        }
        Ok(gradients)
    }
}

/// The gradients of a map, or of several one below the other.
struct MapGradients {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

/// Returns q, k and v of rows that hold all three.
fn qkv_values(qkv: &[f32], c: usize) -> QkvValues<'_> {
    QkvValues {
        q: qkv,
        k: &qkv[c..],
        v: &qkv[2 * c..],
        stride: 3 * c,
    }
}

impl CustomOp2 for MultiHeadAttention {
    fn name(&self) -> &'static str {
        "multi_head_attention"
    }

    fn cpu_fwd(
        &self,
        xs: &CpuStorage,
        layout: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let dims = self.dims(layout.shape())?;
        let Dims { b, n, .. } = dims;
        let found = self.attend(slice(xs, layout)?, dims)?;
        let weight = self.map(3).weight;
        let (n_out, c) = weight.dims2()?;
        let _span = operation("attention maps", b * n * c * n_out);
        let weight = Packed::transposed(&values(weight)?, c);
        let ys = affine_product(self.level(), &found.attended, &weight, &self.bias(3)?);
        self.saved.put(found);
        Ok((CpuStorage::F32(ys), Shape::from((b, n, n_out))))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        bundle: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dims, n_in) = (self.dims(xs.shape())?, xs.dim(2)?);
        let grad = grad.contiguous()?;
        let (inputs, grad) = (values(xs)?, values(&grad)?);
        let found = match self.saved.take() {
            Some(found) => found,
            None => self.attend(&inputs, dims)?,
        };
        let (proj, attended_grad) = self.proj_gradients(&found.attended, &grad)?;
        let (dqkv, gates) = self.attention_gradients(dims, &found.qkv, &attended_grad);
        drop((found, attended_grad));
        let n_out = 3 * dims.c;
        let needed = 1 + usize::from(xs.track_op());
        let _span = operation("attention maps backward", needed * inputs.len() * n_out);
        let rows_of_dqkv = Rowed {
            values: &dqkv,
            width: n_out,
        };
        let rows_of_inputs = Rowed {
            values: &inputs,
            width: n_in,
        };
        let qkv = MapGradients {
            weight: transposed_product(self.level(), rows_of_dqkv, rows_of_inputs),
            bias: rows::column_sums(self.level(), &dqkv, n_out),
        };
        self.gradients.store(self.in_order(&qkv, proj, gates)?);
        let dx = if xs.track_op() {
            let weight = Packed::rows(&self.qkv_weight()?, n_in);
            let dx = plain_product(self.level(), &dqkv, &weight);
            Some(tensor(dx, xs)?)
        } else {
            None
        };
        Ok((dx, Some(bundle.zeros_like()?)))
    }
}
