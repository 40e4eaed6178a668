//! How the adaptive stage saves compute.

use adavit_decision::BlockUsage;
use adavit_model::TokenReduction;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How the adaptive stage saves compute. A sweep compares the first with the others, which are
/// fine-tuned the same way: for as many epochs, with the same distillation.
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
    /// Returns whether the model makes its own decisions.
    pub fn is_learned(&self) -> bool {
        *self == Self::Learned
    }

    /// Checks that the model makes its own decisions.
    ///
    /// # Errors
    /// [`Error::Setting`] if it does not: only a sweep trains and measures such models.
    pub fn expect_learned(&self) -> Result<()> {
        let found = match self {
            Self::Learned => return Ok(()),
            Self::Random { .. } => "random decisions",
            Self::Reduced { .. } => "token reduction",
        };
        Err(Error::Setting(format!(
            "method: expected a model that makes its own decisions, found {found}, which only a \
             sweep trains and measures"
        )))
    }
}
