//! What a model makes of the allowance of a call.

use adavit_decision::{Allowance, Budgets, Ceiling, Decision, DecisionConfig, HardPolicy};
use candle_core::{Result as CandleResult, Tensor};

use crate::config::ModelConfig;
use crate::error::{Error, Result};

/// The least that a budget lies above what no gate saves.
const ABOVE_FLOOR: f64 = 0.03;

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
    /// If it allows fewer MACs than [`Self::floor_macs`], or asks for a budget that is not in (0, 1]
    /// or that the model does not take, or to allocate without an allocator.
    pub fn check_allowance(&self, allowance: &Allowance) -> Result<()> {
        if let Some(budgets) = &allowance.budget {
            self.expect_budget_input()?;
            let batch = match budgets {
                Budgets::Same(_) | Budgets::Allocated { .. } => 1,
                Budgets::Each(budgets) => budgets.len(),
            };
            self.expect_allocator(budgets)?;
            check_budgets(budgets, batch)?;
        }
        let floor = self.floor_macs();
        match allowance.max_macs {
            Some(max_macs) if max_macs < floor => Err(Error::Input(format!(
                "max_macs: expected at least {floor}, what an image costs with every gate off ({:.4} \
                 of the dense model), found {max_macs}",
                self.floor_share()
            ))),
            _ => Ok(()),
        }
    }

    /// Fails unless the decision networks take a budget.
    pub(crate) fn expect_budget_input(&self) -> Result<()> {
        let takes = self
            .decisions
            .as_ref()
            .is_some_and(|own| own.budget_input.is_some());
        if takes {
            return Ok(());
        }
        Err(Error::Input(
            "budget: expected an elastic model, whose decision networks take a budget, found one \
             that was trained for one budget; calibrate it for another one, or train an elastic one"
                .into(),
        ))
    }

    /// Fails if budgets are to be allocated, and nothing does that.
    fn expect_allocator(&self, budgets: &Budgets) -> Result<()> {
        let decisions = self.decisions.as_ref();
        let allocator = decisions.and_then(|own| own.allocator.as_ref());
        if allocator.is_some() || !matches!(budgets, Budgets::Allocated { .. }) {
            return Ok(());
        }
        Err(Error::Input(
            "budget: expected a model with an allocator, found one that gives every image the same \
             budget; fit an allocator first"
                .into(),
        ))
    }

    /// The budgets of a call of `batch` images: what it asks for, or the model's own; none if the
    /// model takes none.
    ///
    /// # Errors
    /// If it asks for other budgets than one in (0, 1] for each image.
    pub(crate) fn budgets(&self, allowance: &Allowance, batch: usize) -> Result<Option<Budgets>> {
        let decisions = self.decisions.as_ref();
        let Some(own) = decisions.and_then(|decisions| decisions.budget_input) else {
            return Ok(None);
        };
        let allocator = decisions.and_then(|decisions| decisions.allocator.as_ref());
        let own = || match allocator {
            Some(allocator) => allocator.asked_for(allocator.budget),
            None => Budgets::Same(own),
        };
        let budgets = allowance.budget.clone().unwrap_or_else(own);
        self.expect_allocator(&budgets)?;
        check_budgets(&budgets, batch)?;
        Ok(Some(budgets))
    }

    /// Begins the ceiling of a batch of `batch` images, if the allowance has one.
    pub(crate) fn ceiling(&self, allowance: &Allowance, batch: usize) -> Result<Option<Ceiling>> {
        let (decisions, geometry) = (self.decisions_or_none(), self.geometry());
        let begin = |max_macs| Ceiling::new(max_macs, &decisions, &geometry, batch);
        Ok(allowance.max_macs.map(begin).transpose()?)
    }

    /// Returns the smallest budget that an elastic model is asked for: 0.03 above
    /// [`Self::floor_macs`], over the dense model's MACs.
    pub fn smallest_budget(&self) -> f64 {
        (self.floor_share() + ABOVE_FLOOR).min(1.0)
    }

    fn floor_share(&self) -> f64 {
        self.floor_macs() as f64 / self.geometry().dense_macs() as f64
    }

    /// Returns what to ask for so that the mean MACs of images are `budget` of the dense model's:
    /// allocated to the images, if the model has an allocator, else the same for all.
    ///
    /// # Errors
    /// As for [`Self::input_for_budget`].
    pub fn budgets_for(&self, budget: f64) -> Result<Budgets> {
        let input = self.input_for_budget(budget)?;
        let decisions = self.decisions.as_ref();
        let allocator = decisions.and_then(|own| own.allocator.as_ref());
        Ok(allocator.map_or(Budgets::Same(input), |own| own.asked_for(budget)))
    }

    /// Returns the budget to ask the decision networks for, the same for every image, so that the
    /// mean MACs of images are `budget` of the dense model's, by [`Self::budget_curve`].
    ///
    /// # Errors
    /// If the model is not elastic, or `budget` is not between [`Self::smallest_budget`] and 1.
    pub fn input_for_budget(&self, budget: f64) -> Result<f64> {
        self.expect_budget_input()?;
        let smallest = self.smallest_budget();
        if !(budget >= smallest && budget <= 1.0) {
            let floor = self.floor_share();
            return Err(Error::Input(format!(
                "budget: expected a number in [{smallest:.4}, 1], which begins {ABOVE_FLOOR} above \
                 the floor of {floor:.4} that an image costs with every gate off, found {budget}"
            )));
        }
        let curve = self.budget_curve.as_ref();
        Ok(curve.map_or(budget, |curve| curve.asked_for(budget)))
    }
}

/// The features of the budgets of a call, `(B, F)`, of the dtype and on the device of `xs`.
pub(crate) fn budget_features(budgets: &Budgets, xs: &Tensor) -> CandleResult<Tensor> {
    let features = budgets.features(xs.dim(0)?)?.to_dtype(xs.dtype())?;
    features.to_device(xs.device())
}

fn check_budgets(budgets: &Budgets, batch: usize) -> Result<()> {
    let checked = budgets.check(batch);
    checked.map_err(|error| Error::Input(error.to_string()))
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
