//! The cost of a policy, in multiply-adds (1 MAC = 2 FLOPs), per image.
//!
//! The `exact` accounting counts in a block
//!
//! ```text
//! decisions   2C (blocks) + HC (heads) + (N-1)C (tokens), for the gates that it has
//! attention   full, head_v2  3tCw + 2t²w + twC        partial  2tCw + tC² + 2t²w + tC²
//! MLP         full  n(wR + RC), 0 where h = 0          head_v2  2nC(h/H)R
//!             partial, or without head gates  2nCR
//! ```
//!
//! and, for networks that take a budget, 2F + HF + F more for these gates, and KC for an allocator of
//! K budgets in the block that it chooses for first,
//!
//! with t kept tokens (class token included), h kept heads, w = h D, R = fc1's width, and n = t if
//! tokens gate the MLP and N if not. Norms, softmax and activations are not counted, as in timm
//! and fvcore. `cost/formula.rs` holds the formula, `cost/paper.rs` the published accounting.

use serde::{Deserialize, Serialize};

use crate::allocator::FIRST_ALLOCATED;
use crate::budget::BUDGET_FEATURES;
use crate::config::DecisionConfig;
use crate::cost::formula::{BlockFormula, Kept};
use crate::policy::kept::BlockKept;

/// The sizes of a model that its cost depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Geometry {
    /// N, class token included: at least 1.
    pub num_tokens: usize,
    /// C.
    pub embed_dim: usize,
    /// L.
    pub depth: usize,
    /// H.
    pub num_heads: usize,
    /// R, the width of fc1's output.
    pub hidden_dim: usize,
    /// MACs of the patch embedding, or of the tokens-to-token module.
    pub embed_macs: u64,
    /// MACs of the classification head.
    pub head_macs: u64,
}

/// MACs of one image by the part of the model that they are spent in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MacsParts {
    /// Patch embedding, or the tokens-to-token module.
    pub patch_embed: u64,
    /// Decision networks.
    pub decisions: u64,
    /// Query, key and value.
    pub qkv: u64,
    /// Both products of attention.
    pub attention: u64,
    /// Attention's projection.
    pub proj: u64,
    /// fc1 and fc2.
    pub mlp: u64,
    /// Classification head.
    pub head: u64,
}

impl MacsParts {
    /// Returns the sum of all parts.
    pub fn total(&self) -> u64 {
        self.named().iter().map(|&(_, macs)| macs).sum()
    }

    /// Returns every part with its name, in the order of the forward.
    pub fn named(&self) -> [(&'static str, u64); 7] {
        [
            ("patch_embed", self.patch_embed),
            ("decisions", self.decisions),
            ("qkv", self.qkv),
            ("attention", self.attention),
            ("proj", self.proj),
            ("mlp", self.mlp),
            ("head", self.head),
        ]
    }

    fn add(&mut self, other: &Self) {
        self.patch_embed += other.patch_embed;
        self.decisions += other.decisions;
        self.qkv += other.qkv;
        self.attention += other.attention;
        self.proj += other.proj;
        self.mlp += other.mlp;
        self.head += other.head;
    }
}

impl Geometry {
    /// Returns what an image keeps of a block when nothing is skipped.
    pub fn all(&self) -> BlockKept {
        BlockKept {
            patches: self.num_tokens - 1,
            heads: self.num_heads,
            attention: true,
            mlp: true,
        }
    }

    /// MACs of the dense model, without decision networks, by part.
    pub fn dense_parts(&self) -> MacsParts {
        self.image_parts(&DecisionConfig::none(), &vec![self.all(); self.depth])
    }

    /// MACs of the dense model in total. Savings are measured against this.
    pub fn dense_macs(&self) -> u64 {
        self.dense_parts().total()
    }

    /// MACs of one image that keeps `blocks`, one entry per block, by part.
    pub fn image_parts(&self, config: &DecisionConfig, blocks: &[BlockKept]) -> MacsParts {
        let mut parts = MacsParts {
            patch_embed: self.embed_macs,
            head: self.head_macs,
            ..MacsParts::default()
        };
        for (block, &kept) in blocks.iter().enumerate() {
            parts.add(&self.block_parts(config, block, kept));
        }
        parts
    }

    /// MACs of one image that keeps `blocks`, one entry per block, in total.
    pub fn image_macs(&self, config: &DecisionConfig, blocks: &[BlockKept]) -> u64 {
        self.image_parts(config, blocks).total()
    }

    /// MACs of block `block` for an image that keeps `kept` of it, by part.
    pub fn block_parts(&self, config: &DecisionConfig, block: usize, kept: BlockKept) -> MacsParts {
        let formula = self.formula(config, block);
        let tokens = kept.tokens() as u64;
        let rows = if config.ada_token_with_mlp {
            tokens
        } else {
            self.num_tokens as u64
        };
        let counts = Kept {
            tokens,
            channels: (kept.heads * (self.embed_dim / self.num_heads)) as u64,
            rows,
            any_head: u64::from(kept.heads > 0),
        };
        let mut parts = MacsParts {
            decisions: self.decision_macs(config, block),
            ..MacsParts::default()
        };
        if kept.attention {
            let Ok(moments) = counts.moments();
            Ok(parts.qkv) = formula.maps(formula.qkv(), &counts, &moments);
            Ok(parts.attention) = moments.products();
            Ok(parts.proj) = formula.maps(formula.proj(), &counts, &moments);
        }
        if kept.mlp {
            Ok(parts.mlp) = formula.mlp(&counts);
        }
        parts
    }

    /// MACs of the decision networks of block `block`, which run whatever they decide, and of the
    /// allocator before it.
    pub(crate) fn decision_macs(&self, config: &DecisionConfig, block: usize) -> u64 {
        let (mut gates, mut shifts) = (0, 0);
        if config.gates_sublayers(block) {
            gates += 2;
            shifts += 2;
        }
        if config.gates_heads(block).is_some() {
            gates += self.num_heads;
            shifts += self.num_heads;
        }
        if config.gates_tokens(block) {
            gates += self.num_tokens - 1;
            shifts += 1;
        }
        if let Some(allocator) = &config.allocator
            && block == FIRST_ALLOCATED
        {
            gates += allocator.knots.len();
        }
        let inputs = config.budget_input.map_or(0, |_| BUDGET_FEATURES);
        (gates * self.embed_dim + shifts * inputs) as u64
    }

    /// The formula for block `block`.
    pub(crate) fn formula(&self, config: &DecisionConfig, block: usize) -> BlockFormula {
        BlockFormula {
            embed_dim: self.embed_dim,
            hidden_dim: self.hidden_dim,
            heads: config.gates_heads(block),
        }
    }
}
