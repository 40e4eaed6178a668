//! The class token's attention row as an operation of candle: all (image, head) pairs on rayon's
//! pool.
//!
//! p = softmax(q0 K^T / sqrt(D)) over the tokens that the class token sees; backwards
//! ds = p (dp - sum(p dp)), dq0 = ds K / sqrt(D), dk_j = ds_j q0 / sqrt(D).

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::cpu::head::{Channels, Head};
use crate::cpu::lanes;
use crate::cpu::shared::{Shared, with_scratch};
use crate::cpu::simd::Level;
use crate::ops::attention::pairs::{Dims, Selection, selections};
use crate::ops::fused::{self, slice, tensor, values};
use crate::trace::operation;
use crate::{composed, shape};

/// Returns the class token's attention row of each head, `(B, H, N)`: softmax of its query with
/// every key, restricted to kept tokens.
///
/// # Shapes
/// As for [`attention`].
///
/// # NaN
/// As for [`attention`]. A NaN in a token that the class token sees, or in a token gate of the image,
/// spreads to every token that it sees. In f32 on the CPU the other tokens are not read.
///
/// [`attention`]: crate::attention
pub fn class_attention(
    q: &Tensor,
    k: &Tensor,
    num_heads: usize,
    tokens: Option<&Tensor>,
) -> Result<Tensor> {
    class_attention_at(Level::current(), q, k, num_heads, tokens)
}

pub(crate) fn class_attention_at(
    level: Level,
    q: &Tensor,
    k: &Tensor,
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

#[derive(Debug)]
struct ClassAttention {
    level: Level,
    num_heads: usize,
    /// The tokens that the class token sees, as kept tokens: per image, or one selection for all.
    seen: Vec<Selection>,
}

impl ClassAttention {
    /// Returns pair `index` of tensors `(B, N, C)`, counted image by image.
    fn row<'a>(&'a self, index: usize, dims: Dims, q: &'a [f32], k: &'a [f32]) -> ClassRow<'a> {
        let Dims { n, c, .. } = dims;
        let (image, head) = (index / self.num_heads, index % self.num_heads);
        let seen = &self.seen[if self.seen.len() == 1 { 0 } else { image }];
        let width = c / self.num_heads;
        let channels = Channels {
            start: image * n * c + head * width,
            stride: c,
        };
        let head = Head {
            inputs: channels,
            outputs: channels,
            width,
            tokens: &seen.kept,
        };
        let scale = if seen.unknown { f32::NAN } else { head.scale() };
        ClassRow { head, scale, q, k }
    }
}

/// The class token's row of one head of one image.
#[derive(Clone, Copy)]
struct ClassRow<'a> {
    head: Head<'a>,
    /// The factor of its scores.
    scale: f32,
    q: &'a [f32],
    k: &'a [f32],
}

impl ClassRow<'_> {
    /// Writes the row, given zeros; `scores` has a place for each token seen.
    #[inline(always)]
    fn forward(&self, ps: &mut [f32], scores: &mut [f32]) {
        let (head, k) = (self.head, self.k);
        let q = &self.q[head.inputs.start..][..head.width];
        for (score, (place, _)) in scores.iter_mut().zip(head.places()) {
            *score = lanes::dot(q, &k[place..][..head.width]) * self.scale;
        }
        let sum = lanes::exp_row(scores);
        for (x, token) in scores.iter().zip(head.tokens) {
            ps[*token] = x / sum;
        }
    }

    /// Writes the pair's part of the gradients of q and k, given zeros, from its row and the gradient
    /// of that row.
    #[inline(always)]
    fn backward(&self, [dq, dk]: &[Shared; 2], ps: &[f32], grad: &[f32]) {
        let (head, k, d) = (self.head, self.k, self.head.width);
        let q = &self.q[head.inputs.start..][..d];
        // SAFETY: the rows of a pair are its own, and this is the only one of dq held.
        let dq = unsafe { dq.range(head.inputs.start, d) };
        // Where the class token does not look p is zero.
        let mean = lanes::dot(ps, grad);
        for (token, (place, _)) in head.tokens.iter().zip(head.places()) {
            let ds = ps[*token] * (grad[*token] - mean) * self.scale;
            // SAFETY: the rows of a pair are its own, and this is the only one of dk held.
            let dk = unsafe { dk.range(place, d) };
            for (dk, q) in dk.iter_mut().zip(q) {
                *dk = ds * q;
            }
            for (dq, k) in dq.iter_mut().zip(&k[place..]) {
                *dq += ds * k;
            }
        }
    }
}

impl CustomOp2 for ClassAttention {
    fn name(&self) -> &'static str {
        "class_attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let _span = operation("class_attention", 0);
        let (b, n, c) = layout.shape().dims3()?;
        let (q, k) = (slice(q, layout)?, slice(k, k_layout)?);
        let mut ps = vec![0.0; b * self.num_heads * n];
        ps.par_chunks_mut(n).enumerate().for_each(|(index, ps)| {
            let row = self.row(index, Dims { b, n, c }, q, k);
            with_scratch(row.head.tokens.len(), |scores| {
                self.level.run(
                    #[inline(always)]
                    || row.forward(ps, scores),
                );
            });
        });
        Ok((CpuStorage::F32(ps), Shape::from((b, self.num_heads, n))))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        ps: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let _span = operation("class_attention backward", 0);
        let (b, n, c) = q.dims3()?;
        let grad = grad.contiguous()?;
        let mut found = [(); 2].map(|()| vec![0.0; q.elem_count()]);
        let outputs = found.each_mut().map(|found| Shared::new(found));
        let (q_values, k_values) = (values(q)?, values(k)?);
        let (ps, grad) = (values(ps)?, values(&grad)?);
        ps.par_chunks(n)
            .zip(grad.par_chunks(n))
            .enumerate()
            .for_each(|(index, (ps, grad))| {
                let row = self.row(index, Dims { b, n, c }, &q_values, &k_values);
                self.level.run(
                    #[inline(always)]
                    || row.backward(&outputs, ps, grad),
                );
            });
        let [dq, dk] = found;
        Ok((Some(tensor(dq, q)?), Some(tensor(dk, k)?)))
    }
}
