//! The sparse path of candle operations, for CUDA and Metal: rows of kept tokens are gathered, go
//! through the block together, and are added back to their places.
//!
//! Images attend padded to the longest of them, with the padding masked. Heads that are off are
//! factors, as in the masked path: their products are computed all the same.

use adavit_decision::{Ceiling, Gating, Geometry, HardPolicy, HeadDeactivation};
use adavit_kernels::{HeadGate, gate_groups, multi_head_attention};
use candle_core::{Result, Tensor};

use super::Block;

/// What the gathered path does for a batch.
#[derive(Debug)]
pub(crate) struct Gathered<'a> {
    /// Taken in place of the decisions, if given.
    pub(crate) given: Option<&'a HardPolicy>,
    /// What is computed.
    pub(crate) policy: &'a mut HardPolicy,
    /// The features of each image's budget, for networks that take one.
    pub(crate) budget: Option<Tensor>,
    /// The price that budgets are allocated by, if they are.
    pub(crate) price: Option<f64>,
    /// The class tokens behind the first block, of an elastic model.
    pub(crate) class_tokens: &'a mut Vec<f32>,
    /// Turns off what it has no room for, if there is one.
    pub(crate) ceiling: Option<Ceiling>,
    /// Images with a gate that nobody knows, since its logit is NaN.
    pub(crate) unknown: Vec<bool>,
    /// Multiply-adds done.
    pub(crate) macs: u64,
}

/// Rows of a flattened batch, and the images that they belong to.
#[derive(Default)]
struct Selected {
    rows: Vec<u32>,
    images: Vec<u32>,
}

impl Selected {
    fn push(&mut self, row: usize, image: usize) {
        self.rows.push(row as u32);
        self.images.push(image as u32);
    }

    /// Row and image numbers as tensors.
    fn tensors(self, like: &Tensor) -> Result<(Tensor, Tensor)> {
        Ok((
            Tensor::new(self.rows, like.device())?,
            Tensor::new(self.images, like.device())?,
        ))
    }
}

/// The kept tokens of the images that attend, each padded to the longest of them.
struct Padded {
    /// The images.
    images: Vec<u32>,
    longest: usize,
    /// Rows of the flattened batch, `longest` of each image; padding repeats the class token.
    rows: Vec<u32>,
    /// One where a row is none of padding, `(images, longest)`.
    mask: Vec<f32>,
    /// The places among the rows of what is no padding, and where they are added.
    real: Vec<u32>,
    added: Vec<u32>,
}

impl Padded {
    /// Those of block `index` in a batch of `n` tokens each; none where no image attends.
    fn of(policy: &HardPolicy, index: usize, n: usize) -> Option<Self> {
        let images = 0..policy.batch();
        let images: Vec<usize> = images
            .filter(|image| policy.sublayers(index, *image)[0])
            .collect();
        let kept = |image: usize| {
            let tokens = policy.tokens(index, image).iter().enumerate();
            tokens.filter(|(_, kept)| **kept).map(|(token, _)| token)
        };
        let longest = images.iter().map(|image| kept(*image).count()).max()?;
        let mut padded = Self {
            images: images.iter().map(|image| *image as u32).collect(),
            longest,
            rows: Vec::with_capacity(images.len() * longest),
            mask: vec![0.0; images.len() * longest],
            real: Vec::new(),
            added: Vec::new(),
        };
        for (place, image) in images.into_iter().enumerate() {
            let start = place * longest;
            for (at, token) in kept(image).enumerate() {
                padded.rows.push((image * n + token) as u32);
                padded.added.push((image * n + token) as u32);
                padded.real.push((start + at) as u32);
                padded.mask[start + at] = 1.0;
            }
            padded.rows.resize(start + longest, (image * n) as u32);
        }
        Some(padded)
    }
}

impl Block {
    /// Returns the tokens `(B, N, C)` after block `index`, computed where its gates are on.
    pub(crate) fn forward_gathered(
        &self,
        xs: &Tensor,
        index: usize,
        geometry: &Geometry,
        state: &mut Gathered,
    ) -> Result<Tensor> {
        let zs = self.norm1.forward(xs)?;
        self.decide_gathered(xs, &zs, index, geometry, state)?;
        let xs = self.attention_gathered(xs, &zs, index, state)?;
        self.mlp_gathered(&xs, index, state)
    }

    fn decide_gathered(
        &self,
        xs: &Tensor,
        zs: &Tensor,
        index: usize,
        geometry: &Geometry,
        state: &mut Gathered,
    ) -> Result<()> {
        let b = xs.dim(0)?;
        if let Some(decider) = &self.decider {
            let decision = decider.decide(xs, zs, state.budget.as_ref(), &mut Gating::Inference)?;
            let unknown = state.policy.set_block(index, &decision.policy)?;
            for (image, unknown) in unknown.into_iter().enumerate() {
                state.unknown[image] |= unknown;
            }
            if let Some(ceiling) = &mut state.ceiling {
                ceiling.fit_block(state.policy, index, &decision.logits)?;
            }
            let all = geometry.block_parts(&decider.config, index, geometry.all());
            state.macs += all.decisions * b as u64;
        }
        if let Some(given) = state.given {
            state.policy.copy_block(given, index, 0..b)?;
        }
        Ok(())
    }

    /// The head gates `(B, H)` of all images.
    fn head_gates(&self, index: usize, policy: &HardPolicy, like: &Tensor) -> Result<Tensor> {
        let bits = (0..policy.batch()).flat_map(|image| policy.heads(index, image));
        let gates: Vec<f32> = bits.map(|bit| f32::from(u8::from(*bit))).collect();
        Tensor::from_vec(gates, (policy.batch(), self.num_heads), like.device())?
            .to_dtype(like.dtype())
    }

    fn heads(&self) -> Option<HeadDeactivation> {
        self.decider.as_ref().and_then(|decider| decider.heads)
    }

    fn attention_gathered(
        &self,
        xs: &Tensor,
        zs: &Tensor,
        index: usize,
        state: &mut Gathered,
    ) -> Result<Tensor> {
        let (b, n, c) = xs.dims3()?;
        let policy = &*state.policy;
        let Some(padded) = Padded::of(policy, index, n) else {
            return Ok(xs.clone());
        };
        let (count, longest, device) = (padded.images.len(), padded.longest, xs.device());
        let rows = Tensor::new(padded.rows, device)?;
        let rows = zs.reshape((b * n, c))?.index_select(&rows, 0)?;
        let mask = Tensor::from_vec(padded.mask, (count, longest), device)?.to_dtype(xs.dtype())?;
        let gates = self.head_gates(index, policy, xs)?;
        let gates = gates.index_select(&Tensor::new(padded.images, device)?, 0)?;
        let heads = match self.heads() {
            Some(HeadDeactivation::Partial) => HeadGate::Partial(&gates),
            Some(_) => HeadGate::Full(&gates),
            None => HeadGate::All,
        };
        let ys = multi_head_attention(
            &rows.reshape((count, longest, c))?,
            &self.maps(),
            self.num_heads,
            Some(&mask),
            heads,
        )?;
        state.macs += (count * longest * (4 * c * c + 2 * longest * c)) as u64;
        let ys = ys.reshape((count * longest, c))?;
        let ys = ys.index_select(&Tensor::new(padded.real, device)?, 0)?;
        add_rows(xs, &Tensor::new(padded.added, device)?, &ys)
    }

    fn mlp_gathered(&self, xs: &Tensor, index: usize, state: &mut Gathered) -> Result<Tensor> {
        let (b, n, c) = xs.dims3()?;
        let policy = &*state.policy;
        let all = self
            .decider
            .as_ref()
            .is_some_and(|decider| !decider.tokens_with_mlp);
        let mut selected = Selected::default();
        for image in (0..b).filter(|image| policy.sublayers(index, *image)[1]) {
            let tokens = policy.tokens(index, image).iter().enumerate();
            for (token, _) in tokens.filter(|(_, kept)| all || **kept) {
                selected.push(image * n + token, image);
            }
        }
        let count = selected.rows.len();
        if count == 0 {
            return Ok(xs.clone());
        }
        let (rows, images) = selected.tensors(xs)?;
        let us = xs.reshape((b * n, c))?.index_select(&rows, 0)?;
        // A row is an image of one token, with the gates of its own image.
        let us = self.norm2.forward(&us)?.unsqueeze(1)?;
        let gates = self.head_gates(index, policy, xs)?;
        let gates = gates.index_select(&images, 0)?;
        let ys = match self.heads() {
            Some(HeadDeactivation::Full) => self.mlp.forward(&gate_groups(&us, &gates)?)?,
            Some(HeadDeactivation::HeadV2) => self.mlp.forward_gated(&us, &gates)?,
            Some(HeadDeactivation::Partial) | None => self.mlp.forward(&us)?,
        };
        state.macs += (2 * count * c * self.mlp.hidden()?) as u64;
        add_rows(xs, &rows, &ys.squeeze(1)?)
    }
}

/// Returns `xs`, `(B, N, C)`, with `ys` added to the given rows of the flattened batch.
fn add_rows(xs: &Tensor, rows: &Tensor, ys: &Tensor) -> Result<Tensor> {
    let (b, n, c) = xs.dims3()?;
    xs.reshape((b * n, c))?
        .index_add(rows, ys, 0)?
        .reshape((b, n, c))
}
