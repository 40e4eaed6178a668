//! What the adaptive stage is asked to save, and how its loss asks for it.

use adavit_decision::{Geometry, MacsLoss, UsageLoss};

use crate::config::train_config::TrainConfig;
use crate::error::Result;
use crate::optim::schedule::Ramp;

/// The budget losses of a run.
#[derive(Debug)]
pub(crate) struct Budget {
    /// The usage of each axis; every weight is 0 where multiply-adds alone are asked for.
    pub(crate) usage: UsageLoss,
    /// The multiply-adds, if they are asked for.
    pub(crate) macs: Option<MacsLoss>,
    /// Mean `exact` MACs to reach, over those of the plain model.
    pub(crate) share: f64,
    /// When the losses come into force.
    pub(crate) ramp: Ramp,
}

impl Budget {
    pub(crate) fn new(config: &TrainConfig, geometry: &Geometry) -> Result<Self> {
        let usage = &config.usage;
        // Targets per axis stand in place of the budget.
        let macs = (usage.macs > 0.0 && config.targets.is_none())
            .then(|| {
                MacsLoss::new(
                    geometry,
                    &config.decisions,
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
