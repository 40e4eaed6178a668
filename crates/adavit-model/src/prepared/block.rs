//! A transformer block, prepared: what its gates leave, and nothing else.

use std::ops::Range;

use adavit_decision::{HardPolicy, HeadDeactivation, Thresholds};
use adavit_kernels::{
    HeadSizes, ImageHeads, ImageRows, PreparedLayerNorm, PreparedLinear, ProductParts, Rows,
    Workspace, attend,
};
use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::decide::{Logits, PreparedDecision, Seen};
use super::packed::{linear, norm};
use crate::ModelConfig;

#[derive(Debug)]
pub(super) struct PreparedBlock {
    sizes: Sizes,
    norm1: PreparedLayerNorm,
    /// Query, key and value side by side.
    qkv: PreparedLinear,
    proj: PreparedLinear,
    norm2: PreparedLayerNorm,
    fc1: PreparedLinear,
    fc2: PreparedLinear,
    adaptive: Option<Adaptive>,
}

#[derive(Debug)]
struct Adaptive {
    decision: PreparedDecision,
    tokens_with_mlp: bool,
    whole: bool,
    /// What the MLP gives where full deactivation leaves no head: fc2(gelu(fc1.bias)).
    no_heads: Vec<f32>,
}

#[derive(Debug, Clone, Copy)]
struct Sizes {
    n: usize,
    c: usize,
    num_heads: usize,
    hidden: usize,
}

impl Sizes {
    fn head(self) -> usize {
        self.c / self.num_heads
    }
}

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

/// Buffers of the blocks, kept from one to the next.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// `(B N, C)`: the tokens, which blocks change in place.
    pub(super) xs: Vec<f32>,
    pub(super) normed: Vec<f32>,
    /// `(B N, 3 C)`.
    qkv: Vec<f32>,
    attended: Vec<f32>,
    /// `(B N, R)`.
    hidden: Vec<f32>,
    /// Images with a gate that nobody knows, since its logit is NaN.
    pub(super) unknown: Vec<bool>,
    class_rows: Vec<usize>,
    pub(super) patch_rows: Vec<usize>,
    logits: Logits,
    plan: Plan,
    pub(super) work: Workspace,
}

/// What one block computes of which image.
#[derive(Debug, Default)]
struct Plan {
    /// The heads that attend, image by image; their rows are those of `qkv`.
    heads: Vec<usize>,
    images: Vec<ImageHeads>,
    qkv: ProductParts,
    proj: ProductParts,
    fc1: ProductParts,
    fc2: ProductParts,
    /// Rows whose MLP is the constant without heads.
    constant_rows: Vec<usize>,
    kept: Ranges,
}

/// Ranges of channels that belong to an image's heads.
#[derive(Debug, Default)]
struct Ranges {
    /// Of C.
    channels: Vec<Range<usize>>,
    /// Of R.
    hidden: Vec<Range<usize>>,
    /// Of 3 C.
    qkv: Vec<Range<usize>>,
}

impl Buffers {
    /// Makes room for `b` images; allocates only where more is needed than ever before.
    pub(super) fn reserve(&mut self, config: &ModelConfig, b: usize) {
        let (n, c) = (config.num_tokens(), config.embed_dim);
        let tokens = b * n;
        for buffer in [&mut self.xs, &mut self.normed, &mut self.attended] {
            buffer.resize(tokens * c, 0.0);
        }
        self.qkv.resize(tokens * 3 * c, 0.0);
        self.hidden.resize(tokens * config.hidden_dim(), 0.0);
        self.unknown.clear();
        self.unknown.resize(b, false);
        self.class_rows.clear();
        self.class_rows.extend((0..b).map(|image| image * n));
        self.patch_rows.clear();
        let prefix = config.num_prefix_tokens();
        self.patch_rows
            .extend((0..tokens).filter(|row| row % n >= prefix));
    }
}

/// Fills `ranges` with those of the groups of `width` that are on; neighbours become one.
fn ranges_of(ranges: &mut Vec<Range<usize>>, on: &[bool], width: usize, start: usize) {
    let from = ranges.len();
    for (index, _) in on.iter().enumerate().filter(|(_, on)| **on) {
        let range = start + index * width..start + (index + 1) * width;
        match ranges[from..].last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => ranges.push(range),
        }
    }
}

impl Plan {
    fn clear(&mut self) {
        self.heads.clear();
        self.images.clear();
        for parts in [&mut self.qkv, &mut self.proj, &mut self.fc1, &mut self.fc2] {
            parts.clear();
        }
        self.constant_rows.clear();
    }

    /// Adds an image: `tokens` and `heads` tell what is kept.
    fn attention(
        &mut self,
        sizes: Sizes,
        image: usize,
        (tokens, heads): (&[bool], &[bool]),
        (partial, whole): (bool, bool),
    ) {
        let Sizes { n, c, .. } = sizes;
        let kept = tokens.iter().enumerate().filter(|(_, on)| **on);
        let kept = kept.map(|(token, _)| image * n + token);
        let mut list = |wanted: bool| {
            let start = self.heads.len();
            let some = heads.iter().enumerate().filter(|(_, on)| **on == wanted);
            self.heads.extend(some.map(|(head, _)| head));
            start..self.heads.len()
        };
        let (computed, passing) = (list(true), if partial { list(false) } else { 0..0 });
        let Ranges { channels, qkv, .. } = &mut self.kept;
        channels.clear();
        qkv.clear();
        ranges_of(channels, heads, sizes.head(), 0);
        if whole && !computed.is_empty() {
            qkv.push(0..3 * c);
        } else {
            for part in 0..2 {
                ranges_of(qkv, heads, sizes.head(), part * c);
            }
            if partial {
                qkv.push(2 * c..3 * c);
            } else {
                ranges_of(qkv, heads, sizes.head(), 2 * c);
            }
        }
        if partial {
            channels.clear();
            channels.push(0..c);
        }
        let start = self.qkv.rows().len();
        self.qkv.push(kept.clone(), &[0..c], qkv);
        self.proj.push(kept, channels, &[0..c]);
        self.images.push(ImageHeads {
            rows: start..self.qkv.rows().len(),
            heads: computed,
            passing,
        });
    }

    /// Adds an image to the MLP.
    fn mlp(
        &mut self,
        sizes: Sizes,
        rows: impl Iterator<Item = usize> + Clone,
        heads: &[bool],
        (mode, whole): (Option<HeadDeactivation>, bool),
    ) {
        let Sizes {
            c,
            hidden,
            num_heads,
            ..
        } = sizes;
        let Ranges {
            channels,
            hidden: groups,
            ..
        } = &mut self.kept;
        channels.clear();
        groups.clear();
        match mode {
            Some(HeadDeactivation::Full) if !heads.contains(&true) => {
                self.constant_rows.extend(rows);
                return;
            }
            Some(HeadDeactivation::Full) => {
                ranges_of(channels, heads, sizes.head(), 0);
                groups.push(0..hidden);
            }
            Some(HeadDeactivation::HeadV2) => {
                channels.push(0..c);
                ranges_of(groups, heads, hidden / num_heads, 0);
            }
            Some(HeadDeactivation::Partial) | None => {
                channels.push(0..c);
                groups.push(0..hidden);
            }
        }
        if whole && !groups.is_empty() {
            self.fc1.push(rows.clone(), channels, &[0..hidden]);
        } else {
            self.fc1.push(rows.clone(), channels, groups);
        }
        self.fc2.push(rows, groups, &[0..c]);
    }
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
        let heads = config.decisions.as_ref();
        let heads = heads.and_then(|decisions| decisions.gates_heads(block));
        let group = |whole: usize, wanted: bool| {
            if wanted {
                whole / sizes.num_heads
            } else {
                whole
            }
        };
        let fc1 = mlp.pp("fc1");
        let fc1_bias = fc1.get(hidden, "bias")?;
        let fc1_group = group(hidden, heads == Some(HeadDeactivation::HeadV2));
        let adaptive = match &config.decisions {
            Some(decisions) => {
                let fc2 = mlp.pp("fc2").get((c, hidden), "weight")?;
                let no_heads = adavit_kernels::gelu_linear(
                    &fc1_bias.unsqueeze(0)?,
                    &fc2,
                    &mlp.pp("fc2").get(c, "bias")?,
                )?;
                Some(Adaptive {
                    decision: PreparedDecision::new(config, decisions, block, vb)?,
                    tokens_with_mlp: decisions.ada_token_with_mlp,
                    whole: false,
                    no_heads: no_heads.squeeze(0)?.to_vec1()?,
                })
            }
            None => None,
        };
        Ok(Self {
            sizes,
            norm1: norm(config, &vb.pp("norm1"))?,
            qkv: qkv(config, group(c, heads.is_some()), &attn)?,
            proj: linear(c, c, true, &attn.pp("proj"))?,
            norm2: norm(config, &vb.pp("norm2"))?,
            fc1: PreparedLinear::new(&fc1.get((hidden, c), "weight")?, Some(&fc1_bias), fc1_group)?,
            fc2: linear(hidden, c, true, &mlp.pp("fc2"))?,
            adaptive,
        })
    }

    pub(super) fn set_thresholds(&mut self, thresholds: Thresholds) {
        if let Some(adaptive) = &mut self.adaptive {
            adaptive.decision.set_thresholds(thresholds);
        }
    }

    pub(super) fn set_strategy(&mut self, strategy: Strategy) {
        if let Some(adaptive) = &mut self.adaptive {
            adaptive.whole = strategy == Strategy::Whole;
        }
    }

    /// Writes the block's decisions on the images from `first` on; norm1 is done for all rows where
    /// they are decided on.
    pub(super) fn decide(
        &self,
        policy: &mut HardPolicy,
        (block, first): (usize, usize),
        buffers: &mut Buffers,
    ) {
        let Some(Adaptive { decision, .. }) = &self.adaptive else {
            return;
        };
        if decision.gates_tokens() {
            let rows = Rows::All(buffers.class_rows.len() * self.sizes.n);
            self.norm1.write(&buffers.xs, &mut buffers.normed, rows);
        }
        let seen = Seen {
            xs: &buffers.xs,
            zs: &buffers.normed,
            class_rows: &buffers.class_rows,
            patch_rows: &buffers.patch_rows,
        };
        decision.decide(
            &seen,
            &mut buffers.logits,
            (policy, block, first),
            (&mut buffers.unknown, &mut buffers.work),
        );
    }

    /// Does what `policy` keeps of the images from `first` on. `decided` tells that
    /// [`Self::decide`] came before.
    pub(super) fn forward(
        &self,
        policy: &HardPolicy,
        (block, first): (usize, usize),
        decided: bool,
        buffers: &mut Buffers,
    ) {
        self.plan(policy, (block, first), buffers);
        let normed = self.adaptive.as_ref();
        let normed = decided && normed.is_some_and(|adaptive| adaptive.decision.gates_tokens());
        self.attention(normed, buffers);
        self.mlp(buffers);
    }

    fn plan(&self, policy: &HardPolicy, (block, first): (usize, usize), buffers: &mut Buffers) {
        let (sizes, plan) = (self.sizes, &mut buffers.plan);
        let mode = self.adaptive.as_ref().and_then(|a| a.decision.heads);
        let tokens_with_mlp = self.adaptive.as_ref().is_none_or(|a| a.tokens_with_mlp);
        let whole = self.adaptive.as_ref().is_some_and(|a| a.whole);
        plan.clear();
        for image in 0..buffers.class_rows.len() {
            let tokens = policy.tokens(block, first + image);
            let heads = policy.heads(block, first + image);
            let [attention, mlp] = policy.sublayers(block, first + image);
            if attention {
                let partial = mode == Some(HeadDeactivation::Partial);
                plan.attention(sizes, image, (tokens, heads), (partial, whole));
            }
            if mlp {
                let rows = (0..sizes.n).filter(|token| !tokens_with_mlp || tokens[*token]);
                plan.mlp(
                    sizes,
                    rows.map(|token| image * sizes.n + token),
                    heads,
                    (mode, whole),
                );
            }
        }
    }

    /// x <- x + proj(attention(norm1 x)), where `normed` tells that norm1 is done.
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
            num_heads: self.sizes.num_heads,
            width: self.sizes.head(),
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
        if let Some(adaptive) = &self.adaptive {
            for row in &plan.constant_rows {
                let xs = &mut xs[row * self.sizes.c..][..self.sizes.c];
                for (x, constant) in xs.iter_mut().zip(&adaptive.no_heads) {
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

/// Query, key and value as one map, in groups of `group` outputs.
fn qkv(config: &ModelConfig, group: usize, attn: &VarBuilder) -> Result<PreparedLinear> {
    let c = config.embed_dim;
    let names = ["query", "key", "value"];
    let weights = names.map(|name| attn.pp(name).get((c, c), "weight"));
    let weights = weights.into_iter().collect::<Result<Vec<_>>>()?;
    let bias = config.qkv_bias.then(|| {
        let biases = names.map(|name| attn.pp(name).get(c, "bias"));
        Tensor::cat(&biases.into_iter().collect::<Result<Vec<_>>>()?, 0)
    });
    PreparedLinear::new(
        &Tensor::cat(&weights, 0)?,
        bias.transpose()?.as_ref(),
        group,
    )
}
