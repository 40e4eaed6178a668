//! Random policies of a given usage: the baseline of the paper (Meng et al., section 4.2).

use adavit_gumbel::{Noise, Site, threshold_gate};
use candle_core::{DType, Device, Result, Tensor, bail};

use crate::axis::Axis;
use crate::config::DecisionConfig;
use crate::cost::macs::Geometry;
use crate::cost::usage::BlockUsage;
use crate::policy::block::{BlockPolicy, Policy};

/// Draws a policy whose gates are on independently with the probabilities of `usage`, one entry
/// per block. An axis without gates keeps everything.
///
/// The draw is keyed by image, block and axis, as every noise is: see
/// [`adavit_gumbel::SeededNoise`].
///
/// # Errors
/// If `usage` has not one entry per block.
pub fn random_policy(
    config: &DecisionConfig,
    geometry: &Geometry,
    usage: &[BlockUsage],
    noise: &mut dyn Noise,
    batch: usize,
) -> Result<Policy> {
    if usage.len() != geometry.depth {
        bail!(
            "random policy: expected the usage of {} blocks, found {}",
            geometry.depth,
            usage.len()
        );
    }
    let mut blocks = Vec::with_capacity(geometry.depth);
    for (block, used) in usage.iter().enumerate() {
        let mut draw = |axis: Axis, keep: &[f64]| bernoulli(noise, axis.site(block), batch, keep);
        let sublayers = config
            .gates_sublayers(block)
            .then(|| draw(Axis::Blocks, &[used.attention, used.mlp]))
            .transpose()?;
        let heads = config
            .gates_heads(block)
            .map(|_| draw(Axis::Heads, &vec![used.heads; geometry.num_heads]))
            .transpose()?;
        let patches = config
            .gates_tokens(block)
            .then(|| draw(Axis::Tokens, &vec![used.tokens; geometry.num_tokens - 1]))
            .transpose()?;
        blocks.push(BlockPolicy::new(patches.as_ref(), heads, sublayers)?);
    }
    Ok(Policy { blocks })
}

/// Gates `(batch, keep.len())`: logit(p) + Logistic(0, 1) > 0 with probability p.
fn bernoulli(noise: &mut dyn Noise, site: Site, batch: usize, keep: &[f64]) -> Result<Tensor> {
    let logits: Vec<f64> = keep.iter().map(|p| (p / (1.0 - p)).ln()).collect();
    let logits = Tensor::new(logits, &Device::Cpu)?;
    let noise = noise.logistic(site, &[batch, keep.len()], DType::F64, &Device::Cpu)?;
    threshold_gate(&noise.broadcast_add(&logits)?, 0.5)?.to_dtype(DType::F32)
}
