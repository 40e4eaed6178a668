//! A transformer block, prepared: what its gates leave, and nothing else.

use adavit_decision::{HardPolicy, HeadDeactivation, Thresholds};
use adavit_kernels::{HeadSizes, ImageRows, PreparedLayerNorm, PreparedLinear, Rows, attend};
use candle_core::Result;
use candle_nn::VarBuilder;

use super::buffers::Buffers;
use super::decide::{At, PreparedDecision, Seen, Verdicts};
use super::layers::{linear, norm, qkv};
use super::plan::{Rules, Sizes};
use crate::config::ModelConfig;

/// How the products whose outputs belong to heads (query, key and value; fc1 of the variant
/// `head_v2`) leave out heads that are off. Logits have the same bits either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// Whichever was measured to be faster for the model's shape.
    #[default]
    Auto,
    /// Kept heads alone, image by image: no multiply-add more than the decisions ask for.
    Exact,
    /// All heads of every image that keeps one, as one product over the batch, of which attention
    /// and the maps that follow read the kept heads alone.
    Whole,
}

#[derive(Debug)]
pub(super) struct PreparedBlock {
    rules: Rules,
    norm1: PreparedLayerNorm,
    /// Query, key and value side by side.
    qkv: PreparedLinear,
    proj: PreparedLinear,
    norm2: PreparedLayerNorm,
    fc1: PreparedLinear,
    fc2: PreparedLinear,
    gates: Option<PreparedGates>,
}

/// What a block with decisions has besides.
#[derive(Debug)]
struct PreparedGates {
    decision: PreparedDecision,
    /// What the MLP gives where full deactivation leaves no head: fc2(gelu(fc1.bias)).
    no_heads: Vec<f32>,
}

impl PreparedBlock {
    pub(super) fn new(config: &ModelConfig, block: usize, vb: &VarBuilder) -> Result<Self> {
        let sizes = Sizes {
            n: config.num_tokens(),
            c: config.embed_dim,
            num_heads: config.num_heads,
            hidden: config.hidden_dim(),
        };
        let (c, hidden) = (sizes.c, sizes.hidden);
        let (attn, mlp) = (vb.pp("attn"), vb.pp("mlp"));
        let decisions = config.decisions.as_ref();
        let heads = decisions.and_then(|decisions| decisions.gates_heads(block));
        // Products in pieces of a head where their outputs are left out by heads.
        let group = |whole: usize, by_head: bool| {
            if by_head {
                whole / sizes.num_heads
            } else {
                whole
            }
        };
        let fc1 = mlp.pp("fc1");
        let fc1_group = group(hidden, heads == Some(HeadDeactivation::HeadV2));
        Ok(Self {
            rules: Rules {
                sizes,
                heads,
                tokens_with_mlp: decisions.is_none_or(|decisions| decisions.ada_token_with_mlp),
                whole: false,
            },
            norm1: norm(config, &vb.pp("norm1"))?,
            qkv: qkv(config, group(c, heads.is_some()), &attn)?,
            proj: linear(c, c, &attn.pp("proj"))?,
            norm2: norm(config, &vb.pp("norm2"))?,
            fc1: PreparedLinear::new(
                &fc1.get((hidden, c), "weight")?,
                Some(&fc1.get(hidden, "bias")?),
                fc1_group,
            )?,
            fc2: linear(hidden, c, &mlp.pp("fc2"))?,
            gates: PreparedGates::new(config, block, vb)?,
        })
    }

    pub(super) fn set_thresholds(&mut self, thresholds: Thresholds) {
        if let Some(gates) = &mut self.gates {
            gates.decision.set_thresholds(thresholds);
        }
    }

    pub(super) fn set_strategy(&mut self, strategy: Strategy) {
        self.rules.whole = self.gates.is_some() && strategy == Strategy::Whole;
    }

    /// Writes the block's decisions on the images `at` into `policy`; norm1 is done for all rows
    /// where they are decided on.
    pub(super) fn decide(&self, policy: &mut HardPolicy, at: At, buffers: &mut Buffers) {
        let Some(PreparedGates { decision, .. }) = &self.gates else {
            return;
        };
        if decision.gates_tokens() {
            let rows = Rows::All(buffers.class_rows.len() * self.rules.sizes.n);
            self.norm1.write(&buffers.xs, &mut buffers.normed, rows);
        }
        let seen = Seen {
            xs: &buffers.xs,
            zs: &buffers.normed,
            class_rows: &buffers.class_rows,
            patch_rows: &buffers.patch_rows,
            budget: &buffers.budget,
        };
        let verdicts = Verdicts {
            policy,
            at,
            unknown: &mut buffers.unknown,
        };
        decision.decide(&seen, verdicts, &mut buffers.logits, &mut buffers.work);
        if let Some(ceiling) = &mut buffers.ceiling {
            decision.limit(ceiling, policy, at, &buffers.logits);
        }
    }

    /// Computes what `policy` keeps of the images `at`, after [`Self::decide`].
    pub(super) fn forward_decided(&self, policy: &HardPolicy, at: At, buffers: &mut Buffers) {
        let gates = self.gates.as_ref();
        let normed = gates.is_some_and(|gates| gates.decision.gates_tokens());
        self.run(policy, at, normed, buffers);
    }

    /// Computes what `policy` keeps of the images `at`.
    pub(super) fn forward(&self, policy: &HardPolicy, at: At, buffers: &mut Buffers) {
        self.run(policy, at, false, buffers);
    }

    /// As [`Self::forward`]; `normed` says whether norm1 is done.
    fn run(&self, policy: &HardPolicy, at: At, normed: bool, buffers: &mut Buffers) {
        let b = buffers.class_rows.len();
        buffers.plan.fill(self.rules, policy, at, b);
        self.attention(normed, buffers);
        self.mlp(buffers);
    }

    /// x <- x + proj(attention(norm1 x)); `normed` says whether norm1 is done.
    fn attention(&self, normed: bool, buffers: &mut Buffers) {
        let Buffers {
            xs,
            normed: zs,
            qkv,
            attended,
            plan,
            work,
            ..
        } = buffers;
        if plan.images.is_empty() {
            return;
        }
        if !normed {
            self.norm1.write(xs, zs, Rows::Some(plan.qkv.rows()));
        }
        self.qkv.write(zs, qkv, &plan.qkv, work);
        let images = ImageRows {
            rows: plan.qkv.rows(),
            heads: &plan.heads,
            images: &plan.images,
        };
        let sizes = HeadSizes {
            num_heads: self.rules.sizes.num_heads,
            width: self.rules.sizes.head(),
        };
        attend(qkv, attended, sizes, images, work);
        self.proj.add(attended, xs, &plan.proj, work);
    }

    /// x <- x + mlp(norm2 x).
    fn mlp(&self, buffers: &mut Buffers) {
        let Buffers {
            xs,
            normed,
            hidden,
            plan,
            work,
            ..
        } = buffers;
        if let Some(gates) = &self.gates {
            let c = self.rules.sizes.c;
            for row in &plan.constant_rows {
                let xs = &mut xs[row * c..][..c];
                for (x, constant) in xs.iter_mut().zip(&gates.no_heads) {
                    *x += constant;
                }
            }
        }
        if plan.fc1.rows().is_empty() {
            return;
        }
        self.norm2.write(xs, normed, Rows::Some(plan.fc1.rows()));
        self.fc1.write_gelu(normed, hidden, &plan.fc1, work);
        self.fc2.add(hidden, xs, &plan.fc2, work);
    }
}

impl PreparedGates {
    /// Those of block `block`, if the model decides.
    fn new(config: &ModelConfig, block: usize, vb: &VarBuilder) -> Result<Option<Self>> {
        let Some(decisions) = &config.decisions else {
            return Ok(None);
        };
        let (c, hidden) = (config.embed_dim, config.hidden_dim());
        let mlp = vb.pp("mlp");
        let fc2 = mlp.pp("fc2");
        let no_heads = adavit_kernels::gelu_linear(
            &mlp.pp("fc1").get(hidden, "bias")?.unsqueeze(0)?,
            &fc2.get((c, hidden), "weight")?,
            &fc2.get(c, "bias")?,
        )?;
        Ok(Some(Self {
            decision: PreparedDecision::new(config, decisions, block, vb)?,
            no_heads: no_heads.squeeze(0)?.to_vec1()?,
        }))
    }
}
