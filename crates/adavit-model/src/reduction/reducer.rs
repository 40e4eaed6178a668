//! Tokens become fewer: which are kept, and which become one.

use adavit_kernels::{HeadGate, Qkv, attention, class_attention, softmax};
use candle_core::{DType, Result, Tensor, bail};

use super::{ReductionMethod, TokenReduction};

/// What stays of the tokens from block to block.
#[derive(Debug)]
pub(crate) struct Reducer<'a> {
    reduction: &'a TokenReduction,
    /// How many patches each token stands for, `(B, N)`; none while each is one.
    sizes: Option<Tensor>,
}

impl<'a> Reducer<'a> {
    pub(crate) fn new(reduction: &'a TokenReduction) -> Self {
        Self {
            reduction,
            sizes: None,
        }
    }

    /// Attention over the present tokens, before the projection; `q`, `k` and `v` are `(B, N, C)`.
    pub(crate) fn attention(
        &self,
        (q, k, v): (&Tensor, &Tensor, &Tensor),
        num_heads: usize,
    ) -> Result<Tensor> {
        let Some(sizes) = &self.sizes else {
            return attention(Qkv { q, k, v }, num_heads, None, HeadGate::All);
        };
        let (b, n) = sizes.dims2()?;
        let bias = sizes.log()?.reshape((b, 1, 1, n))?;
        biased_attention((q, k, v), num_heads, &bias)
    }

    /// The tokens that block `block` leaves of `xs`, `(B, N, C)`, after its attention of the queries
    /// and keys `q` and `k`.
    pub(crate) fn reduce(
        &mut self,
        xs: &Tensor,
        block: usize,
        (q, k): (&Tensor, &Tensor),
        num_heads: usize,
    ) -> Result<Tensor> {
        let (n, after) = (xs.dim(1)?, self.reduction.tokens[block]);
        if after >= n {
            return Ok(xs.clone());
        }
        match self.reduction.method {
            ReductionMethod::Evit => {
                keep_attended(xs, &class_attention(q, k, num_heads, None)?, after)
            }
            ReductionMethod::Tome => self.merge(xs, &head_means(k, num_heads)?, n - after),
        }
    }

    fn merge(&mut self, xs: &Tensor, metric: &Tensor, merged: usize) -> Result<Tensor> {
        let (b, n, _) = xs.dims3()?;
        let metric = metric.detach().to_dtype(DType::F32)?.to_vec3::<f32>()?;
        let sizes = match &self.sizes {
            Some(sizes) => sizes.to_dtype(DType::F32)?.to_vec2::<f32>()?,
            None => vec![vec![1.0; n]; b],
        };
        let after = n - merged;
        let (mut weights, mut new_sizes) =
            (vec![0f32; b * after * n], Vec::with_capacity(b * after));
        let images = weights
            .chunks_exact_mut(after * n)
            .zip(metric.iter().zip(&sizes));
        for (weights, (metric, sizes)) in images {
            new_sizes.extend(merge_weights(metric, sizes, merged, weights));
        }
        let (dtype, device) = (xs.dtype(), xs.device());
        let weights = Tensor::from_vec(weights, (b, after, n), device)?.to_dtype(dtype)?;
        self.sizes = Some(Tensor::from_vec(new_sizes, (b, after), device)?.to_dtype(dtype)?);
        weights.matmul(xs)
    }
}

/// Class token, the `after` - 2 most attended patch tokens in their order, and the sum of the
/// others weighted by their attention.
fn keep_attended(xs: &Tensor, class_attention: &Tensor, after: usize) -> Result<Tensor> {
    let (b, n, _) = xs.dims3()?;
    let attention = class_attention.mean(1)?;
    let read = attention.detach().to_dtype(DType::F32)?.to_vec2::<f32>()?;
    let (mut kept, mut others) = (vec![0f32; b * (after - 1) * n], vec![1f32; b * n]);
    for (image, attention) in read.iter().enumerate() {
        let mut order: Vec<usize> = (1..n).collect();
        order.sort_by(|i, j| attention[*j].total_cmp(&attention[*i]).then(i.cmp(j)));
        order.truncate(after - 2);
        order.push(0);
        order.sort_unstable();
        for (row, token) in order.into_iter().enumerate() {
            kept[(image * (after - 1) + row) * n + token] = 1.0;
            others[image * n + token] = 0.0;
        }
    }
    let (dtype, device) = (xs.dtype(), xs.device());
    let kept = Tensor::from_vec(kept, (b, after - 1, n), device)?.to_dtype(dtype)?;
    let others = Tensor::from_vec(others, (b, n), device)?.to_dtype(dtype)?;
    let fused = (attention * others)?.unsqueeze(1)?;
    Tensor::cat(&[kept, fused], 1)?.matmul(xs)
}

/// Keys averaged over heads, `(B, N, D)`.
fn head_means(keys: &Tensor, num_heads: usize) -> Result<Tensor> {
    let (b, n, c) = keys.dims3()?;
    keys.reshape((b, n, num_heads, c / num_heads))?.mean(2)
}

/// Writes the rows of the merged tokens over those before, and returns how many patches each
/// stands for: the unmerged tokens at even places in their order, then those at odd places.
fn merge_weights(
    metric: &[Vec<f32>],
    sizes: &[f32],
    merged: usize,
    weights: &mut [f32],
) -> Vec<f32> {
    let n = metric.len();
    let norms: Vec<f32> = metric
        .iter()
        .map(|key| dot(key, key).sqrt().max(1e-12))
        .collect();
    // The most similar token at an odd place; the class token, at place 0, is never merged.
    let mut pairs: Vec<(f32, usize, usize)> = (2..n)
        .step_by(2)
        .map(|even| {
            let similar =
                |odd: usize| dot(&metric[even], &metric[odd]) / (norms[even] * norms[odd]);
            let first = (similar(1), 1);
            let (most, odd) = (3..n).step_by(2).fold(first, |best, odd| {
                let found = similar(odd);
                if found > best.0 { (found, odd) } else { best }
            });
            (most, even, odd)
        })
        .collect();
    pairs.sort_by(|x, y| y.0.total_cmp(&x.0).then(x.1.cmp(&y.1)));
    pairs.truncate(merged);
    // Which new token each old one goes to.
    let mut goes_to = vec![0; n];
    let mut next = 0;
    let gone = |token: usize| pairs.iter().any(|(_, even, _)| *even == token);
    for token in (0..n)
        .step_by(2)
        .filter(|token| !gone(*token))
        .chain((1..n).step_by(2))
    {
        goes_to[token] = next;
        next += 1;
    }
    for (_, even, odd) in &pairs {
        goes_to[*even] = goes_to[*odd];
    }
    let mut new_sizes = vec![0.0; next];
    for (token, to) in goes_to.iter().enumerate() {
        new_sizes[*to] += sizes[token];
    }
    for (token, to) in goes_to.iter().enumerate() {
        weights[to * n + token] = sizes[token] / new_sizes[*to];
    }
    new_sizes
}

fn dot(xs: &[f32], ys: &[f32]) -> f32 {
    xs.iter().zip(ys).map(|(x, y)| x * y).sum()
}

/// Attention with something added to the scores, which the fused operation has not: `q`, `k` and
/// `v` are `(B, N, C)`, `bias` is `(B, 1, 1, N)`.
fn biased_attention(
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    num_heads: usize,
    bias: &Tensor,
) -> Result<Tensor> {
    let (b, n, c) = q.dims3()?;
    if !c.is_multiple_of(num_heads) {
        bail!("attention: {num_heads} heads do not divide a width of {c}");
    }
    let d = c / num_heads;
    let heads = |xs: &Tensor| {
        xs.reshape((b, n, num_heads, d))?
            .transpose(1, 2)?
            .contiguous()
    };
    let (q, k, v) = (heads(q)?, heads(k)?, heads(v)?);
    let scores = (q.matmul(&k.transpose(2, 3)?)? / (d as f64).sqrt())?;
    let rows = softmax(&scores.broadcast_add(bias)?)?;
    rows.matmul(&v)?
        .transpose(1, 2)?
        .reshape((b, n, c))?
        .contiguous()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn the_most_similar_tokens_become_their_mean() {
        let metric = [[1.0, 0.0], [0.0, 1.0], [0.1, 1.0], [1.0, 0.3], [1.0, 0.2]];
        let metric: Vec<Vec<f32>> = metric.iter().map(|key| key.to_vec()).collect();
        // Token 4 is most like token 3, more than token 2 is like token 1.
        let mut weights = vec![0.0; 4 * 5];
        let sizes = merge_weights(&metric, &[1.0, 1.0, 1.0, 1.0, 3.0], 1, &mut weights);
        assert_eq!(sizes, [1.0, 1.0, 1.0, 4.0]);
        let rows: Vec<&[f32]> = weights.chunks_exact(5).collect();
        assert_eq!(rows[0], [1.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(rows[1], [0.0, 0.0, 1.0, 0.0, 0.0]);
        assert_eq!(rows[2], [0.0, 1.0, 0.0, 0.0, 0.0]);
        assert_eq!(rows[3], [0.0, 0.0, 0.0, 0.25, 0.75]);
    }

    #[test]
    fn the_others_are_fused_by_the_attention_they_get() -> Result<()> {
        let xs = Tensor::new(&[[[1f32], [2.0], [3.0], [4.0]]], &Device::Cpu)?;
        // Two heads, whose mean is 0.1, 0.2, 0.4, 0.3.
        let rows = [[0.0f32, 0.3, 0.4, 0.3], [0.2, 0.1, 0.4, 0.3]];
        let attention = Tensor::new(&[rows], &Device::Cpu)?;
        let ys = keep_attended(&xs, &attention, 3)?
            .flatten_all()?
            .to_vec1::<f32>()?;
        let expected = [1.0, 3.0, 0.2 * 2.0 + 0.3 * 4.0];
        for (y, expected) in ys.iter().zip(expected) {
            assert!((y - expected).abs() < 1e-6);
        }
        Ok(())
    }

    #[test]
    fn a_bias_of_nothing_leaves_attention_as_it_is() -> Result<()> {
        let xs: Vec<f32> = (0..2 * 5 * 8).map(|i| (i as f32 * 0.7).sin()).collect();
        let xs = Tensor::from_vec(xs, (2, 5, 8), &Device::Cpu)?;
        let bias = Tensor::zeros((2, 1, 1, 5), DType::F32, &Device::Cpu)?;
        let found = biased_attention((&xs, &xs, &xs), 2, &bias)?;
        let qkv = Qkv {
            q: &xs,
            k: &xs,
            v: &xs,
        };
        let expected = attention(qkv, 2, None, HeadGate::All)?;
        let difference = (found - expected)?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(difference < 1e-6);
        Ok(())
    }
}
