//! How images go through a [`VisionTransformer`], whose operations are candle's.

use adavit_data::Batch;
use adavit_decision::{
    Allowance, BlockKept, BlockUsage, DecisionConfig, Gating, Geometry, Policy, random_policy,
};
use adavit_gumbel::SeededNoise;
use adavit_model::{Capture, ModelConfig, Output, TokenReduction, VisionTransformer};

use crate::error::{Error, Result};

/// How an image goes through a [`VisionTransformer`].
#[derive(Debug, Clone, Copy)]
pub enum Mode<'a> {
    /// Everything is computed, no decisions are made.
    Dense,
    /// The model's own decisions at inference, as factors.
    Masked,
    /// Random decisions.
    Random {
        /// What is kept on average, one entry per block.
        usage: &'a [BlockUsage],
        /// Of the draw.
        seed: u64,
        /// Which draw.
        draw: u64,
    },
    /// The dense path with fewer tokens from block to block. Usage counts the tokens that each
    /// block's MLP computes.
    Reduced(&'a TokenReduction),
}

/// One draw of random decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RandomDraw {
    /// Of every draw.
    pub seed: u64,
    /// Which draw.
    pub draw: u64,
}

/// Returns random decisions on the images `samples`.
///
/// # Errors
/// [`Error::Mismatch`] if the model makes no decisions.
pub fn drawn_policy(
    config: &ModelConfig,
    usage: &[BlockUsage],
    RandomDraw { seed, draw }: RandomDraw,
    samples: &[u64],
) -> Result<Policy> {
    let Some(decisions) = &config.decisions else {
        return Err(Error::Mismatch(
            "random policy: expected an adaptive model, found a dense one".into(),
        ));
    };
    // Counted down from the top, where no epoch of training comes.
    let mut noise = SeededNoise::new(seed, u64::MAX - draw, samples);
    Ok(random_policy(
        decisions,
        &config.geometry(),
        usage,
        &mut noise,
        samples.len(),
    )?)
}

impl Mode<'_> {
    /// The decisions that MACs and usage are counted by.
    pub(super) fn decisions(self, config: &ModelConfig) -> DecisionConfig {
        match self {
            Self::Dense => DecisionConfig::none(),
            Self::Reduced(_) => every_block_drops_tokens(),
            Self::Masked | Self::Random { .. } => config
                .decisions
                .clone()
                .unwrap_or_else(DecisionConfig::none),
        }
    }

    /// Runs a batch; `allowance` is what the model's own decisions are allowed.
    pub(super) fn forward(
        self,
        model: &VisionTransformer,
        batch: &Batch,
        allowance: &Allowance,
    ) -> Result<Output> {
        let capture = Capture::default();
        let output = match self {
            Self::Dense => model.forward(&batch.images, capture)?,
            Self::Reduced(reduction) => {
                Output::of_logits(model.forward_reduced(&batch.images, reduction)?)
            }
            Self::Masked => {
                let gating = &mut Gating::Inference;
                model.forward_masked_within(&batch.images, gating, allowance, capture)?
            }
            Self::Random { usage, seed, draw } => {
                let draw = RandomDraw { seed, draw };
                let policy = drawn_policy(model.config(), usage, draw, &batch.samples)?;
                let policy = policy.to_device(batch.images.device())?;
                model.forward_policy(&batch.images, &policy, capture)?
            }
        };
        Ok(output)
    }

    /// What each of the `n` images of a forward used of each block.
    pub(super) fn used(
        self,
        output: &Output,
        n: usize,
        geometry: &Geometry,
    ) -> Result<Vec<Vec<BlockKept>>> {
        if let Self::Reduced(reduction) = self {
            return Ok(vec![reduced_blocks(reduction, geometry); n]);
        }
        let policy = output.policy();
        Ok(policy.kept(geometry, n)?)
    }
}

/// The decisions that a token reduction stands for. The reduction itself counts what it costs.
fn every_block_drops_tokens() -> DecisionConfig {
    DecisionConfig {
        ada_token: true,
        ..DecisionConfig::none()
    }
}

/// What every image keeps of each block under `reduction`, which never drops the class token.
fn reduced_blocks(reduction: &TokenReduction, geometry: &Geometry) -> Vec<BlockKept> {
    let kept = |tokens: &usize| BlockKept {
        patches: tokens - 1,
        ..geometry.all()
    };
    reduction.tokens.iter().map(kept).collect()
}

#[cfg(test)]
mod tests {
    use adavit_decision::UsageMeter;
    use adavit_model::ReductionMethod;

    use super::*;

    #[test]
    fn usage_of_a_token_reduction_counts_the_tokens_that_ran() {
        let config = ModelConfig::preset("nano_patch7_28").unwrap();
        let geometry = config.geometry();
        let mut tokens = vec![geometry.num_tokens; config.depth];
        *tokens.last_mut().unwrap() = 1 + (geometry.num_tokens - 1) / 4;
        let reduction = TokenReduction {
            method: ReductionMethod::Evit,
            tokens,
        };
        let blocks = reduced_blocks(&reduction, &geometry);
        let mut meter = UsageMeter::new(&every_block_drops_tokens(), &geometry);
        meter.add_counted(&blocks, reduction.macs(&config)).unwrap();
        let usage = meter.usage();
        let last = usage.per_block.last().unwrap();
        assert_eq!((last.tokens, last.attention, last.mlp), (0.25, 1.0, 1.0));
        assert_eq!(usage.per_block[0].tokens, 1.0);
        let mean = (config.depth as f64 - 0.75) / config.depth as f64;
        assert!((usage.tokens - mean).abs() < 1e-12);
    }
}
