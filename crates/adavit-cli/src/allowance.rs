//! What the options of a command allow each image to cost.

use adavit_decision::{Allowance, Budgets};
use adavit_model::ModelConfig;
use anyhow::Result;

use crate::values::{MaxMacs, max_macs};

/// What each image may cost, and what images cost on average.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct AllowanceArgs {
    /// The most MACs of any image: a share of the dense model's in (0, 1], or MACs as 12M or 2.3G
    /// [default: what the dense model and the decisions cost]
    #[arg(long, value_name = "MACS", value_parser = max_macs)]
    pub(crate) max_macs: Option<MaxMacs>,

    /// Mean compute per image of an elastic checkpoint, in (0, 1]: exact MACs relative to the dense
    /// model [default: the budget of its run]
    #[arg(long, value_name = "B", allow_negative_numbers = true)]
    pub(crate) budget: Option<f64>,

    /// Give every image the same budget, also where the checkpoint has an allocator
    #[arg(long)]
    pub(crate) uniform: bool,
}

impl AllowanceArgs {
    /// Returns the allowance of a model of `config`.
    ///
    /// # Errors
    /// If the model cannot keep to it.
    pub(crate) fn allowance(&self, config: &ModelConfig) -> Result<Allowance> {
        let dense = config.geometry().dense_macs();
        let own = config.decisions.as_ref().and_then(|own| own.budget_input);
        let budgets = match (self.budget, self.uniform) {
            (Some(budget), false) => Some(config.budgets_for(budget)?),
            (Some(budget), true) => Some(Budgets::Same(config.input_for_budget(budget)?)),
            // A checkpoint that is not elastic refuses any.
            (None, true) => Some(Budgets::Same(own.unwrap_or(1.0))),
            (None, false) => None,
        };
        let allowance = Allowance {
            max_macs: self.max_macs.map(|most| most.macs(dense)),
            budget: budgets,
        };
        config.check_allowance(&allowance)?;
        Ok(allowance)
    }
}
