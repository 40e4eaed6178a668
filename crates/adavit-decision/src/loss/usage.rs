//! The usage loss: how far the usage of each axis is from its target, over a batch.
//!
//! ```text
//! w_t d(mean k, g_t) + w_h d(mean h, g_h) + w_b d(mean (a, m), g_b)
//! ```
//!
//! Means are over the batch and the blocks that decide. The head mean counts only (image, block)
//! pairs with a block gate on; the token mean counts all N tokens, class token included. d is the
//! absolute or the squared deviation. The published code uses the absolute one for heads and
//! blocks and the squared one for tokens; the paper (Meng et al., eq. 8) uses the squared one for
//! all three.
//!
//! Each axis has three optional terms, of weight 0 by default, which its weight w multiplies too.
//! With u the usage of one block (and head) over the batch: `diverse` is |u - g|, `entropy` minus
//! the mean binary entropy of sigmoid(logit), `minimum` the sum of max(0, minimum - u).

use candle_core::{D, DType, Device, Result, Tensor, bail};
use serde::{Deserialize, Serialize};

use crate::loss::deviation::Deviation;
use crate::network::{BlockLogits, Decision};

/// The usage loss of one axis.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AxisLoss {
    /// g, the usage to reach, in [0, 1].
    pub target: f64,
    /// w, the weight of the deviation and of the optional terms together.
    pub weight: f64,
    /// d.
    pub deviation: Deviation,
    /// Weight of |u - g| per block (and head), not for tokens.
    #[serde(default)]
    pub diverse_weight: f64,
    /// Weight of minus the mean entropy of the gates, not for tokens.
    #[serde(default)]
    pub entropy_weight: f64,
    /// The usage below which a block (and head, or half of a block, or image's tokens) is punished.
    #[serde(default)]
    pub minimum: f64,
    /// Weight of the sum of max(0, minimum - u).
    #[serde(default)]
    pub minimum_weight: f64,
}

impl AxisLoss {
    /// Returns the deviation from `target` alone, of weight `weight`.
    pub fn new(target: f64, weight: f64, deviation: Deviation) -> Self {
        Self {
            target,
            weight,
            deviation,
            diverse_weight: 0.0,
            entropy_weight: 0.0,
            minimum: 0.0,
            minimum_weight: 0.0,
        }
    }

    fn validate(&self, axis: &str) -> Result<()> {
        for (name, ratio) in [("target", self.target), ("minimum", self.minimum)] {
            if !(0.0..=1.0).contains(&ratio) {
                bail!("usage loss of {axis}: expected {name} in [0, 1], found {ratio}");
            }
        }
        let weights = [
            self.weight,
            self.diverse_weight,
            self.entropy_weight,
            self.minimum_weight,
        ];
        if weights.iter().any(|w| !(w.is_finite() && *w >= 0.0)) {
            bail!("usage loss of {axis}: expected finite weights of at least 0, found {weights:?}");
        }
        Ok(())
    }

    fn deviate(&self, usage: &Tensor) -> Result<Tensor> {
        self.deviation.of(usage, self.target)
    }

    fn diverse(&self, usage: &Tensor) -> Result<Tensor> {
        (usage - self.target)?.abs()?.mean_all()? * self.diverse_weight
    }

    fn at_least(&self, usage: &Tensor) -> Result<Tensor> {
        (self.minimum - usage)?.relu()?.sum_all()? * self.minimum_weight
    }
}

/// The usage loss of every axis.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsageLoss {
    /// Patch tokens and class token.
    pub tokens: AxisLoss,
    /// Heads.
    pub heads: AxisLoss,
    /// Attention and MLP.
    pub blocks: AxisLoss,
}

/// The usage losses of a batch, weighted; scalars with gradient.
#[derive(Debug, Clone)]
pub struct UsageLosses {
    /// Of token gates.
    pub tokens: Tensor,
    /// Of head gates.
    pub heads: Tensor,
    /// Of block gates.
    pub blocks: Tensor,
}

impl UsageLosses {
    /// Returns the sum of the three.
    pub fn total(&self) -> Result<Tensor> {
        (&self.tokens + &self.heads)? + &self.blocks
    }
}

impl UsageLoss {
    /// Checks targets and weights.
    pub fn validate(&self) -> Result<()> {
        self.tokens.validate("tokens")?;
        self.heads.validate("heads")?;
        self.blocks.validate("blocks")
    }

    /// Returns the losses of one batch, from the decisions of every block.
    ///
    /// # Errors
    /// If `decisions` is empty.
    pub fn compute(&self, decisions: &[Decision]) -> Result<UsageLosses> {
        let Some(zero) = decisions.iter().find_map(any_zero).transpose()? else {
            bail!("usage loss: expected decisions of at least one block, found none");
        };
        let weigh = |axis: &AxisLoss, loss: Option<Tensor>| match loss {
            Some(loss) => loss * axis.weight,
            None => Ok(zero.clone()),
        };
        Ok(UsageLosses {
            tokens: weigh(&self.tokens, self.token_loss(decisions)?)?,
            heads: weigh(&self.heads, self.head_loss(decisions)?)?,
            blocks: weigh(&self.blocks, self.block_loss(decisions)?)?,
        })
    }

    fn token_loss(&self, decisions: &[Decision]) -> Result<Option<Tensor>> {
        let Some(kept) = stack(decisions, |d| d.policy.tokens())? else {
            return Ok(None);
        };
        let axis = &self.tokens;
        let mut loss = axis.deviate(&kept.mean_all()?)?;
        if axis.minimum_weight > 0.0 {
            loss = (loss + axis.at_least(&kept.mean(D::Minus1)?)?)?;
        }
        Ok(Some(loss))
    }

    fn block_loss(&self, decisions: &[Decision]) -> Result<Option<Tensor>> {
        let Some(on) = stack(decisions, |d| d.policy.sublayers())? else {
            return Ok(None);
        };
        let axis = &self.blocks;
        let mut loss = axis.deviate(&on.mean_all()?)?;
        if axis.diverse_weight > 0.0 {
            loss = (loss + axis.diverse(&on.mean((1, 2))?)?)?;
        }
        if axis.minimum_weight > 0.0 {
            loss = (loss + axis.at_least(&on.mean(1)?)?)?;
        }
        if axis.entropy_weight > 0.0
            && let Some(logits) = stack_logits(decisions, |l| l.sublayers.as_ref())?
        {
            loss = (loss - (mean_entropy(&logits)? * axis.entropy_weight)?)?;
        }
        Ok(Some(loss))
    }

    fn head_loss(&self, decisions: &[Decision]) -> Result<Option<Tensor>> {
        let Some(kept) = stack(decisions, |d| d.policy.heads())? else {
            return Ok(None);
        };
        let axis = &self.heads;
        let active = active_pairs(decisions, &kept)?;
        let masked = kept.broadcast_mul(&active)?;
        let num_heads = kept.dim(D::Minus1)? as f64;
        let usage = (masked.sum_all()? / (active.sum_all()? * num_heads)?.maximum(1e-12)?)?;
        let mut loss = axis.deviate(&usage)?;
        if axis.diverse_weight > 0.0 || axis.minimum_weight > 0.0 {
            let per_head = masked.sum(1)?.broadcast_div(&(active.sum(1)? + 1e-6)?)?;
            loss = ((loss + axis.diverse(&per_head)?)? + axis.at_least(&per_head)?)?;
        }
        if axis.entropy_weight > 0.0
            && let Some(logits) = stack_logits(decisions, |l| l.heads.as_ref())?
        {
            loss = (loss - (mean_entropy(&logits)? * axis.entropy_weight)?)?;
        }
        Ok(Some(loss))
    }
}

/// A zero of the gates' dtype and device, if the block has gates.
fn any_zero(decision: &Decision) -> Option<Result<Tensor>> {
    let gates = decision.policy.any_gates()?;
    Some(Tensor::zeros((), gates.dtype(), gates.device()))
}

/// The gates of every block that has them, `(blocks, B, ..)`.
fn stack<'a>(
    decisions: &'a [Decision],
    gates: impl Fn(&'a Decision) -> Option<&'a Tensor>,
) -> Result<Option<Tensor>> {
    let gates: Vec<&Tensor> = decisions.iter().filter_map(gates).collect();
    if gates.is_empty() {
        return Ok(None);
    }
    Tensor::stack(&gates, 0).map(Some)
}

fn stack_logits<'a>(
    decisions: &'a [Decision],
    logits: impl Fn(&'a BlockLogits) -> Option<&'a Tensor>,
) -> Result<Option<Tensor>> {
    stack(decisions, |decision| logits(&decision.logits))
}

/// 1 for each (block with head gates, image) with a block gate on, `(blocks, B, 1)`, without
/// gradient. In a block without block gates every pair counts.
fn active_pairs(decisions: &[Decision], kept: &Tensor) -> Result<Tensor> {
    let (blocks, batch, _) = kept.dims3()?;
    let (dtype, device): (DType, &Device) = (kept.dtype(), kept.device());
    let with_heads = decisions.iter().filter(|d| d.policy.heads().is_some());
    let active = with_heads
        .map(|decision| match decision.policy.sublayers() {
            Some(on) => on.detach().max_keepdim(1),
            None => Tensor::ones((batch, 1), dtype, device),
        })
        .collect::<Result<Vec<_>>>()?;
    Tensor::stack(&active, 0)?.reshape((blocks, batch, 1))
}

/// The mean of -p ln p - (1 - p) ln(1 - p), p = sigmoid(logit) clamped at 1e-7.
fn mean_entropy(logits: &Tensor) -> Result<Tensor> {
    let p = candle_nn::ops::sigmoid(logits)?.clamp(1e-7, 1.0 - 1e-7)?;
    let q = (1.0 - &p)?;
    ((&p * p.log()?)? + (&q * q.log()?)?)?.mean_all()?.neg()
}
