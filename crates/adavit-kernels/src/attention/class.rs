//! The class token's attention row as an operation of candle, image by image.
//!
//! p = softmax(q0 K^T / sqrt(D)) over the tokens that the class token sees; backwards
//! ds = p (dp - sum(p dp)), dq0 = ds K / sqrt(D), dk_j = ds_j q0 / sqrt(D).

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::fused::{slice, tensor, values};
use crate::lanes;
use crate::simd::Level;

#[derive(Debug)]
pub(super) struct ClassAttention {
    pub(super) level: Level,
    pub(super) num_heads: usize,
    /// The tokens that the class token sees: per image, or a single list for all.
    pub(super) seen: Vec<Vec<usize>>,
}

impl ClassAttention {
    fn seen(&self, image: usize) -> &[usize] {
        &self.seen[if self.seen.len() == 1 { 0 } else { image }]
    }

    /// Writes each head's row, given zeros; `q` and `k` are those of one image.
    #[inline(always)]
    fn forward(&self, ps: &mut [f32], (q, k): (&[f32], &[f32]), c: usize, seen: &[usize]) {
        let d = c / self.num_heads;
        let scale = (d as f32).sqrt().recip();
        let mut row = vec![0.0; seen.len()];
        for (head, ps) in ps.chunks_exact_mut(q.len() / c).enumerate() {
            let q = &q[head * d..][..d];
            for (score, token) in row.iter_mut().zip(seen) {
                *score = lanes::dot(q, &k[token * c + head * d..][..d]) * scale;
            }
            let sum = lanes::exp_row(&mut row);
            for (x, token) in row.iter().zip(seen) {
                ps[*token] = x / sum;
            }
        }
    }

    /// Writes an image's gradients of q and k, given zeros, from its rows and their gradients.
    #[inline(always)]
    fn backward(
        &self,
        (dq, dk): (&mut [f32], &mut [f32]),
        (q, k): (&[f32], &[f32]),
        (ps, grad): (&[f32], &[f32]),
        c: usize,
        seen: &[usize],
    ) {
        let d = c / self.num_heads;
        let scale = (d as f32).sqrt().recip();
        let rows = ps
            .chunks_exact(q.len() / c)
            .zip(grad.chunks_exact(q.len() / c));
        for (head, (ps, grad)) in rows.enumerate() {
            // Where the class token does not look p is zero.
            let mean = lanes::dot(ps, grad);
            let class = head * d..(head + 1) * d;
            for token in seen {
                let ds = ps[*token] * (grad[*token] - mean) * scale;
                let own = token * c + head * d..token * c + (head + 1) * d;
                for (dk, q) in dk[own.clone()].iter_mut().zip(&q[class.clone()]) {
                    *dk = ds * q;
                }
                for (dq, k) in dq[class.clone()].iter_mut().zip(&k[own]) {
                    *dq += ds * k;
                }
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
        let (b, n, c) = layout.shape().dims3()?;
        let (q, k) = (slice(q, layout)?, slice(k, k_layout)?);
        let mut ps = vec![0.0; b * self.num_heads * n];
        ps.par_chunks_mut(self.num_heads * n)
            .zip(q.par_chunks(n * c).zip(k.par_chunks(n * c)))
            .enumerate()
            .for_each(|(image, (ps, inputs))| {
                self.level.run(
                    #[inline(always)]
                    || self.forward(ps, inputs, c, self.seen(image)),
                );
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
        let (_, n, c) = q.dims3()?;
        let grad = grad.contiguous()?;
        let (mut dq, mut dk) = (vec![0.0; q.elem_count()], vec![0.0; q.elem_count()]);
        let (q_values, k_values) = (values(q)?, values(k)?);
        let (ps, grad) = (values(ps)?, values(&grad)?);
        dq.par_chunks_mut(n * c)
            .zip(dk.par_chunks_mut(n * c))
            .zip(q_values.par_chunks(n * c).zip(k_values.par_chunks(n * c)))
            .zip(
                ps.par_chunks(self.num_heads * n)
                    .zip(grad.par_chunks(self.num_heads * n)),
            )
            .enumerate()
            .for_each(|(image, (((dq, dk), inputs), rows))| {
                self.level.run(
                    #[inline(always)]
                    || self.backward((&mut *dq, &mut *dk), inputs, rows, c, self.seen(image)),
                );
            });
        Ok((Some(tensor(dq, q)?), Some(tensor(dk, k)?)))
    }
}
