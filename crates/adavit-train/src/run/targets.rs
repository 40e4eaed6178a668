//! What the adaptive stage should save, and the losses that make it do so.

use adavit_decision::{Geometry, MacsLoss, UsageLoss};

use crate::config::train_config::TrainConfig;
use crate::error::Result;
use crate::optim::schedule::Ramp;

/// The budget losses of a run.
#[derive(Debug)]
pub(crate) struct BudgetLosses {
    /// Of the usage of each axis; every weight is 0 where only multiply-adds have a target.
    pub(crate) usage: UsageLoss,
    /// Of the multiply-adds, if they have a target.
    pub(crate) macs: Option<MacsLoss>,
    /// Mean `exact` MACs to reach, over those of the dense model.
    pub(crate) share: f64,
    /// When the losses take effect.
    pub(crate) ramp: Ramp,
}

impl BudgetLosses {
    pub(crate) fn new(config: &TrainConfig, geometry: &Geometry) -> Result<Self> {
        let usage = &config.usage;
        // Targets per axis replace the budget.
        let macs = (usage.macs > 0.0 && config.targets.is_none())
            .then(|| {
                MacsLoss::new(
                    geometry,
                    &config.adaptive_decisions(),
                    usage.macs,
                    usage.macs_deviation,
                )
            })
            .transpose()?;
        Ok(Self {
            usage: config.usage_loss(geometry),
            macs,
            share: config.budget,
            ramp: usage.ramp,
        })
    }
}
