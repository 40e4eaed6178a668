//! Token reduction: the rivals that people ask about, on any plain model.
//!
//! Both leave fewer tokens from one block to the next, between attention and MLP, as many for every
//! image; where AdaViT's tokens may come back, these are gone:
//!
//! ```text
//! EViT  keep the patch tokens that the class token attends to most, mean over heads;
//!       one more token is the sum of the others, weighted by that attention
//! ToMe  pair tokens at even places with their most similar one at odd places, by their keys;
//!       the pairs most alike become their mean, weighted by how many patches each stands for;
//!       attention adds the logarithm of that number to its scores
//! ```
//!
//! Liang et al. 2022 (arXiv 2202.07800); Bolya et al. 2023 (arXiv 2210.09461). The choice of tokens
//! has no gradient, the tokens that come of it have.

use adavit_decision::{BlockUse, DecisionConfig, Geometry};
use adavit_kernels::{HeadGate, attention, class_attention, softmax};
use candle_core::{DType, Result, Tensor, bail};
use serde::{Deserialize, Serialize};

use crate::{Error, ModelConfig};

/// How tokens become fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReductionMethod {
    /// By the class token's attention, the others fused into one (EViT).
    Evit,
    /// By merging those that are alike (ToMe).
    Tome,
}

/// How many tokens every block leaves, and by which method.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenReduction {
    /// Which tokens.
    pub method: ReductionMethod,
    /// The tokens after each block's attention, class token included; a number that does not fall
    /// leaves them as they are.
    pub tokens: Vec<usize>,
}

impl TokenReduction {
    /// EViT with a keep rate of patch tokens in each of `blocks`; at every such block one more token
    /// holds the others.
    pub fn evit(config: &ModelConfig, keep_rate: f64, blocks: &[usize]) -> Self {
        let mut n = config.num_tokens();
        let tokens = (0..config.depth).map(|block| {
            if blocks.contains(&block) {
                let kept = (keep_rate * (n - 1) as f64).ceil() as usize;
                n = n.min(kept + 2);
            }
            n
        });
        Self {
            method: ReductionMethod::Evit,
            tokens: tokens.collect(),
        }
    }

    /// ToMe with `merged` pairs in every block on average, at most half of the tokens in one.
    pub fn tome(config: &ModelConfig, merged: f64) -> Self {
        let mut n = config.num_tokens();
        let tokens = (0..config.depth).map(|block| {
            let until = |blocks: usize| (merged * blocks as f64).floor() as usize;
            n -= (until(block + 1) - until(block)).min((n - 1) / 2);
            n
        });
        Self {
            method: ReductionMethod::Tome,
            tokens: tokens.collect(),
        }
    }

    /// The reduction by `method` that comes nearest to `budget`, a share of the plain model's
    /// multiply-adds, from below. EViT reduces in `blocks`, ToMe in all.
    ///
    /// # Errors
    /// If no reduction is within the budget.
    pub fn for_budget(
        config: &ModelConfig,
        method: ReductionMethod,
        budget: f64,
        blocks: &[usize],
    ) -> crate::Result<Self> {
        let of = |share: f64| match method {
            ReductionMethod::Evit => Self::evit(config, share, blocks),
            ReductionMethod::Tome => Self::tome(config, (1.0 - share) * config.num_tokens() as f64),
        };
        let most = budget * config.geometry().dense_macs() as f64;
        let (mut low, mut high) = (0.0, 1.0);
        if of(low).macs(config) as f64 > most {
            return Err(Error::Config(format!(
                "token reduction: no reduction of this model is within {budget} of its multiply-adds"
            )));
        }
        if of(high).macs(config) as f64 <= most {
            return Ok(of(high));
        }
        for _ in 0..40 {
            let middle = f64::midpoint(low, high);
            if of(middle).macs(config) as f64 <= most {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(of(low))
    }

    /// Checks that the numbers fit a model.
    ///
    /// # Errors
    /// If there is not one for each block, or a step is one that the method cannot do.
    pub fn validate(&self, config: &ModelConfig) -> crate::Result<()> {
        let fail = |message: String| Err(Error::Config(format!("token reduction: {message}")));
        if self.tokens.len() != config.depth {
            return fail(format!(
                "expected the tokens of {} blocks, found {}",
                config.depth,
                self.tokens.len()
            ));
        }
        if config.decisions.is_some() || config.distilled {
            return fail("expected a plain model with a class token alone".into());
        }
        let mut before = config.num_tokens();
        for (block, after) in self.tokens.iter().copied().enumerate() {
            let least = match self.method {
                ReductionMethod::Evit => 2,
                // Every merged token is at an even place, and the class token, at the first, stays.
                ReductionMethod::Tome => before - (before - 1) / 2,
            };
            if after > before || after < least.min(before) {
                return fail(format!(
                    "block {block}: expected between {least} and {before} tokens, found {after}"
                ));
            }
            before = after;
        }
        Ok(())
    }

    /// The `exact` multiply-adds of an image, the same for every image; what decides which tokens
    /// to keep is not counted.
    pub fn macs(&self, config: &ModelConfig) -> u64 {
        let geometry = config.geometry();
        let plain = DecisionConfig::none();
        let part = |tokens: usize, attention: bool, geometry: &Geometry| {
            let used = BlockUse {
                tokens,
                attention,
                mlp: !attention,
                ..geometry.all()
            };
            let geometry = Geometry {
                num_tokens: tokens,
                ..geometry.clone()
            };
            let parts = geometry.block_parts(&plain, 0, used);
            parts.qkv + parts.attention + parts.proj + parts.mlp
        };
        let mut before = config.num_tokens();
        let mut macs = geometry.embed_macs + geometry.head_macs;
        for after in self.tokens.iter().copied() {
            macs += part(before, true, &geometry) + part(after, false, &geometry);
            before = after;
        }
        macs
    }
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

    /// Attention over the present tokens, before the projection; `q`, `k` and `v` are `(B, N, C)`.
    pub(crate) fn attention(
        &self,
        (q, k, v): (&Tensor, &Tensor, &Tensor),
        num_heads: usize,
    ) -> Result<Tensor> {
        let Some(sizes) = &self.sizes else {
            return attention((q, k, v), num_heads, None, HeadGate::All);
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

    fn config() -> ModelConfig {
        ModelConfig::preset("nano_patch4_28").unwrap()
    }

    #[test]
    fn tokens_are_counted_as_published() {
        // DeiT-S at keep rate 0.7 in blocks 4, 7 and 10: 3.0 G of 4.6 G (Liang et al., table 1).
        let config = ModelConfig::preset("deit_small_patch16_224").unwrap();
        let evit = TokenReduction::evit(&config, 0.7, &[3, 6, 9]);
        assert_eq!(evit.tokens[2..5], [197, 140, 140]);
        assert!((2.9e9..3.1e9).contains(&(evit.macs(&config) as f64)));
        // With r = 13: 2.7 G (Bolya et al., table 4).
        let tome = TokenReduction::tome(&config, 13.0);
        assert_eq!(tome.tokens[..2], [184, 171]);
        assert!((2.6e9..2.8e9).contains(&(tome.macs(&config) as f64)));
        let all = TokenReduction::tome(&config, 0.0);
        assert_eq!(all.macs(&config), config.geometry().dense_macs());
    }

    #[test]
    fn a_budget_is_met_from_below() {
        let config = config();
        let dense = config.geometry().dense_macs() as f64;
        for method in [ReductionMethod::Evit, ReductionMethod::Tome] {
            for budget in [0.4, 0.6, 0.9, 1.0] {
                let found = TokenReduction::for_budget(&config, method, budget, &[0, 2]).unwrap();
                found.validate(&config).unwrap();
                let share = found.macs(&config) as f64 / dense;
                assert!(
                    share <= budget && share > budget - 0.05,
                    "{method:?} {share}"
                );
            }
            let error = TokenReduction::for_budget(&config, method, 0.01, &[0, 2]);
            assert!(error.unwrap_err().to_string().contains("0.01"));
        }
    }

    #[test]
    fn steps_that_the_method_cannot_do_are_refused() {
        let config = config();
        let reduction = |method, first: usize| TokenReduction {
            method,
            tokens: [vec![first], vec![20; config.depth - 1]].concat(),
        };
        // Of 50 tokens 24 are at even places and not the class token.
        assert!(
            reduction(ReductionMethod::Tome, 25)
                .validate(&config)
                .is_err()
        );
        assert!(
            reduction(ReductionMethod::Tome, 26)
                .validate(&config)
                .is_ok()
        );
        assert!(
            reduction(ReductionMethod::Evit, 25)
                .validate(&config)
                .is_ok()
        );
        assert!(
            reduction(ReductionMethod::Evit, 51)
                .validate(&config)
                .is_err()
        );
        let adaptive = config.clone().with_decisions(DecisionConfig::default());
        assert!(
            reduction(ReductionMethod::Evit, 25)
                .validate(&adaptive)
                .is_err()
        );
    }

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
        let expected = attention((&xs, &xs, &xs), 2, None, HeadGate::All)?;
        let difference = (found - expected)?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(difference < 1e-6);
        Ok(())
    }
}
