//! The vision transformer: embedding, blocks, norm, head on the class token.
//!
//! Dosovitskiy et al. 2021 (arXiv 2010.11929), Touvron et al. 2021 (arXiv 2012.12877), Yuan et al.
//! 2021 (arXiv 2101.11986).

use adavit_decision::{Allocator, Allowance, Budgets, FIRST_ALLOCATED, Gating, Policy, Thresholds};
use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;

use crate::allowed::{Limiter, budget_features};
use crate::block::gathered::Gathered;
use crate::block::{Block, BlockOutput, Deciding, DecisionSource};
use crate::config::ModelConfig;
use crate::dropout::{BranchScales, Dropout};
use crate::error::{Error, Result};
use crate::layers::{LayerNorm, Linear};
use crate::output::{Capture, Output};
use crate::reduction::TokenReduction;
use crate::reduction::reducer::Reducer;
use crate::stem::embed::Embed;

/// A ViT, DeiT or T2T-ViT, with decision networks if its configuration has decisions.
#[derive(Debug, Clone)]
pub struct VisionTransformer {
    config: ModelConfig,
    embed: Embed,
    blocks: Vec<Block>,
    /// Gives each image a budget of its own.
    allocator: Option<Allocator>,
    norm: LayerNorm,
    head: Linear,
    /// Of distilled DeiT, on its second token.
    head_dist: Option<Linear>,
}

/// A model in training, which leaves parts of itself out at random: see
/// [`VisionTransformer::with_dropout`]. Its functions are those of the model.
#[derive(Debug, Clone, Copy)]
pub struct WithDropout<'a> {
    model: &'a VisionTransformer,
    dropout: Option<&'a Dropout>,
}

impl VisionTransformer {
    /// Builds the model from the tensors of `vb`, named as in published checkpoints.
    ///
    /// # Errors
    /// If the configuration is invalid, or a tensor is missing or misshapen.
    pub fn new(config: &ModelConfig, vb: &VarBuilder) -> Result<Self> {
        config.validate()?;
        let blocks = (0..config.depth)
            .map(|block| Block::new(config, block, &vb.pp("blocks").pp(block)))
            .collect::<candle_core::Result<_>>()?;
        let head =
            |name: &str| Linear::new(config.embed_dim, config.num_classes, true, &vb.pp(name));
        let decisions = config.decisions.as_ref();
        let allocator = decisions.and_then(|own| own.allocator.as_ref());
        let allocator =
            allocator.map(|own| Allocator::new(own, config.embed_dim, &vb.pp("allocator")));
        Ok(Self {
            config: config.clone(),
            allocator: allocator.transpose()?,
            embed: Embed::new(config, vb)?,
            blocks,
            norm: LayerNorm::new(config.embed_dim, config.layer_norm_eps, &vb.pp("norm"))?,
            head: head("head")?,
            head_dist: config
                .has_head_dist()
                .then(|| head("head_dist"))
                .transpose()?,
        })
    }

    /// What the model is made of.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Moves the thresholds of every decision network; a dense model has none to move.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        if let Some(decisions) = &mut self.config.decisions {
            decisions.thresholds = thresholds;
        }
        for block in &mut self.blocks {
            block.set_thresholds(thresholds);
        }
    }

    /// Returns the model as it trains on one batch, the one that `dropout` is for. Without dropout it
    /// computes the same as the model itself.
    pub fn with_dropout<'a>(&'a self, dropout: Option<&'a Dropout>) -> WithDropout<'a> {
        WithDropout {
            model: self,
            dropout,
        }
    }

    /// The dense path: everything is computed, decision networks are not run.
    ///
    /// # Shapes
    /// `xs`: `(B, in_chans, height, width)`.
    pub fn forward(&self, xs: &Tensor, capture: Capture) -> Result<Output> {
        self.with_dropout(None).forward(xs, capture)
    }

    /// The masked path with the model's own decisions: everything is computed, gates are factors.
    /// It defines what a decision means, and it trains.
    ///
    /// # Shapes
    /// `xs`: `(B, in_chans, height, width)`.
    pub fn forward_masked(
        &self,
        xs: &Tensor,
        gating: &mut Gating,
        capture: Capture,
    ) -> Result<Output> {
        self.with_dropout(None).forward_masked(xs, gating, capture)
    }

    /// As [`Self::forward_masked`], with what `allowance` allows each image.
    ///
    /// # Errors
    /// If the model cannot keep to the allowance, or a ceiling is given to gates in training.
    pub fn forward_masked_within(
        &self,
        xs: &Tensor,
        gating: &mut Gating,
        allowance: &Allowance,
        capture: Capture,
    ) -> Result<Output> {
        let model = self.with_dropout(None);
        model.forward_masked_within(xs, gating, allowance, capture)
    }

    /// The masked path with given decisions; the decision networks are not run. What the decisions
    /// cost is the caller's affair: no ceiling changes them.
    ///
    /// # Errors
    /// If `policy` has not one entry per block.
    pub fn forward_policy(&self, xs: &Tensor, policy: &Policy, capture: Capture) -> Result<Output> {
        self.with_dropout(None).forward_policy(xs, policy, capture)
    }

    /// The logits `(B, K)` of the dense path with fewer tokens from block to block.
    ///
    /// # Shapes
    /// `xs`: `(B, in_chans, height, width)`.
    ///
    /// # Errors
    /// If `reduction` does not fit the model: see [`TokenReduction::validate`].
    pub fn forward_reduced(&self, xs: &Tensor, reduction: &TokenReduction) -> Result<Tensor> {
        self.with_dropout(None).forward_reduced(xs, reduction)
    }

    /// The logits `(B, K)` of the sparse path of candle operations.
    pub(crate) fn forward_gathered(&self, xs: &Tensor, state: &mut Gathered) -> Result<Tensor> {
        let geometry = self.config.geometry();
        let (b, mut xs) = (xs.dim(0)?, self.embed(xs, None)?);
        for (index, block) in self.blocks.iter().enumerate() {
            if index == FIRST_ALLOCATED {
                self.allocate_gathered(&xs, state)?;
            }
            xs = block.forward_gathered(&xs, index, &geometry, state)?;
        }
        state.macs += b as u64 * (geometry.embed_macs + geometry.head_macs);
        let logits = self.classify(&xs)?;
        // A gate that nobody knows makes everything unknown.
        let factor = |unknown: &bool| if *unknown { f32::NAN } else { 1.0 };
        let factors: Vec<f32> = state.unknown.iter().map(factor).collect();
        let factors = Tensor::from_vec(factors, (b, 1), logits.device())?;
        Ok(logits.broadcast_mul(&factors.to_dtype(logits.dtype())?)?)
    }

    /// Keeps the class tokens of an elastic model, and gives each image its budget. The allocator
    /// runs whatever is asked for, and counts.
    fn allocate_gathered(&self, xs: &Tensor, state: &mut Gathered) -> candle_core::Result<()> {
        if state.budget.is_none() {
            return Ok(());
        }
        let tokens = class_token(xs)?;
        let values = tokens.to_dtype(DType::F32)?.flatten_all()?;
        *state.class_tokens = values.to_vec1()?;
        let Some(allocator) = &self.allocator else {
            return Ok(());
        };
        let own = allocator.allocate(&tokens, state.price.unwrap_or_default())?;
        if state.price.is_some() {
            state.budget = Some(budget_features(&own, xs)?);
        }
        Ok(())
    }

    /// The features of the images' own budgets, by the tokens that enter block `block`, where they
    /// are allocated.
    fn allocated(
        &self,
        budgets: Option<&Budgets>,
        block: usize,
        xs: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        match (budgets, &self.allocator) {
            (Some(Budgets::Allocated { price, .. }), Some(allocator))
                if block == FIRST_ALLOCATED =>
            {
                let own = allocator.allocate(&class_token(xs)?, *price)?;
                budget_features(&own, xs).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The logits of the tokens after the last block.
    fn classify(&self, xs: &Tensor) -> candle_core::Result<Tensor> {
        // A LayerNorm acts on each token alone: only those with a head are needed.
        let logits = self.head.forward(&self.norm.forward(&class_token(xs)?)?)?;
        let Some(head_dist) = &self.head_dist else {
            return Ok(logits);
        };
        let token = self.norm.forward(&xs.narrow(1, 1, 1)?.squeeze(1)?)?;
        (logits + head_dist.forward(&token)?)? / 2.0
    }

    fn embed(&self, xs: &Tensor, dropout: Option<&Dropout>) -> Result<Tensor> {
        self.config.check_images(xs)?;
        Ok(self.embed.forward(xs, dropout)?)
    }
}

impl WithDropout<'_> {
    /// As [`VisionTransformer::forward`].
    pub fn forward(&self, xs: &Tensor, capture: Capture) -> Result<Output> {
        self.run(xs, capture, |_, block, xs, scales| {
            block.forward(xs, scales, capture)
        })
    }

    /// As [`VisionTransformer::forward_masked`].
    pub fn forward_masked(
        &self,
        xs: &Tensor,
        gating: &mut Gating,
        capture: Capture,
    ) -> Result<Output> {
        self.forward_masked_within(xs, gating, &Allowance::default(), capture)
    }

    /// As [`VisionTransformer::forward_masked_within`].
    ///
    /// # Errors
    /// If the model cannot keep to the allowance, or a ceiling is given to gates in training.
    pub fn forward_masked_within(
        &self,
        xs: &Tensor,
        gating: &mut Gating,
        allowance: &Allowance,
        capture: Capture,
    ) -> Result<Output> {
        let config = &self.model.config;
        config.check_allowance(allowance)?;
        if allowance.max_macs.is_some() && matches!(gating, Gating::Training { .. }) {
            return Err(Error::Input(
                "max_macs: expected none in training, since what a ceiling drops has no gradient"
                    .into(),
            ));
        }
        let budgets = config.budgets(allowance, xs.dim(0)?)?;
        let budget = budgets.as_ref().map(|own| budget_features(own, xs));
        let mut budget = budget.transpose()?;
        let mut limiter = Limiter::new(config, allowance, xs.dim(0)?)?;
        self.run(xs, capture, |index, block, xs, scales| {
            if let Some(own) = self.model.allocated(budgets.as_ref(), index, xs)? {
                budget = Some(own);
            }
            let deciding = Deciding {
                block: index,
                gating: &mut *gating,
                budget: budget.as_ref(),
                limiter: limiter.as_mut(),
            };
            block.forward_masked(xs, DecisionSource::Networks(deciding), scales, capture)
        })
    }

    /// As [`VisionTransformer::forward_policy`].
    ///
    /// # Errors
    /// If `policy` has not one entry per block.
    pub fn forward_policy(&self, xs: &Tensor, policy: &Policy, capture: Capture) -> Result<Output> {
        let depth = self.model.blocks.len();
        if policy.blocks.len() != depth {
            return Err(Error::Input(format!(
                "policy: expected {depth} blocks, found {}",
                policy.blocks.len()
            )));
        }
        self.run(xs, capture, |index, block, xs, scales| {
            let given = DecisionSource::Given(&policy.blocks[index]);
            block.forward_masked(xs, given, scales, capture)
        })
    }

    /// As [`VisionTransformer::forward_reduced`].
    ///
    /// # Errors
    /// If `reduction` does not fit the model: see [`TokenReduction::validate`].
    pub fn forward_reduced(&self, xs: &Tensor, reduction: &TokenReduction) -> Result<Tensor> {
        let model = self.model;
        reduction.validate(&model.config)?;
        let mut reducer = Reducer::new(reduction);
        let mut xs = model.embed(xs, self.dropout)?;
        for (index, block) in model.blocks.iter().enumerate() {
            let scales = self.scales(index, &xs)?;
            xs = block.forward_reduced(&xs, index, &scales, &mut reducer)?;
        }
        Ok(model.classify(&xs)?)
    }

    fn run(
        &self,
        xs: &Tensor,
        capture: Capture,
        mut run_block: impl FnMut(
            usize,
            &Block,
            &Tensor,
            &BranchScales,
        ) -> candle_core::Result<BlockOutput>,
    ) -> Result<Output> {
        let model = self.model;
        let mut xs = model.embed(xs, self.dropout)?;
        let (mut decisions, mut hidden) = (Vec::new(), Vec::new());
        let (mut class_hidden, mut class_attention) = (Vec::new(), Vec::new());
        for (index, block) in model.blocks.iter().enumerate() {
            let scales = self.scales(index, &xs)?;
            let output = run_block(index, block, &xs, &scales)?;
            xs = output.xs;
            decisions.push(output.decision);
            class_attention.extend(output.class_attention);
            if capture.hidden {
                hidden.push(xs.clone());
            }
            if capture.class_hidden {
                class_hidden.push(class_token(&xs)?);
            }
        }
        Ok(Output {
            logits: model.classify(&xs)?,
            decisions,
            hidden,
            class_hidden,
            class_attention,
        })
    }

    /// The factors of a block's branches.
    fn scales(&self, block: usize, xs: &Tensor) -> candle_core::Result<BranchScales> {
        let depth = self.model.blocks.len();
        match self.dropout {
            Some(dropout) => dropout.of_block(block, depth, xs),
            None => Ok(BranchScales::default()),
        }
    }
}

fn class_token(xs: &Tensor) -> candle_core::Result<Tensor> {
    xs.narrow(1, 0, 1)?.squeeze(1)
}
