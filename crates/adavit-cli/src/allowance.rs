//! What the options of a command allow each image to cost.

use adavit_decision::Allowance;
use adavit_model::ModelConfig;
use anyhow::Result;

use crate::values::MaxMacs;

/// Returns the allowance of a model of `config`.
///
/// # Errors
/// If the model cannot keep to it.
pub(crate) fn allowance(config: &ModelConfig, max_macs: Option<MaxMacs>) -> Result<Allowance> {
    let dense = config.geometry().dense_macs();
    let allowance = Allowance {
        max_macs: max_macs.map(|most| most.macs(dense)),
    };
    config.check_allowance(&allowance)?;
    Ok(allowance)
}
