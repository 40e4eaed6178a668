//! What a forward of the whole model returns, and what it is asked to keep for that.

use adavit_decision::{Decision, Policy};
use candle_core::Tensor;

/// What a forward keeps besides logits and decisions; each costs memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capture {
    /// The hidden state after each block.
    pub hidden: bool,
    /// The class token's hidden state after each block.
    pub class_hidden: bool,
    /// The class token's attention rows in each block.
    pub class_attention: bool,
}

/// What a forward returns.
#[derive(Debug, Clone)]
pub struct Output {
    /// `(B, K)`.
    pub logits: Tensor,
    /// The decisions of each block; all kept, without logits, for the dense path.
    pub decisions: Vec<Decision>,
    /// `(B, N, C)` after each block, if captured.
    pub hidden: Vec<Tensor>,
    /// `(B, C)` after each block, if captured.
    pub class_hidden: Vec<Tensor>,
    /// `(B, H, N)` of each block, if captured.
    pub class_attention: Vec<Tensor>,
}

impl Output {
    /// Logits without anything beside them.
    pub fn of_logits(logits: Tensor) -> Self {
        Self {
            logits,
            decisions: Vec::new(),
            hidden: Vec::new(),
            class_hidden: Vec::new(),
            class_attention: Vec::new(),
        }
    }

    /// The policy of every block.
    pub fn policy(&self) -> Policy {
        Policy {
            blocks: self.decisions.iter().map(|d| d.policy.clone()).collect(),
        }
    }
}
