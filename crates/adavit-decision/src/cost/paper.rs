//! The `paper` accounting: what the tables of the published code hold.
//!
//! It is another formula than the `exact` one, with known faults, and serves to reproduce the
//! published numbers.

use crate::cost::macs::Geometry;
use crate::policy::kept::BlockKept;

/// How the `paper` accounting rounds the number of kept tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PaperRounding {
    /// As the published tables: N (t / N) in float32, truncated to an integer. That loses a token
    /// where the product falls below t (of 197 tokens at 13, 26, 51, 52, 53, 102, 104, 106, 117,
    /// 119 and 121).
    #[default]
    Published,
    /// Counts every token.
    Exact,
}

impl Geometry {
    /// MACs of one block as the published tables count them. The projection costs t w². A
    /// LayerNorm costs 5NC: one always, and one more where attention runs. A block without heads
    /// costs nothing, and gates cost nothing.
    pub fn paper_block_macs(&self, kept: BlockKept, rounding: PaperRounding) -> u64 {
        if kept.heads == 0 {
            return 0;
        }
        let n_all = self.num_tokens as f32;
        let t = match rounding {
            PaperRounding::Published => (n_all * (kept.tokens() as f32 / n_all)) as u64,
            PaperRounding::Exact => kept.tokens() as u64,
        };
        let (c, r) = (self.embed_dim as u64, self.hidden_dim as u64);
        let w = kept.heads as u64 * (c / self.num_heads as u64);
        let norm = 5 * self.num_tokens as u64 * c;
        let mut macs = norm;
        if kept.attention {
            macs += 3 * t * c * w + 2 * t * t * w + t * w * w + norm;
        }
        if kept.mlp {
            macs += t * (w * r + r * c);
        }
        macs
    }
}
