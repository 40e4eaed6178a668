//! The cost of a policy, in multiply-adds (1 MAC = 2 FLOPs), per image.
//!
//! With t kept tokens (class token included), h kept heads, w = h D and R = fc1's width, `exact`
//! counts in a block
//!
//! ```text
//! decisions   2C (sub-layers) + HC (heads) + (N-1)C (tokens), for the gates that it has
//! attention   full, head_v2  3tCw + 2t²w + twC        partial  2tCw + tC² + 2t²w + tC²
//! MLP         full  n(wR + RC), 0 where h = 0          head_v2  2nC(h/H)R
//!             partial, or without head gates  2nCR
//! ```
//!
//! with n = t if tokens gate the MLP and N if not. Norms, softmax and activations are not counted,
//! as in timm and fvcore. `paper` is what the tables of the published code hold.

use serde::{Deserialize, Serialize};

use crate::{BlockUse, DecisionConfig, HeadDeactivation};

/// The sizes of a model that its cost depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Geometry {
    /// N, class token included.
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

/// How the accounting of the published tables counts tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PaperRounding {
    /// As the tables do: as N (t / N) in float32, cut to an integer, which loses a token where the
    /// product falls below t (of 197 tokens at 13, 26, 51, 52, 53, 102, 104, 106, 117, 119, 121).
    #[default]
    Published,
    /// Every token.
    Exact,
}

/// MACs by where they go, of one image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
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
    /// The sum of all parts.
    pub fn total(&self) -> u64 {
        self.named().iter().map(|&(_, macs)| macs).sum()
    }

    /// Every part under its name, in the order of the forward.
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
    /// What a block uses when nothing is skipped.
    pub fn all(&self) -> BlockUse {
        BlockUse {
            tokens: self.num_tokens,
            heads: self.num_heads,
            attention: true,
            mlp: true,
        }
    }

    /// MACs of the plain model, without decision networks.
    pub fn dense_parts(&self) -> MacsParts {
        self.image_parts(&DecisionConfig::none(), &vec![self.all(); self.depth])
    }

    /// MACs of the plain model in total: what "saved" is measured against.
    pub fn dense_macs(&self) -> u64 {
        self.dense_parts().total()
    }

    /// MACs of one image that uses `blocks`, by part.
    pub fn image_parts(&self, config: &DecisionConfig, blocks: &[BlockUse]) -> MacsParts {
        let mut parts = MacsParts {
            patch_embed: self.embed_macs,
            head: self.head_macs,
            ..MacsParts::default()
        };
        for (block, &used) in blocks.iter().enumerate() {
            parts.add(&self.block_parts(config, block, used));
        }
        parts
    }

    /// MACs of one image that uses `blocks`, in total.
    pub fn image_macs(&self, config: &DecisionConfig, blocks: &[BlockUse]) -> u64 {
        self.image_parts(config, blocks).total()
    }

    /// MACs of block `block` for an image that uses `used` of it, by part.
    pub fn block_parts(&self, config: &DecisionConfig, block: usize, used: BlockUse) -> MacsParts {
        let [n_all, c, h_all, r] = [
            self.num_tokens,
            self.embed_dim,
            self.num_heads,
            self.hidden_dim,
        ]
        .map(|size| size as u64);
        let (t, h) = (used.tokens as u64, used.heads as u64);
        let w = h * (c / h_all);
        let heads = config.gates_heads(block);
        let mut parts = MacsParts::default();
        if config.gates_sublayers(block) {
            parts.decisions += 2 * c;
        }
        if heads.is_some() {
            parts.decisions += h_all * c;
        }
        if config.gates_tokens(block) {
            parts.decisions += (n_all - 1) * c;
        }
        if used.attention {
            let partial = heads == Some(HeadDeactivation::Partial);
            parts.qkv = if partial {
                2 * t * c * w + t * c * c
            } else {
                3 * t * c * w
            };
            parts.attention = 2 * t * t * w;
            parts.proj = if partial { t * c * c } else { t * w * c };
        }
        if used.mlp {
            let n = if config.ada_token_with_mlp { t } else { n_all };
            parts.mlp = match heads {
                Some(HeadDeactivation::Full) if h == 0 => 0,
                Some(HeadDeactivation::Full) => n * (w * r + r * c),
                Some(HeadDeactivation::HeadV2) => 2 * n * c * (r / h_all) * h,
                Some(HeadDeactivation::Partial) | None => 2 * n * c * r,
            };
        }
        parts
    }

    /// MACs of one block as the published tables count them: the projection as t w², 5NC for a
    /// LayerNorm where attention runs and for one always, nothing without heads or tokens, gates
    /// free.
    pub fn paper_block_macs(&self, used: BlockUse, rounding: PaperRounding) -> u64 {
        if used.heads == 0 || used.tokens == 0 {
            return 0;
        }
        let n_all = self.num_tokens as f32;
        let t = match rounding {
            PaperRounding::Published => (n_all * (used.tokens as f32 / n_all)) as u64,
            PaperRounding::Exact => used.tokens as u64,
        };
        let (c, r) = (self.embed_dim as u64, self.hidden_dim as u64);
        let w = used.heads as u64 * (c / self.num_heads as u64);
        let norm = 5 * self.num_tokens as u64 * c;
        let mut macs = norm;
        if used.attention {
            macs += 3 * t * c * w + 2 * t * t * w + t * w * w + norm;
        }
        if used.mlp {
            macs += t * (w * r + r * c);
        }
        macs
    }

    /// The mean `exact` MACs of an image whose every gate is on with probability `usage`
    /// independently of the others, over those of the plain model.
    pub fn expected_share(&self, config: &DecisionConfig, usage: f64) -> f64 {
        let dense = self.dense_macs() as f64;
        let fixed = (self.embed_macs + self.head_macs) as f64;
        let blocks: f64 = (0..self.depth)
            .map(|block| self.expected_block(config, block, usage))
            .sum();
        (fixed + blocks) / dense
    }

    fn expected_block(&self, config: &DecisionConfig, block: usize, usage: f64) -> f64 {
        let decisions = self.block_parts(config, block, self.all()).decisions as f64;
        let (n, c, r) = (
            self.num_tokens as f64,
            self.embed_dim as f64,
            self.hidden_dim as f64,
        );
        let heads = config.gates_heads(block);
        let patch = if config.gates_tokens(block) {
            usage
        } else {
            1.0
        };
        let head = if heads.is_some() { usage } else { 1.0 };
        let gate = if config.gates_sublayers(block) {
            usage
        } else {
            1.0
        };
        let t = 1.0 + (n - 1.0) * patch;
        let t_squared = t * t + (n - 1.0) * patch * (1.0 - patch);
        let w = head * c;
        let any_head = 1.0 - (1.0 - head).powf(self.num_heads as f64);
        let attention = if heads == Some(HeadDeactivation::Partial) {
            2.0 * t * c * w + 2.0 * t * c * c + 2.0 * t_squared * w
        } else {
            4.0 * t * c * w + 2.0 * t_squared * w
        };
        let rows = if config.ada_token_with_mlp { t } else { n };
        let mlp = match heads {
            Some(HeadDeactivation::Full) => rows * (w * r + any_head * r * c),
            Some(HeadDeactivation::HeadV2) => 2.0 * rows * w * r,
            Some(HeadDeactivation::Partial) | None => 2.0 * rows * c * r,
        };
        decisions + gate * (attention + mlp)
    }

    /// The usage, the same on every axis, at which [`Self::expected_share`] is `budget`: the
    /// per-axis target of a budget in MACs. 0 or 1 where the budget is out of reach.
    pub fn usage_for_budget(&self, config: &DecisionConfig, budget: f64) -> f64 {
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if self.expected_share(config, middle) < budget {
                low = middle;
            } else {
                high = middle;
            }
        }
        0.5 * (low + high)
    }
}
