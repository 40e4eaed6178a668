//! Token reduction: the rivals that people ask about, on any dense model.
//!
//! Both leave fewer tokens from one block to the next, between attention and MLP, as many for every
//! image; where AdaViT's tokens may come back, these are gone:
//!
//! ```text
//! EViT  keep the patch tokens that the class token attends to most, mean over heads;
//!       one more token is the sum of the others, weighted by that attention
//! ToMe  pair tokens at even places with their most similar one at odd places, by their keys;
//!       the pairs most alike become their mean, weighted by how many patches each stands for;
//!       attention adds the logarithm of that number to its scores
//! ```
//!
//! Liang et al. 2022 (arXiv 2202.07800); Bolya et al. 2023 (arXiv 2210.09461). The choice of tokens
//! has no gradient, the tokens that come of it have.

pub(crate) mod reducer;

use adavit_decision::{BlockKept, DecisionConfig, Geometry};
use serde::{Deserialize, Serialize};

use crate::config::ModelConfig;
use crate::error::{Error, Result};

/// How tokens become fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReductionMethod {
    /// By the class token's attention, the others fused into one (EViT).
    Evit,
    /// By merging those that are alike (ToMe).
    Tome,
}

/// How many tokens every block leaves, and by which method.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenReduction {
    /// Which tokens.
    pub method: ReductionMethod,
    /// The tokens after each block's attention, class token included; a number that does not fall
    /// leaves them as they are.
    pub tokens: Vec<usize>,
}

impl TokenReduction {
    /// EViT with a keep rate of patch tokens in each of `blocks`; at every such block one more token
    /// holds the others.
    pub fn evit(config: &ModelConfig, keep_rate: f64, blocks: &[usize]) -> Self {
        let mut n = config.num_tokens();
        let tokens = (0..config.depth).map(|block| {
            if blocks.contains(&block) {
                let kept = (keep_rate * (n - 1) as f64).ceil() as usize;
                n = n.min(kept + 2);
            }
            n
        });
        Self {
            method: ReductionMethod::Evit,
            tokens: tokens.collect(),
        }
    }

    /// ToMe with `merged` pairs in every block on average, at most half of the tokens in one.
    pub fn tome(config: &ModelConfig, merged: f64) -> Self {
        let mut n = config.num_tokens();
        let tokens = (0..config.depth).map(|block| {
            let until = |blocks: usize| (merged * blocks as f64).floor() as usize;
            n -= (until(block + 1) - until(block)).min((n - 1) / 2);
            n
        });
        Self {
            method: ReductionMethod::Tome,
            tokens: tokens.collect(),
        }
    }

    /// The reduction by `method` that comes nearest to `budget`, a share of the dense model's
    /// multiply-adds, from below. EViT reduces in `blocks`, ToMe in all.
    ///
    /// # Errors
    /// If no reduction is within the budget.
    pub fn for_budget(
        config: &ModelConfig,
        method: ReductionMethod,
        budget: f64,
        blocks: &[usize],
    ) -> Result<Self> {
        let of = |share: f64| match method {
            ReductionMethod::Evit => Self::evit(config, share, blocks),
            ReductionMethod::Tome => Self::tome(config, (1.0 - share) * config.num_tokens() as f64),
        };
        let most = budget * config.geometry().dense_macs() as f64;
        let (mut low, mut high) = (0.0, 1.0);
        if of(low).macs(config) as f64 > most {
            return Err(Error::Reduction(format!(
                "no reduction of this model is within {budget} of its multiply-adds; raise the \
                 budget"
            )));
        }
        if of(high).macs(config) as f64 <= most {
            return Ok(of(high));
        }
        for _ in 0..40 {
            let middle = f64::midpoint(low, high);
            if of(middle).macs(config) as f64 <= most {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(of(low))
    }

    /// Checks that the numbers fit a model.
    ///
    /// # Errors
    /// If there is not one for each block, or a step is one that the method cannot do.
    pub fn validate(&self, config: &ModelConfig) -> Result<()> {
        let fail = |message: String| Err(Error::Reduction(message));
        if self.tokens.len() != config.depth {
            return fail(format!(
                "expected the tokens of {} blocks, found {}",
                config.depth,
                self.tokens.len()
            ));
        }
        if config.decisions.is_some() || config.distilled {
            return fail("expected a dense model with a class token alone".into());
        }
        let mut before = config.num_tokens();
        for (block, after) in self.tokens.iter().copied().enumerate() {
            let least = match self.method {
                ReductionMethod::Evit => 2,
                // Every merged token is at an even place, and the class token, at the first, stays.
                ReductionMethod::Tome => before - (before - 1) / 2,
            };
            if after > before || after < least.min(before) {
                return fail(format!(
                    "block {block}: expected between {least} and {before} tokens, found {after}"
                ));
            }
            before = after;
        }
        Ok(())
    }

    /// The `exact` multiply-adds of an image, the same for every image; what decides which tokens
    /// to keep is not counted.
    pub fn macs(&self, config: &ModelConfig) -> u64 {
        let geometry = config.geometry();
        let none = DecisionConfig::none();
        let part = |tokens: usize, attention: bool, geometry: &Geometry| {
            let geometry = Geometry {
                num_tokens: tokens,
                ..geometry.clone()
            };
            let kept = BlockKept {
                attention,
                mlp: !attention,
                ..geometry.all()
            };
            let parts = geometry.block_parts(&none, 0, kept);
            parts.qkv + parts.attention + parts.proj + parts.mlp
        };
        let mut before = config.num_tokens();
        let mut macs = geometry.embed_macs + geometry.head_macs;
        for after in self.tokens.iter().copied() {
            macs += part(before, true, &geometry) + part(after, false, &geometry);
            before = after;
        }
        macs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ModelConfig {
        ModelConfig::preset("nano_patch4_28").unwrap()
    }

    #[test]
    fn tokens_are_counted_as_published() {
        // DeiT-S at keep rate 0.7 in blocks 4, 7 and 10: 3.0 G of 4.6 G (Liang et al., table 1).
        let config = ModelConfig::preset("deit_small_patch16_224").unwrap();
        let evit = TokenReduction::evit(&config, 0.7, &[3, 6, 9]);
        assert_eq!(evit.tokens[2..5], [197, 140, 140]);
        assert!((2.9e9..3.1e9).contains(&(evit.macs(&config) as f64)));
        // With r = 13: 2.7 G (Bolya et al., table 4).
        let tome = TokenReduction::tome(&config, 13.0);
        assert_eq!(tome.tokens[..2], [184, 171]);
        assert!((2.6e9..2.8e9).contains(&(tome.macs(&config) as f64)));
        let all = TokenReduction::tome(&config, 0.0);
        assert_eq!(all.macs(&config), config.geometry().dense_macs());
    }

    #[test]
    fn a_budget_is_met_from_below() {
        let config = config();
        let dense = config.geometry().dense_macs() as f64;
        for method in [ReductionMethod::Evit, ReductionMethod::Tome] {
            for budget in [0.4, 0.6, 0.9, 1.0] {
                let found = TokenReduction::for_budget(&config, method, budget, &[0, 2]).unwrap();
                found.validate(&config).unwrap();
                let share = found.macs(&config) as f64 / dense;
                assert!(
                    share <= budget && share > budget - 0.05,
                    "{method:?} {share}"
                );
            }
            let error = TokenReduction::for_budget(&config, method, 0.01, &[0, 2]);
            assert!(error.unwrap_err().to_string().contains("0.01"));
        }
    }

    #[test]
    fn steps_that_the_method_cannot_do_are_refused() {
        let config = config();
        let reduction = |method, first: usize| TokenReduction {
            method,
            tokens: [vec![first], vec![20; config.depth - 1]].concat(),
        };
        // Of 50 tokens 24 are at even places and not the class token.
        assert!(
            reduction(ReductionMethod::Tome, 25)
                .validate(&config)
                .is_err()
        );
        assert!(
            reduction(ReductionMethod::Tome, 26)
                .validate(&config)
                .is_ok()
        );
        assert!(
            reduction(ReductionMethod::Evit, 25)
                .validate(&config)
                .is_ok()
        );
        assert!(
            reduction(ReductionMethod::Evit, 51)
                .validate(&config)
                .is_err()
        );
        let adaptive = config.clone().with_decisions(DecisionConfig::default());
        assert!(
            reduction(ReductionMethod::Evit, 25)
                .validate(&adaptive)
                .is_err()
        );
    }
}
