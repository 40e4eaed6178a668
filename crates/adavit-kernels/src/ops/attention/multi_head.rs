//! Multi-head attention with its four maps as one operation: the products of query, key and value
//! are one, and so are those of their gradients.
//!
//! q, k and v are kept for the gradient side by side, row by row, and so are the attended values;
//! they are freed in the course of the backward. With A the attended values: dWp = dy^T A,
//! dA = dy Wp, then dq, dk, dv by attention, dW = (dq, dk, dv)^T x, dx = (dq, dk, dv) W.

use candle_core::{CpuStorage, CustomOp2, D, Layout, Result, Shape, Tensor};

use super::pairs::{Gates, Operands, Pairs};
use super::{HeadGate, gate_values, selections};
use crate::cpu::packed::Packed;
use crate::cpu::rows;
use crate::cpu::shared::Shared;
use crate::cpu::simd::Level;
use crate::cpu::transposed::transposed_product;
use crate::ops::fused::{self, slice, tensor, values};
use crate::ops::kept::Kept;
use crate::ops::linear;
use crate::ops::tap::{Gradients, tap};
use crate::trace::operation;
use crate::{composed, shape};

/// The weight `(O, I)` and the bias `(O,)` of each map of multi-head attention.
#[derive(Debug, Clone, Copy)]
pub struct AttentionMaps<'a> {
    /// `(C, I)` and `(C,)`.
    pub query: (&'a Tensor, Option<&'a Tensor>),
    /// `(C, I)` and `(C,)`.
    pub key: (&'a Tensor, Option<&'a Tensor>),
    /// `(C, I)` and `(C,)`.
    pub value: (&'a Tensor, Option<&'a Tensor>),
    /// `(O, C)` and `(O,)`.
    pub proj: (&'a Tensor, Option<&'a Tensor>),
}

impl<'a> AttentionMaps<'a> {
    fn all(&self) -> [(&'a Tensor, Option<&'a Tensor>); 4] {
        [self.query, self.key, self.value, self.proj]
    }

    fn check(&self, xs: &Tensor, num_heads: usize) -> Result<()> {
        let (c, _) = self.query.0.dims2()?;
        for (weight, bias) in [self.query, self.key, self.value] {
            shape::expect("attention map", weight, &[c, xs.dim(D::Minus1)?])?;
            if let Some(bias) = bias {
                shape::expect("attention map bias", bias, &[c])?;
            }
        }
        let (weight, bias) = self.proj;
        shape::expect("attention proj", weight, &[weight.dim(0)?, c])?;
        if let Some(bias) = bias {
            shape::expect("attention proj bias", bias, &[weight.dim(0)?])?;
        }
        shape::divides("attention heads", num_heads, c)
    }
}

/// Returns `proj(attention(query x, key x, value x))`, with the gates of [`attention`].
///
/// # Shapes
/// `xs`: `(B, N, I)`, token gates `(B, N)`, head gates `(B, H)` -> `(B, N, O)`.
///
/// [`attention`]: super::attention()
pub fn multi_head_attention(
    xs: &Tensor,
    maps: &AttentionMaps,
    num_heads: usize,
    tokens: Option<&Tensor>,
    heads: HeadGate,
) -> Result<Tensor> {
    multi_head_attention_at(Level::current(), (xs, maps), num_heads, tokens, heads)
}

pub(crate) fn multi_head_attention_at(
    level: Level,
    (xs, maps): (&Tensor, &AttentionMaps),
    num_heads: usize,
    tokens: Option<&Tensor>,
    heads: HeadGate,
) -> Result<Tensor> {
    let (b, n, _) = xs.dims3()?;
    maps.check(xs, num_heads)?;
    if let Some(tokens) = tokens {
        shape::expect("attention token gates", tokens, &[b, n])?;
    }
    if let Some(gates) = heads.gates() {
        shape::expect("attention head gates", gates, &[b, num_heads])?;
    }
    let operands: Vec<&Tensor> = maps
        .all()
        .into_iter()
        .flat_map(|(weight, bias)| std::iter::once(weight).chain(bias))
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
    let gradients = Gradients::default();
    let bundle = tap(&operands.iter().collect::<Vec<_>>(), &gradients)?;
    let tracked = xs.track_op() || operands.iter().any(Tensor::track_op);
    let op = MultiHeadAttention {
        pairs: Pairs {
            level,
            num_heads,
            selections: selections(n, tokens)?,
            gates: gate_values(heads)?,
        },
        biases: maps.all().map(|(_, bias)| bias.is_some()),
        operands: operands.iter().map(Tensor::detach).collect(),
        kept: Kept::new(tracked),
        gradients,
    };
    xs.contiguous()?.apply_op2(&bundle, op)
}

/// What the forward leaves for the backward.
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
    kept: Kept<Attended>,
    gradients: Gradients,
}

impl MultiHeadAttention {
    fn level(&self) -> Level {
        self.pairs.level
    }

    /// Returns weight and bias of map `index`.
    fn map(&self, index: usize) -> (&Tensor, Option<&Tensor>) {
        let before = &self.biases[..index];
        let at = before
            .iter()
            .map(|bias| 1 + usize::from(*bias))
            .sum::<usize>();
        let bias = self.biases[index].then(|| &self.operands[at + 1]);
        (&self.operands[at], bias)
    }

    /// Returns the channels of q, k and v.
    fn channels(&self) -> Result<usize> {
        self.map(0).0.dim(0)
    }

    /// Returns the weights of q, k and v one below the other, `(3 C, I)`.
    fn qkv_weight(&self) -> Result<Vec<f32>> {
        let mut weight = Vec::new();
        for index in 0..3 {
            weight.extend_from_slice(&values(self.map(index).0)?);
        }
        Ok(weight)
    }

    fn bias(&self, index: usize) -> Result<Vec<f32>> {
        match self.map(index) {
            (_, Some(bias)) => Ok(values(bias)?.to_vec()),
            (weight, None) => Ok(vec![0.0; weight.dim(0)?]),
        }
    }

    fn attend(&self, xs: &[f32], (b, n): (usize, usize)) -> Result<Attended> {
        let c = self.channels()?;
        let n_in = self.map(0).0.dim(1)?;
        let weight = Packed::transposed(&self.qkv_weight()?, n_in);
        let bias = [self.bias(0)?, self.bias(1)?, self.bias(2)?].concat();
        let qkv = {
            let _span = operation("attention maps", xs.len() * 3 * c);
            linear::affine_product(self.level(), xs, &weight, &bias)
        };
        let attended = self.pairs.forward((b, n, c), operands(&qkv, c));
        Ok(Attended { qkv, attended })
    }

    /// Returns dWp and dbp, and the gradient of the attended values.
    fn proj_gradients(&self, attended: &[f32], grad: &[f32]) -> Result<([Vec<f32>; 2], Vec<f32>)> {
        let (weight, _) = self.map(3);
        let (n_out, c) = weight.dims2()?;
        let _span = operation("attention maps backward", 2 * grad.len() * c);
        let dw = transposed_product(self.level(), (grad, n_out), (attended, c));
        let db = rows::column_sums(self.level(), grad, n_out);
        let weight = Packed::rows(&values(weight)?, c);
        let dx = linear::plain_product(self.level(), grad, &weight);
        Ok(([dw, db], dx))
    }

    /// Returns the gradients of qkv and of the gates.
    fn attention_gradients(
        &self,
        (b, n): (usize, usize),
        qkv: &[f32],
        grad: &[f32],
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let c = self.channels()?;
        let mut found = vec![0.0; qkv.len()];
        let all = Shared::new(&mut found);
        let outputs = [all.from(0), all.from(c), all.from(2 * c)];
        let gates = self
            .pairs
            .backward((b, n, c), operands(qkv, c), grad, &outputs);
        Ok((found, gates))
    }

    /// Returns the gradients of the operands, in their order.
    fn leave(
        &self,
        qkv: [Vec<f32>; 2],
        proj: [Vec<f32>; 2],
        gates: Vec<f32>,
    ) -> Result<Vec<Option<Tensor>>> {
        let [weights, biases] = qkv;
        let (c, n_in) = self.map(0).0.dims2()?;
        let parts = weights.chunks_exact(c * n_in).zip(biases.chunks_exact(c));
        let maps = parts
            .map(|(dw, db)| [dw.to_vec(), db.to_vec()])
            .chain([proj]);
        let mut gradients = Vec::new();
        for (index, [dw, db]) in maps.enumerate() {
            let (weight, bias) = self.map(index);
            gradients.push(Some(tensor(dw, weight)?));
            if let Some(bias) = bias {
                gradients.push(Some(tensor(db, bias)?));
            }
        }
        if !matches!(self.pairs.gates, Gates::All) {
            let shape = self.operands.last().expect("gates are the last operand");
            gradients.push(Some(tensor(gates, shape)?));
        }
        Ok(gradients)
    }
}

/// Returns q, k and v of rows that hold all three.
fn operands(qkv: &[f32], c: usize) -> Operands<'_> {
    Operands {
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
        let (b, n, _) = layout.shape().dims3()?;
        let kept = self.attend(slice(xs, layout)?, (b, n))?;
        let (weight, _) = self.map(3);
        let (n_out, c) = weight.dims2()?;
        let _span = operation("attention maps", b * n * c * n_out);
        let weight = Packed::transposed(&values(weight)?, c);
        let ys = linear::affine_product(self.level(), &kept.attended, &weight, &self.bias(3)?);
        self.kept.put(kept);
        Ok((CpuStorage::F32(ys), Shape::from((b, n, n_out))))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        bundle: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (b, n, n_in) = xs.dims3()?;
        let grad = grad.contiguous()?;
        let (inputs, grad) = (values(xs)?, values(&grad)?);
        let kept = match self.kept.take() {
            Some(kept) => kept,
            None => self.attend(&inputs, (b, n))?,
        };
        let (proj, attended_grad) = self.proj_gradients(&kept.attended, &grad)?;
        let (dqkv, gates) = self.attention_gradients((b, n), &kept.qkv, &attended_grad)?;
        drop((kept, attended_grad));
        let n_out = 3 * self.channels()?;
        let needed = 1 + usize::from(xs.track_op());
        let _span = operation("attention maps backward", needed * inputs.len() * n_out);
        let dw = transposed_product(self.level(), (&dqkv, n_out), (&inputs, n_in));
        let db = rows::column_sums(self.level(), &dqkv, n_out);
        self.gradients.leave(self.leave([dw, db], proj, gates)?);
        let dx = if xs.track_op() {
            let weight = Packed::rows(&self.qkv_weight()?, n_in);
            let dx = linear::plain_product(self.level(), &dqkv, &weight);
            Some(tensor(dx, xs)?)
        } else {
            None
        };
        Ok((dx, Some(bundle.zeros_like()?)))
    }
}
