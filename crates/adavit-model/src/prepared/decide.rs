//! The decision networks of a block, prepared: all gates of the policy token are one small product.

use adavit_decision::{
    Allowance, BUDGET_FEATURES, Ceiling, DecisionConfig, GateLogits, HardPolicy, HeadDeactivation,
    PolicyAt, Thresholds,
};
use adavit_gumbel::is_on;
use adavit_kernels::{PreparedLayerNorm, Rows, SmallLinear, Workspace};
use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::layers::norm;
use crate::config::ModelConfig;

/// Where a forward's decisions come from.
#[derive(Debug, Clone, Copy)]
pub(super) enum PolicySource<'a> {
    /// Everything is kept.
    KeepAll,
    /// The model's own networks, within an allowance.
    Networks(&'a Allowance),
    /// The networks run, but others are taken.
    Given(&'a HardPolicy),
}

/// A block, and the image of a policy that comes first among those of the buffers.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    pub(super) block: usize,
    pub(super) first_image: usize,
}

/// What a block decides on, and how.
#[derive(Debug)]
pub(super) struct PreparedDecision {
    norm_policy: Option<PreparedLayerNorm>,
    /// Outputs are the two sub-layers' logits, if there are any, then the heads'.
    policy_token: Option<SmallLinear>,
    tokens: Option<SmallLinear>,
    /// From a budget's features to the shifts of the policy token's logits, then that of the tokens'.
    budget: Option<SmallLinear>,
    sublayers: bool,
    heads: Option<HeadDeactivation>,
    thresholds: Thresholds,
}

/// Buffers of the decisions.
#[derive(Debug, Default)]
pub(super) struct Logits {
    /// How many images they are of.
    images: usize,
    policy_token: Vec<f32>,
    tokens: Vec<f32>,
    normed: Vec<f32>,
    /// What the budget of each image adds.
    shifts: Vec<f32>,
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
    /// The features of each image's budget, if networks take one.
    pub(super) budget: &'a [f32],
}

/// Where decisions are written.
pub(super) struct Verdicts<'a> {
    pub(super) policy: &'a mut HardPolicy,
    pub(super) at: At,
    /// Images with a logit that is NaN become true.
    pub(super) unknown: &'a mut [bool],
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
        let sublayers = decisions.gates_sublayers(block);
        let heads = decisions.gates_heads(block);
        let maps = [
            sublayers.then(|| map("layer_select", 2)),
            heads.map(|_| map("head_select", config.num_heads)),
        ];
        let maps = maps.into_iter().flatten().collect::<Result<Vec<_>>>()?;
        let (weights, biases): (Vec<_>, Vec<_>) = maps.into_iter().unzip();
        let policy_token = (!weights.is_empty())
            .then(|| SmallLinear::new(&Tensor::cat(&weights, 0)?, Some(&Tensor::cat(&biases, 0)?)))
            .transpose()?;
        let tokens = decisions.gates_tokens(block).then(|| {
            let (weight, bias) = map("attn.token_select", 1)?;
            SmallLinear::new(&weight, Some(&bias))
        });
        Ok(Self {
            norm_policy: (decisions.norm_policy && policy_token.is_some())
                .then(|| norm(config, &vb.pp("norm_policy")))
                .transpose()?,
            policy_token,
            tokens: tokens.transpose()?,
            budget: budget_map(decisions, block, config.num_heads, vb)?,
            sublayers,
            heads,
            thresholds: decisions.thresholds,
        })
    }

    /// Turns off what `ceiling` has no room for, of the images that [`Self::decide`] decided on
    /// last.
    pub(super) fn limit(
        &self,
        ceiling: &mut Ceiling,
        policy: &mut HardPolicy,
        at: At,
        logits: &Logits,
    ) {
        let b = logits.images;
        let (sublayers, heads) = (2 * usize::from(self.sublayers), self.heads.is_some());
        for image in 0..b {
            let of_map =
                |map: Option<&SmallLinear>, ys| map.map_or(&[][..], |_| of_image(ys, image, b));
            let gates = of_map(self.policy_token.as_ref(), &logits.policy_token);
            let gates = gates.split_at(sublayers.min(gates.len()));
            let gates = GateLogits {
                patches: of_map(self.tokens.as_ref(), &logits.tokens),
                heads: if heads { gates.1 } else { &[] },
                sublayers: gates.0,
            };
            let at = PolicyAt {
                block: at.block,
                image: at.first_image + image,
            };
            ceiling.fit(policy, at, &gates);
        }
    }

    /// Whether tokens are decided on, from all rows after norm1.
    pub(super) fn gates_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    pub(super) fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.thresholds = thresholds;
    }

    /// Writes the gates, and marks the images with a logit that is NaN.
    pub(super) fn decide(
        &self,
        seen: &Seen,
        mut verdicts: Verdicts,
        logits: &mut Logits,
        work: &mut Workspace,
    ) {
        logits.images = seen.class_rows.len();
        if let Some(map) = &self.budget {
            logits.shifts.resize(logits.images * map.n_out(), 0.0);
            let rows = Rows::All(logits.images);
            map.write(seen.budget, &mut logits.shifts, rows, work);
        }
        if let Some(map) = &self.policy_token {
            self.decide_policy_token(map, seen, &mut verdicts, logits, work);
        }
        if let Some(map) = &self.tokens {
            let Verdicts {
                policy,
                at,
                unknown,
            } = verdicts;
            logits.tokens.resize(seen.patch_rows.len(), 0.0);
            let rows = Rows::Some(seen.patch_rows);
            map.write(seen.zs, &mut logits.tokens, rows, work);
            let n = seen.patch_rows.len() / seen.class_rows.len().max(1);
            let shifts = self.budget.as_ref().map(SmallLinear::n_out);
            for (image, ys) in logits.tokens.chunks_exact_mut(n.max(1)).enumerate() {
                if let Some(width) = shifts {
                    let shift = logits.shifts[(image + 1) * width - 1];
                    for y in &mut *ys {
                        *y += shift;
                    }
                }
                let bits = policy.patches_mut(at.block, at.first_image + image);
                threshold(bits, ys, self.thresholds.tokens);
                unknown[image] |= ys.iter().any(|y| y.is_nan());
            }
        }
    }

    /// Writes the gates of sub-layers and heads.
    fn decide_policy_token(
        &self,
        map: &SmallLinear,
        seen: &Seen,
        verdicts: &mut Verdicts,
        logits: &mut Logits,
        work: &mut Workspace,
    ) {
        let Verdicts {
            policy,
            at,
            unknown,
        } = verdicts;
        let n_out = map.n_out();
        logits
            .policy_token
            .resize(seen.class_rows.len() * n_out, 0.0);
        let ys = &mut logits.policy_token;
        match &self.norm_policy {
            None => map.write(seen.xs, ys, Rows::Some(seen.class_rows), work),
            Some(norm) => {
                logits.normed.resize(seen.xs.len(), 0.0);
                norm.write(seen.xs, &mut logits.normed, Rows::Some(seen.class_rows));
                map.write(&logits.normed, ys, Rows::Some(seen.class_rows), work);
            }
        }
        let shifts = self.budget.as_ref().map(SmallLinear::n_out);
        for (image, ys) in ys.chunks_exact_mut(n_out).enumerate() {
            if let Some(width) = shifts {
                let shifts = &logits.shifts[image * width..];
                for (y, shift) in ys.iter_mut().zip(shifts) {
                    *y += shift;
                }
            }
            let (sublayers, heads) = ys.split_at(if self.sublayers { 2 } else { 0 });
            let at_image = at.first_image + image;
            if self.sublayers {
                let bits = policy.sublayers_mut(at.block, at_image);
                threshold(bits, sublayers, self.thresholds.blocks);
            }
            if self.heads.is_some() {
                let bits = policy.heads_mut(at.block, at_image);
                threshold(bits, heads, self.thresholds.heads);
            }
            unknown[image] |= ys.iter().any(|y| y.is_nan());
        }
    }
}

/// The maps of a block from a budget's features, one after the other, if its networks take one.
fn budget_map(
    decisions: &DecisionConfig,
    block: usize,
    num_heads: usize,
    vb: &VarBuilder,
) -> Result<Option<SmallLinear>> {
    let maps = [
        ("layer_select", decisions.gates_sublayers(block), 2),
        (
            "head_select",
            decisions.gates_heads(block).is_some(),
            num_heads,
        ),
        ("attn.token_select", decisions.gates_tokens(block), 1),
    ];
    let maps = maps.into_iter().filter(|(_, gated, _)| *gated);
    let weights = maps.map(|(name, _, n_out)| {
        let vb = vb.pp(name).pp("budget");
        vb.get((n_out, BUDGET_FEATURES), "weight")
    });
    if decisions.budget_input.is_none() {
        return Ok(None);
    }
    let weights = weights.collect::<Result<Vec<_>>>()?;
    if weights.is_empty() {
        return Ok(None);
    }
    Ok(Some(SmallLinear::new(&Tensor::cat(&weights, 0)?, None)?))
}

/// The part of image `image` in what is written of `b` images.
fn of_image(ys: &[f32], image: usize, b: usize) -> &[f32] {
    let n = ys.len() / b;
    &ys[image * n..][..n]
}

fn threshold(bits: &mut [bool], logits: &[f32], threshold: f64) {
    for (bit, logit) in bits.iter_mut().zip(logits) {
        *bit = is_on(*logit, threshold);
    }
}
