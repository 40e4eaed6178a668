//! One transformer block, dense and with decisions.
//!
//! ```text
//! dense   x <- x + proj(attention(norm1 x));  x <- x + mlp(norm2 x)
//! masked  (k, h, a, m) = decide(x);
//!         x <- x + a * k * proj(h * attention(h * q, h * k, h * v; kept pairs))
//!         x <- x + m * k * fc2(gelu(fc1(h * norm2 x)))
//! ```
//!
//! The gates are factors of 0 or 1 with gradient: the masked path computes everything, defines the
//! semantics, and trains. Meng et al., AdaViT, section 3 (arXiv 2111.15668).

pub(crate) mod gathered;

use adavit_decision::{
    BlockLogits, BlockPolicy, Decision, DecisionConfig, DecisionNetwork, Gating, HeadDeactivation,
    Thresholds,
};
use adavit_kernels::{
    AttentionMaps, HeadGate, class_attention, gate_groups, gate_tokens, gated_residual,
    multi_head_attention,
};
use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use crate::allowed::Limiter;
use crate::config::ModelConfig;
use crate::dropout::BranchScales;
use crate::layers::{LayerNorm, Linear, Mlp};
use crate::output::Capture;
use crate::reduction::reducer::{AttentionInputs, Reducer};

/// Where a block's decisions come from.
#[derive(Debug)]
pub(crate) enum DecisionSource<'a, 'b> {
    Networks(Deciding<'a, 'b>),
    Given(&'a BlockPolicy),
}

/// How a block's own networks decide.
#[derive(Debug)]
pub(crate) struct Deciding<'a, 'b> {
    /// The block's number.
    pub(crate) block: usize,
    pub(crate) gating: &'a mut Gating<'b>,
    /// The features of each image's budget, for networks that take one.
    pub(crate) budget: Option<&'a Tensor>,
    /// Turns off what a ceiling has no room for.
    pub(crate) limiter: Option<&'a mut Limiter>,
}

/// What a block leaves behind.
#[derive(Debug)]
pub(crate) struct BlockOutput {
    /// `(B, N, C)`.
    pub(crate) xs: Tensor,
    pub(crate) decision: Decision,
    /// `(B, H, N)`, if captured.
    pub(crate) class_attention: Option<Tensor>,
}

/// What a block decides by, and what its gates mean.
#[derive(Debug, Clone)]
struct Decider {
    config: DecisionConfig,
    network: DecisionNetwork,
    norm_policy: Option<LayerNorm>,
    heads: Option<HeadDeactivation>,
    tokens_with_mlp: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Block {
    num_heads: usize,
    norm1: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    proj: Linear,
    norm2: LayerNorm,
    mlp: Mlp,
    decider: Option<Decider>,
}

impl Block {
    pub(crate) fn new(config: &ModelConfig, block: usize, vb: &VarBuilder) -> Result<Self> {
        let (c, eps) = (config.embed_dim, config.layer_norm_eps);
        let attn = vb.pp("attn");
        let qkv = |name: &str| Linear::new(c, c, config.qkv_bias, &attn.pp(name));
        let decider = match &config.decisions {
            Some(decisions) => {
                let decides_on_policy_token =
                    decisions.gates_sublayers(block) || decisions.gates_heads(block).is_some();
                let norm_policy = (decisions.norm_policy && decides_on_policy_token)
                    .then(|| LayerNorm::new(c, eps, &vb.pp("norm_policy")))
                    .transpose()?;
                Some(Decider {
                    config: decisions.clone(),
                    network: DecisionNetwork::new(decisions, block, c, config.num_heads, vb)?,
                    norm_policy,
                    heads: decisions.gates_heads(block),
                    tokens_with_mlp: decisions.ada_token_with_mlp,
                })
            }
            None => None,
        };
        Ok(Self {
            num_heads: config.num_heads,
            norm1: LayerNorm::new(c, eps, &vb.pp("norm1"))?,
            query: qkv("query")?,
            key: qkv("key")?,
            value: qkv("value")?,
            proj: Linear::new(c, c, true, &attn.pp("proj"))?,
            norm2: LayerNorm::new(c, eps, &vb.pp("norm2"))?,
            mlp: Mlp::new(c, config.hidden_dim(), &vb.pp("mlp"))?,
            decider,
        })
    }

    pub(crate) fn forward(
        &self,
        xs: &Tensor,
        scales: &BranchScales,
        capture: Capture,
    ) -> Result<BlockOutput> {
        let zs = self.norm1.forward(xs)?;
        let ys = multi_head_attention(&zs, &self.maps(), self.num_heads, None, HeadGate::All)?;
        let xs = add(xs, &ys, None, scales.attention.as_ref())?;
        let us = self.norm2.forward(&xs)?;
        let ys = self.mlp.forward(&us)?;
        Ok(BlockOutput {
            xs: add(&xs, &ys, None, scales.mlp.as_ref())?,
            decision: Decision {
                policy: BlockPolicy::default(),
                logits: BlockLogits::default(),
            },
            class_attention: capture
                .class_attention
                .then(|| self.class_attention(&zs, None, HeadGate::All))
                .transpose()?,
        })
    }

    /// As [`Self::forward`], with fewer tokens from between attention and MLP on.
    pub(crate) fn forward_reduced(
        &self,
        xs: &Tensor,
        block: usize,
        scales: &BranchScales,
        reducer: &mut Reducer,
    ) -> Result<Tensor> {
        let zs = self.norm1.forward(xs)?;
        let inputs = AttentionInputs {
            q: self.query.forward(&zs)?,
            k: self.key.forward(&zs)?,
            v: self.value.forward(&zs)?,
            num_heads: self.num_heads,
        };
        let ys = reducer.attention(&inputs)?;
        let ys = self.proj.forward(&ys)?;
        let xs = add(xs, &ys, None, scales.attention.as_ref())?;
        let xs = reducer.reduce(&xs, block, &inputs)?;
        let ys = self.mlp.forward(&self.norm2.forward(&xs)?)?;
        add(&xs, &ys, None, scales.mlp.as_ref())
    }

    pub(crate) fn forward_masked(
        &self,
        xs: &Tensor,
        source: DecisionSource,
        scales: &BranchScales,
        capture: Capture,
    ) -> Result<BlockOutput> {
        let Some(decider) = &self.decider else {
            return self.forward(xs, scales, capture);
        };
        let zs = self.norm1.forward(xs)?;
        let decision = match source {
            DecisionSource::Networks(Deciding {
                block,
                gating,
                budget,
                limiter,
            }) => {
                let decision = decider.decide(xs, &zs, budget, gating)?;
                match limiter {
                    Some(limiter) => limiter.limit(block, decision)?,
                    None => decision,
                }
            }
            DecisionSource::Given(policy) => Decision {
                policy: policy.clone(),
                logits: BlockLogits::default(),
            },
        };
        let policy = &decision.policy;
        let (ys, class_attention) = self.masked_attention(decider, &zs, policy, capture)?;
        let [attention_gate, mlp_gate] = sublayer_gates(policy)?;
        let xs = add(xs, &ys, attention_gate, scales.attention.as_ref())?;
        let ys = self.masked_mlp(decider, &self.norm2.forward(&xs)?, policy)?;
        Ok(BlockOutput {
            xs: add(&xs, &ys, mlp_gate, scales.mlp.as_ref())?,
            decision,
            class_attention,
        })
    }

    pub(crate) fn set_thresholds(&mut self, thresholds: Thresholds) {
        if let Some(decider) = &mut self.decider {
            decider.network.set_thresholds(thresholds);
        }
    }

    fn maps(&self) -> AttentionMaps<'_> {
        AttentionMaps {
            query: self.query.map(),
            key: self.key.map(),
            value: self.value.map(),
            proj: self.proj.map(),
        }
    }

    /// The class token's attention rows, from query and key computed once more.
    fn class_attention(
        &self,
        zs: &Tensor,
        tokens: Option<&Tensor>,
        heads: HeadGate,
    ) -> Result<Tensor> {
        let (q, k) = (self.query.forward(zs)?, self.key.forward(zs)?);
        let (q, k) = match heads {
            HeadGate::Full(gates) => (gate_groups(&q, gates)?, gate_groups(&k, gates)?),
            _ => (q, k),
        };
        class_attention(&q, &k, self.num_heads, tokens)
    }

    /// The attention branch without its sub-layer gate, and the class token's attention rows.
    fn masked_attention(
        &self,
        decider: &Decider,
        zs: &Tensor,
        policy: &BlockPolicy,
        capture: Capture,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let heads = match (policy.heads(), decider.heads) {
            (Some(gates), Some(HeadDeactivation::Partial)) => HeadGate::Partial(gates),
            (Some(gates), _) => HeadGate::Full(gates),
            (None, _) => HeadGate::All,
        };
        let ys = multi_head_attention(zs, &self.maps(), self.num_heads, policy.tokens(), heads)?;
        let ys = gate(ys, policy.tokens(), gate_tokens)?;
        let rows = capture
            .class_attention
            .then(|| self.class_attention(zs, policy.tokens(), heads))
            .transpose()?;
        Ok((ys, rows))
    }

    /// The MLP branch without its sub-layer gate.
    fn masked_mlp(&self, decider: &Decider, us: &Tensor, policy: &BlockPolicy) -> Result<Tensor> {
        let gates_of = |mode| policy.heads().filter(|_| decider.heads == Some(mode));
        let ys = if let Some(gates) = gates_of(HeadDeactivation::HeadV2) {
            self.mlp.forward_gated(us, gates)?
        } else {
            let us = gate(us.clone(), gates_of(HeadDeactivation::Full), gate_groups)?;
            self.mlp.forward(&us)?
        };
        let tokens = policy.tokens().filter(|_| decider.tokens_with_mlp);
        gate(ys, tokens, gate_tokens)
    }
}

impl Decider {
    fn decide(
        &self,
        xs: &Tensor,
        zs: &Tensor,
        budget: Option<&Tensor>,
        gating: &mut Gating,
    ) -> Result<Decision> {
        let policy_token = xs.narrow(1, 0, 1)?.squeeze(1)?;
        let policy_token = match &self.norm_policy {
            Some(norm) => norm.forward(&policy_token)?,
            None => policy_token,
        };
        self.network.decide(&policy_token, zs, budget, gating)
    }
}

/// Applies `factor` with the gates, if there are any.
fn gate(
    xs: Tensor,
    gates: Option<&Tensor>,
    factor: fn(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    match gates {
        Some(gates) => factor(&xs, gates),
        None => Ok(xs),
    }
}

/// The gates of attention and MLP, `(B,)` each, if there are any.
fn sublayer_gates(policy: &BlockPolicy) -> Result<[Option<Tensor>; 2]> {
    let Some(gates) = policy.sublayers() else {
        return Ok([None, None]);
    };
    let gate = |sublayer| gates.narrow(1, sublayer, 1)?.squeeze(1);
    Ok([Some(gate(0)?), Some(gate(1)?)])
}

/// `xs + gate * scale * ys`, with those factors that there are, `(B,)` each.
fn add(xs: &Tensor, ys: &Tensor, gate: Option<Tensor>, scale: Option<&Tensor>) -> Result<Tensor> {
    match (gate, scale) {
        (Some(gate), Some(scale)) => gated_residual(xs, ys, &(gate * scale)?),
        (Some(gate), None) => gated_residual(xs, ys, &gate),
        (None, Some(scale)) => gated_residual(xs, ys, scale),
        (None, None) => xs + ys,
    }
}
