//! The decision networks of a block, prepared: all gates of the policy token are one small product.

use adavit_decision::{DecisionConfig, HardPolicy, HeadDeactivation, Thresholds};
use adavit_gumbel::is_on;
use adavit_kernels::{PreparedLayerNorm, Rows, SmallLinear, Workspace};
use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::packed::norm;
use crate::ModelConfig;

/// What a block decides on, and how.
#[derive(Debug)]
pub(super) struct PreparedDecision {
    norm_policy: Option<PreparedLayerNorm>,
    /// Outputs are the two sub-layers' logits, if there are any, then the heads'.
    policy_token: Option<SmallLinear>,
    tokens: Option<SmallLinear>,
    sublayers: bool,
    pub(super) heads: Option<HeadDeactivation>,
    thresholds: Thresholds,
}

/// Buffers of the decisions.
#[derive(Debug, Default)]
pub(super) struct Logits {
    policy_token: Vec<f32>,
    tokens: Vec<f32>,
    normed: Vec<f32>,
}

/// The tokens that decisions are made from.
pub(super) struct Seen<'a> {
    /// All rows, as they enter the block.
    pub(super) xs: &'a [f32],
    /// All rows after norm1, if the block decides on tokens.
    pub(super) zs: &'a [f32],
    /// The class tokens' rows.
    pub(super) class_rows: &'a [usize],
    /// The patch tokens' rows.
    pub(super) patch_rows: &'a [usize],
}

impl PreparedDecision {
    pub(super) fn new(
        config: &ModelConfig,
        decisions: &DecisionConfig,
        block: usize,
        vb: &VarBuilder,
    ) -> Result<Self> {
        let c = config.embed_dim;
        let map = |name: &str, n_out: usize| -> Result<(Tensor, Tensor)> {
            let vb = vb.pp(name).pp("mlp_head");
            Ok((vb.get((n_out, c), "weight")?, vb.get(n_out, "bias")?))
        };
        let mut maps = Vec::new();
        let (sublayers, heads) = (
            decisions.gates_sublayers(block),
            decisions.gates_heads(block),
        );
        if sublayers {
            maps.push(map("layer_select", 2)?);
        }
        if heads.is_some() {
            maps.push(map("head_select", config.num_heads)?);
        }
        let (weights, biases): (Vec<_>, Vec<_>) = maps.into_iter().unzip();
        let policy_token = (!weights.is_empty())
            .then(|| SmallLinear::new(&Tensor::cat(&weights, 0)?, Some(&Tensor::cat(&biases, 0)?)))
            .transpose()?;
        let tokens = decisions
            .gates_tokens(block)
            .then(|| {
                let (weight, bias) = map("attn.token_select", 1)?;
                SmallLinear::new(&weight, Some(&bias))
            })
            .transpose()?;
        Ok(Self {
            norm_policy: (decisions.norm_policy && policy_token.is_some())
                .then(|| norm(config, &vb.pp("norm_policy")))
                .transpose()?,
            policy_token,
            tokens,
            sublayers,
            heads,
            thresholds: decisions.thresholds,
        })
    }

    /// Whether tokens are decided on, from all rows after norm1.
    pub(super) fn gates_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    pub(super) fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.thresholds = thresholds;
    }

    /// Writes the gates of block `block` for images from `first` on, and marks in `unknown` the
    /// images with a logit that is NaN.
    pub(super) fn decide(
        &self,
        seen: &Seen,
        logits: &mut Logits,
        (policy, block, first): (&mut HardPolicy, usize, usize),
        (unknown, work): (&mut [bool], &mut Workspace),
    ) {
        let b = seen.class_rows.len();
        if let Some(map) = &self.policy_token {
            let n_out = map.n_out();
            logits.policy_token.resize(b * n_out, 0.0);
            let ys = &mut logits.policy_token;
            match &self.norm_policy {
                None => map.write(seen.xs, ys, Rows::Some(seen.class_rows), work),
                Some(norm) => {
                    logits.normed.resize(seen.xs.len(), 0.0);
                    norm.write(seen.xs, &mut logits.normed, Rows::Some(seen.class_rows));
                    map.write(&logits.normed, ys, Rows::Some(seen.class_rows), work);
                }
            }
            for (image, ys) in ys.chunks_exact(n_out).enumerate() {
                let (sublayers, heads) = ys.split_at(if self.sublayers { 2 } else { 0 });
                if self.sublayers {
                    let bits = policy.sublayers_mut(block, first + image);
                    threshold(bits, sublayers, self.thresholds.blocks);
                }
                if self.heads.is_some() {
                    let bits = policy.heads_mut(block, first + image);
                    threshold(bits, heads, self.thresholds.heads);
                }
                unknown[image] |= ys.iter().any(|y| y.is_nan());
            }
        }
        if let Some(map) = &self.tokens {
            logits.tokens.resize(seen.patch_rows.len(), 0.0);
            let rows = Rows::Some(seen.patch_rows);
            map.write(seen.zs, &mut logits.tokens, rows, work);
            let n = seen.patch_rows.len() / b.max(1);
            for (image, ys) in logits.tokens.chunks_exact(n.max(1)).enumerate() {
                let bits = policy.patches_mut(block, first + image);
                threshold(bits, ys, self.thresholds.tokens);
                unknown[image] |= ys.iter().any(|y| y.is_nan());
            }
        }
    }
}

fn threshold(bits: &mut [bool], logits: &[f32], threshold: f64) {
    for (bit, logit) in bits.iter_mut().zip(logits) {
        *bit = is_on(*logit, threshold);
    }
}
