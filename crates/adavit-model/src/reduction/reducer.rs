//! Tokens become fewer: which are kept, and which become one.

use adavit_kernels::{HeadGate, Qkv, attention, class_attention, softmax};
use candle_core::{DType, Result, Tensor, bail};

use super::{ReductionMethod, TokenReduction};

/// Queries, keys and values, `(B, N, C)` each, of `num_heads` heads.
#[derive(Debug)]
pub(crate) struct AttentionInputs {
    pub(crate) q: Tensor,
    pub(crate) k: Tensor,
    pub(crate) v: Tensor,
    pub(crate) num_heads: usize,
}

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

    /// Attention over the present tokens, before the projection.
    pub(crate) fn attention(&self, inputs: &AttentionInputs) -> Result<Tensor> {
        let Some(sizes) = &self.sizes else {
            let AttentionInputs { q, k, v, num_heads } = inputs;
            return attention(Qkv { q, k, v }, *num_heads, None, HeadGate::All);
        };
        let (b, n) = sizes.dims2()?;
        let bias = sizes.log()?.reshape((b, 1, 1, n))?;
        biased_attention(inputs, &bias)
    }

    /// The tokens that block `block` leaves of `xs`, `(B, N, C)`, after attention over `inputs`.
    pub(crate) fn reduce(
        &mut self,
        xs: &Tensor,
        block: usize,
        inputs: &AttentionInputs,
    ) -> Result<Tensor> {
        let (n, after) = (xs.dim(1)?, self.reduction.tokens[block]);
        if after >= n {
            return Ok(xs.clone());
        }
        let AttentionInputs {
            q, k, num_heads, ..
        } = inputs;
        match self.reduction.method {
            ReductionMethod::Evit => {
                keep_attended(xs, &class_attention(q, k, *num_heads, None)?, after)
            }
            ReductionMethod::Tome => self.merge(xs, &head_means(k, *num_heads)?, n - after),
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
    let pairs = most_similar_pairs(metric, merged);
    // Which new token each old one goes to.
    let mut goes_to = vec![0; n];
    let gone = |token: usize| pairs.iter().any(|pair| pair.even == token);
    let even = (0..n).step_by(2).filter(|token| !gone(*token));
    let mut next = 0;
    for token in even.chain((1..n).step_by(2)) {
        goes_to[token] = next;
        next += 1;
    }
    for pair in &pairs {
        goes_to[pair.even] = goes_to[pair.odd];
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

/// A token at an even place, and the most similar one at an odd place.
struct Pair {
    similarity: f32,
    even: usize,
    odd: usize,
}

/// The `most` pairs that are most alike; the class token, at place 0, is in none.
fn most_similar_pairs(metric: &[Vec<f32>], most: usize) -> Vec<Pair> {
    let n = metric.len();
    let norms: Vec<f32> = metric
        .iter()
        .map(|key| dot(key, key).sqrt().max(1e-12))
        .collect();
    let pair = |even: usize| {
        let similarity = |odd: usize| dot(&metric[even], &metric[odd]) / (norms[even] * norms[odd]);
        let first = Pair {
            similarity: similarity(1),
            even,
            odd: 1,
        };
        (3..n).step_by(2).fold(first, |best, odd| {
            let similarity = similarity(odd);
            if similarity > best.similarity {
                Pair {
                    similarity,
                    odd,
                    ..best
                }
            } else {
                best
            }
        })
    };
    let mut pairs: Vec<Pair> = (2..n).step_by(2).map(pair).collect();
    pairs.sort_by(|x, y| {
        let by_similarity = y.similarity.total_cmp(&x.similarity);
        by_similarity.then(x.even.cmp(&y.even))
    });
    pairs.truncate(most);
    pairs
}

fn dot(xs: &[f32], ys: &[f32]) -> f32 {
    xs.iter().zip(ys).map(|(x, y)| x * y).sum()
}

/// Attention with `bias`, `(B, 1, 1, N)`, added to the scores, which the fused operation has not.
fn biased_attention(inputs: &AttentionInputs, bias: &Tensor) -> Result<Tensor> {
    let AttentionInputs { q, k, v, num_heads } = inputs;
    let (b, n, c) = q.dims3()?;
    if !c.is_multiple_of(*num_heads) {
        bail!("attention: {num_heads} heads do not divide a width of {c}");
    }
    let d = c / num_heads;
    let split = |xs: &Tensor| {
        xs.reshape((b, n, *num_heads, d))?
            .transpose(1, 2)?
            .contiguous()
    };
    let (q, k, v) = (split(q)?, split(k)?, split(v)?);
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
        let inputs = AttentionInputs {
            q: xs.clone(),
            k: xs.clone(),
            v: xs.clone(),
            num_heads: 2,
        };
        let found = biased_attention(&inputs, &bias)?;
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
