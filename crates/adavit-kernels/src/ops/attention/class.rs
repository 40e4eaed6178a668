//! The class token's attention row as an operation of candle: all (image, head) pairs over rayon's
//! pool.
//!
//! p = softmax(q0 K^T / sqrt(D)) over the tokens that the class token sees; backwards
//! ds = p (dp - sum(p dp)), dq0 = ds K / sqrt(D), dk_j = ds_j q0 / sqrt(D).

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::pairs::Selection;
use crate::cpu::head::{Channels, Head};
use crate::cpu::lanes;
use crate::cpu::shared::{Shared, with_scratch};
use crate::cpu::simd::Level;
use crate::ops::fused::{slice, tensor, values};
use crate::trace::operation;

#[derive(Debug)]
pub(super) struct ClassAttention {
    pub(super) level: Level,
    pub(super) num_heads: usize,
    /// What the class token sees, as kept tokens: per image, or a single selection for all.
    pub(super) seen: Vec<Selection>,
}

impl ClassAttention {
    /// Returns pair `index` of tensors `(B, N, C)`, counted image by image, and the factor of its
    /// scores.
    fn head(&self, index: usize, (n, c): (usize, usize)) -> (Head<'_>, f32) {
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
        (head, scale)
    }
}

/// Writes the row of one head of one image, given zeros; `scores` has a place for each token seen.
#[inline(always)]
fn forward(
    ps: &mut [f32],
    scores: &mut [f32],
    (q, k): (&[f32], &[f32]),
    (head, scale): (Head, f32),
) {
    let q = &q[head.inputs.start..][..head.width];
    for (score, (place, _)) in scores.iter_mut().zip(head.places()) {
        *score = lanes::dot(q, &k[place..][..head.width]) * scale;
    }
    let sum = lanes::exp_row(scores);
    for (x, token) in scores.iter().zip(head.tokens) {
        ps[*token] = x / sum;
    }
}

/// Writes a pair's part of the gradients of q and k, given zeros, from its row and that one's
/// gradient.
#[inline(always)]
fn backward(
    [dq, dk]: &[Shared; 2],
    (q, k): (&[f32], &[f32]),
    (ps, grad): (&[f32], &[f32]),
    (head, scale): (Head, f32),
) {
    let d = head.width;
    let q = &q[head.inputs.start..][..d];
    // SAFETY: the rows of a pair are its own, and this is the only one of dq held.
    let dq = unsafe { dq.range(head.inputs.start, d) };
    // Where the class token does not look p is zero.
    let mean = lanes::dot(ps, grad);
    for (token, (place, _)) in head.tokens.iter().zip(head.places()) {
        let ds = ps[*token] * (grad[*token] - mean) * scale;
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
        let inputs = (slice(q, layout)?, slice(k, k_layout)?);
        let mut ps = vec![0.0; b * self.num_heads * n];
        ps.par_chunks_mut(n).enumerate().for_each(|(index, ps)| {
            let head = self.head(index, (n, c));
            with_scratch(head.0.tokens.len(), |scores| {
                self.level.run(
                    #[inline(always)]
                    || forward(ps, scores, inputs, head),
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
        let (_, n, c) = q.dims3()?;
        let grad = grad.contiguous()?;
        let mut found = [(); 2].map(|()| vec![0.0; q.elem_count()]);
        let outputs = found.each_mut().map(|found| Shared::new(found));
        let (q_values, k_values) = (values(q)?, values(k)?);
        let inputs = (&*q_values, &*k_values);
        let (ps, grad) = (values(ps)?, values(&grad)?);
        ps.par_chunks(n)
            .zip(grad.par_chunks(n))
            .enumerate()
            .for_each(|(index, rows)| {
                let head = self.head(index, (n, c));
                self.level.run(
                    #[inline(always)]
                    || backward(&outputs, inputs, rows, head),
                );
            });
        let [dq, dk] = found;
        Ok((Some(tensor(dq, q)?), Some(tensor(dk, k)?)))
    }
}
