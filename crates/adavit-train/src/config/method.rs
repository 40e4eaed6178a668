//! How the second stage saves compute.

use adavit_decision::BlockUsage;
use adavit_model::TokenReduction;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How the second stage saves compute. All but the first are what the first is compared with, in a
/// sweep: fine-tuned for as long, with the same distillation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Method {
    /// By the model's own decisions, which it learns.
    #[default]
    Learned,
    /// By decisions drawn at random.
    Random {
        /// What is kept on average, one entry per block.
        usage: Vec<BlockUsage>,
    },
    /// By fewer tokens from block to block, without decisions.
    Reduced {
        /// How many, and which.
        reduction: TokenReduction,
    },
}

impl Method {
    /// Whether the model makes its own decisions.
    pub fn is_learned(&self) -> bool {
        *self == Self::Learned
    }

    /// Checks that a model makes its own decisions: what it is compared with is a sweep's to measure.
    ///
    /// # Errors
    /// If it does not.
    pub fn expect_learned(&self) -> Result<()> {
        let found = match self {
            Self::Learned => return Ok(()),
            Self::Random { .. } => "random decisions",
            Self::Reduced { .. } => "token reduction",
        };
        Err(Error::Input(format!(
            "method: expected a model that makes its own decisions, found {found}; `adavit sweep` \
             trains and measures those"
        )))
    }
}
