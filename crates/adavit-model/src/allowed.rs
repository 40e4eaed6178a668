//! What a model makes of the allowance of a call.

use adavit_decision::{Allowance, Ceiling, Decision, DecisionConfig, HardPolicy};
use candle_core::Result as CandleResult;

use crate::config::ModelConfig;
use crate::error::{Error, Result};

impl ModelConfig {
    /// The decisions, or those of a model that makes none.
    pub(crate) fn decisions_or_none(&self) -> DecisionConfig {
        self.decisions.clone().unwrap_or_else(DecisionConfig::none)
    }

    /// The MACs of an image with every gate off; of a dense model, those of every image.
    pub fn floor_macs(&self) -> u64 {
        self.geometry().floor_macs(&self.decisions_or_none())
    }

    /// Checks that the model can keep to an allowance.
    ///
    /// # Errors
    /// If it allows fewer MACs than [`Self::floor_macs`].
    pub fn check_allowance(&self, allowance: &Allowance) -> Result<()> {
        let floor = self.floor_macs();
        match allowance.max_macs {
            Some(max_macs) if max_macs < floor => Err(Error::Input(format!(
                "max_macs: expected at least {floor}, what an image costs with every gate off ({:.4} \
                 of the dense model), found {max_macs}",
                floor as f64 / self.geometry().dense_macs() as f64
            ))),
            _ => Ok(()),
        }
    }

    /// Begins the ceiling of a batch of `batch` images, if the allowance has one.
    pub(crate) fn ceiling(&self, allowance: &Allowance, batch: usize) -> Result<Option<Ceiling>> {
        let (decisions, geometry) = (self.decisions_or_none(), self.geometry());
        let begin = |max_macs| Ceiling::new(max_macs, &decisions, &geometry, batch);
        Ok(allowance.max_macs.map(begin).transpose()?)
    }
}

/// Keeps the images of a masked forward below their ceiling.
#[derive(Debug)]
pub(crate) struct Limiter {
    ceiling: Ceiling,
    policy: HardPolicy,
}

impl Limiter {
    /// Begins a batch of `batch` images, if the allowance has a ceiling.
    pub(crate) fn new(
        config: &ModelConfig,
        allowance: &Allowance,
        batch: usize,
    ) -> Result<Option<Self>> {
        let ceiling = config.ceiling(allowance, batch)?;
        Ok(ceiling.map(|ceiling| Self {
            ceiling,
            policy: HardPolicy::all(&config.geometry(), batch),
        }))
    }

    /// Returns the decision on block `block`, in which those gates are off that do not fit.
    pub(crate) fn limit(&mut self, block: usize, decision: Decision) -> CandleResult<Decision> {
        self.policy.set_block(block, &decision.policy)?;
        let dropped = self
            .ceiling
            .fit_block(&mut self.policy, block, &decision.logits)?;
        Ok(if dropped {
            Decision {
                policy: self.policy.restrict(block, &decision.policy)?,
                logits: decision.logits,
            }
        } else {
            decision
        })
    }
}
