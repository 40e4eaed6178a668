//! Decision networks: one linear map per kind of gate, in every block that decides.
//!
//! The policy token p = x[:, 0] gives block gates (a, m) = gate(W_layer p) for attention and MLP,
//! and head gates h = gate(W_head p). The normalised patch tokens z give k = gate(W_token z).
//! Meng et al., section 3.2.
//!
//! Networks that take a budget add U f(b) to their logits, one shift for all patch tokens of an
//! image: see [`crate::Budgets`].

use std::fmt;

use adavit_gumbel::{Noise, Site, hard_gate, threshold_gate};
use candle_core::{Result, Tensor, bail};
use candle_nn::{Linear, VarBuilder};

use crate::axis::Axis;
use crate::budget::BUDGET_FEATURES;
use crate::config::{DecisionConfig, Thresholds};
use crate::policy::block::BlockPolicy;

/// How logits become gates.
pub enum Gating<'a> {
    /// 1[sigmoid(logit) > threshold]: no noise, no temperature, no gradient.
    Inference,
    /// Hard Gumbel gates with the straight-through gradient.
    Training {
        /// Where the noise comes from.
        noise: &'a mut dyn Noise,
        /// The temperature.
        tau: f64,
    },
}

impl fmt::Debug for Gating<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inference => f.write_str("Inference"),
            Self::Training { tau, .. } => f
                .debug_struct("Training")
                .field("tau", tau)
                .finish_non_exhaustive(),
        }
    }
}

impl Gating<'_> {
    fn gate(&mut self, logits: &Tensor, threshold: f64, site: Site) -> Result<Tensor> {
        match self {
            Self::Inference => threshold_gate(logits, threshold),
            Self::Training { noise, tau } => {
                let noise = noise.logistic(site, logits.dims(), logits.dtype(), logits.device())?;
                hard_gate(logits, &noise, *tau, threshold)
            }
        }
    }
}

/// The logits behind a block's gates, before the sigmoid; `None` where the block has no such gates.
#[derive(Debug, Clone, Default)]
pub struct BlockLogits {
    /// `(B, N - 1)`.
    pub patches: Option<Tensor>,
    /// `(B, H)`.
    pub heads: Option<Tensor>,
    /// `(B, 2)`, attention then MLP.
    pub sublayers: Option<Tensor>,
}

/// A block's policy and the logits that it came from.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The gates.
    pub policy: BlockPolicy,
    /// The logits.
    pub logits: BlockLogits,
}

/// The decision networks of one block.
#[derive(Debug, Clone)]
pub struct DecisionNetwork {
    block: usize,
    thresholds: Thresholds,
    layer_select: Option<Linear>,
    head_select: Option<Linear>,
    token_select: Option<Linear>,
    /// U of each, if they take a budget.
    budget: Shifts,
}

/// The maps from a budget's features to the shift of logits, `(gates, F)` each.
#[derive(Debug, Clone, Default)]
struct Shifts {
    sublayers: Option<Tensor>,
    heads: Option<Tensor>,
    patches: Option<Tensor>,
}

impl DecisionNetwork {
    /// Loads `layer_select.mlp_head`, `head_select.mlp_head` and `attn.token_select.mlp_head` from
    /// `vb`, which stands at block `block`; only those that the block has. Networks that take a
    /// budget have a weight `budget.weight` beside each `mlp_head`.
    pub fn new(
        config: &DecisionConfig,
        block: usize,
        embed_dim: usize,
        num_heads: usize,
        vb: &VarBuilder,
    ) -> Result<Self> {
        let linear = |name: &str, n_out: usize| -> Result<Linear> {
            let vb = vb.pp(name).pp("mlp_head");
            let weight = vb.get((n_out, embed_dim), "weight")?;
            Ok(Linear::new(weight, Some(vb.get(n_out, "bias")?)))
        };
        let sublayers = config.gates_sublayers(block);
        let heads = config.gates_heads(block).is_some();
        let tokens = config.gates_tokens(block);
        let shift = |gated: bool, name: &str, n_out: usize| -> Result<Option<Tensor>> {
            let vb = vb.pp(name).pp("budget");
            (gated && config.budget_input.is_some())
                .then(|| vb.get((n_out, BUDGET_FEATURES), "weight"))
                .transpose()
        };
        Ok(Self {
            block,
            budget: Shifts {
                sublayers: shift(sublayers, "layer_select", 2)?,
                heads: shift(heads, "head_select", num_heads)?,
                patches: shift(tokens, "attn.token_select", 1)?,
            },
            thresholds: config.thresholds,
            layer_select: sublayers.then(|| linear("layer_select", 2)).transpose()?,
            head_select: heads
                .then(|| linear("head_select", num_heads))
                .transpose()?,
            token_select: tokens.then(|| linear("attn.token_select", 1)).transpose()?,
        })
    }

    /// Replaces the thresholds, as calibration does.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.thresholds = thresholds;
    }

    /// Decides all gates of the block. Noise is drawn for blocks, heads and tokens, in this order.
    ///
    /// # Shapes
    /// `policy_token`: `(B, C)`; `normed`: `(B, N, C)`, the tokens after norm1; `budget`: `(B, F)`,
    /// the features of each image's budget, for networks that take one.
    ///
    /// # Errors
    /// If the networks take a budget and there is none.
    pub fn decide(
        &self,
        policy_token: &Tensor,
        normed: &Tensor,
        budget: Option<&Tensor>,
        gating: &mut Gating,
    ) -> Result<Decision> {
        let sublayer_logits = forward(self.layer_select.as_ref(), policy_token)?;
        let sublayer_logits = shifted(sublayer_logits, self.budget.sublayers.as_ref(), budget)?;
        let head_logits = forward(self.head_select.as_ref(), policy_token)?;
        let head_logits = shifted(head_logits, self.budget.heads.as_ref(), budget)?;
        let patch_logits = match forward(self.token_select.as_ref(), normed)? {
            Some(logits) => Some(logits.squeeze(2)?.narrow(1, 1, normed.dim(1)? - 1)?),
            None => None,
        };
        let patch_logits = shifted(patch_logits, self.budget.patches.as_ref(), budget)?;
        let mut gate = |logits: Option<&Tensor>, threshold: f64, axis: Axis| {
            logits
                .map(|logits| gating.gate(logits, threshold, axis.site(self.block)))
                .transpose()
        };
        let thresholds = self.thresholds;
        let sublayers = gate(sublayer_logits.as_ref(), thresholds.blocks, Axis::Blocks)?;
        let heads = gate(head_logits.as_ref(), thresholds.heads, Axis::Heads)?;
        let patches = gate(patch_logits.as_ref(), thresholds.tokens, Axis::Tokens)?;
        Ok(Decision {
            policy: BlockPolicy::new(patches.as_ref(), heads, sublayers)?,
            logits: BlockLogits {
                patches: patch_logits,
                heads: head_logits,
                sublayers: sublayer_logits,
            },
        })
    }
}

fn forward(network: Option<&Linear>, xs: &Tensor) -> Result<Option<Tensor>> {
    network.map(|network| linear(network, xs)).transpose()
}

/// The logits plus the shift of each image's budget, if there are both.
fn shifted(
    logits: Option<Tensor>,
    weight: Option<&Tensor>,
    features: Option<&Tensor>,
) -> Result<Option<Tensor>> {
    let (Some(logits), Some(weight)) = (&logits, weight) else {
        return Ok(logits);
    };
    let Some(features) = features else {
        bail!("decision network: expected the features of a budget, found none");
    };
    Ok(Some(logits.broadcast_add(&features.matmul(&weight.t()?)?)?))
}

/// `candle_nn::Linear` infers the number of rows, which it cannot for an empty batch.
fn linear(network: &Linear, xs: &Tensor) -> Result<Tensor> {
    let (n_out, n_in) = network.weight().dims2()?;
    let batch = &xs.dims()[..xs.rank() - 1];
    let rows = xs.reshape((batch.iter().product::<usize>(), n_in))?;
    let ys = rows.matmul(&network.weight().t()?)?;
    let ys = match network.bias() {
        Some(bias) => ys.broadcast_add(bias)?,
        None => ys,
    };
    ys.reshape([batch, &[n_out]].concat())
}
