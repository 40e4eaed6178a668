//! The MACs loss: how far what a batch costs is from the budget, with the gradient of its gates.
//!
//! ```text
//! share_i = (embedding + head + sum_blocks (decisions + a_i A(k_i, h_i) + m_i M(k_i, h_i))) / dense
//! loss    = w d(mean_i share_i, target)           one budget for the mean of all images
//!         = w mean_i d(share_i, target_i)         a budget for each image
//! ```
//!
//! A and M are the `exact` counts of [`Geometry::block_parts`] as functions of the gates. So the
//! loss weighs every gate by what it costs in its place, and the task decides which axis saves.
//! The published loss sets a usage for each axis instead: [`UsageLoss`](crate::UsageLoss).

use candle_core::{D, Result, Tensor, bail};

use crate::config::DecisionConfig;
use crate::cost::formula::Kept;
use crate::cost::macs::Geometry;
use crate::loss::deviation::Deviation;
use crate::network::Decision;

/// The MACs loss of one model.
#[derive(Debug, Clone)]
pub struct MacsLoss {
    geometry: Geometry,
    config: DecisionConfig,
    weight: f64,
    deviation: Deviation,
}

impl MacsLoss {
    /// Makes the loss of a model of sizes `geometry` and decisions `config`.
    ///
    /// # Errors
    /// If `weight` is not a finite number of at least 0.
    pub fn new(
        geometry: &Geometry,
        config: &DecisionConfig,
        weight: f64,
        deviation: Deviation,
    ) -> Result<Self> {
        if !(weight.is_finite() && weight >= 0.0) {
            bail!("macs loss: expected a finite weight of at least 0, found {weight}");
        }
        Ok(Self {
            geometry: geometry.clone(),
            config: config.clone(),
            weight,
            deviation,
        })
    }

    /// Returns the weighted deviation of the batch's mean share from `target`, a scalar with
    /// gradient.
    ///
    /// # Errors
    /// If `decisions` has not one entry per block, or no block has gates.
    pub fn compute(&self, decisions: &[Decision], target: f64) -> Result<Tensor> {
        let share = self.shares(decisions)?.mean_all()?;
        self.deviation.of(&share, target)? * self.weight
    }

    /// As [`Self::compute`] with a target of its own for each image: the weighted mean over images
    /// of the deviation of each image's share from its target.
    ///
    /// # Errors
    /// As for [`Self::compute`], or if there is not one target for each image.
    pub fn compute_each(&self, decisions: &[Decision], targets: &[f64]) -> Result<Tensor> {
        let shares = self.shares(decisions)?;
        if shares.dims() != [targets.len()] {
            bail!(
                "macs loss: expected a target for each of {:?} images, found {}",
                shares.dims(),
                targets.len()
            );
        }
        let targets = Tensor::new(targets, shares.device())?.to_dtype(shares.dtype())?;
        let deviation = self.deviation.measure(&(shares - targets)?)?;
        deviation.mean_all()? * self.weight
    }

    /// Returns the `exact` MACs of each image over those of the dense model, `(B,)`, with the
    /// gradient of its gates.
    ///
    /// # Errors
    /// As for [`Self::compute`].
    pub fn shares(&self, decisions: &[Decision]) -> Result<Tensor> {
        if decisions.len() != self.geometry.depth {
            bail!(
                "macs loss: expected the decisions of {} blocks, found {}",
                self.geometry.depth,
                decisions.len()
            );
        }
        let Some(ones) = decisions.iter().find_map(ones).transpose()? else {
            bail!("macs loss: expected a block with gates, found none");
        };
        let fixed = (self.geometry.embed_macs + self.geometry.head_macs) as f64;
        let mut sum = (&ones * fixed)?;
        for (block, decision) in decisions.iter().enumerate() {
            sum = (sum + self.block(block, decision, &ones)?)?;
        }
        sum / self.geometry.dense_macs() as f64
    }

    /// Returns what one block costs for each image, `(B,)`.
    fn block(&self, block: usize, decision: &Decision, ones: &Tensor) -> Result<Tensor> {
        let (geometry, policy) = (&self.geometry, &decision.policy);
        let formula = geometry.formula(&self.config, block);
        let kept = self.kept(decision, ones)?;
        let attention = formula.attention(&kept, &kept.moments()?)?;
        let mlp = formula.mlp(&kept)?;
        let (attention, mlp) = match policy.sublayers() {
            Some(gates) => {
                let gate = |index: usize| gates.narrow(1, index, 1)?.squeeze(1);
                ((attention * gate(0)?)?, (mlp * gate(1)?)?)
            }
            None => (attention, mlp),
        };
        (attention + mlp)? + geometry.decision_macs(&self.config, block) as f64
    }

    /// Returns what each image keeps of a block, `(B,)` each.
    fn kept(&self, decision: &Decision, ones: &Tensor) -> Result<Kept<Tensor>> {
        let (n, c) = (
            self.geometry.num_tokens as f64,
            self.geometry.embed_dim as f64,
        );
        let tokens = match decision.policy.tokens() {
            Some(gates) => gates.sum(D::Minus1)?,
            None => (ones * n)?,
        };
        let channels = match decision.policy.heads() {
            Some(gates) => (gates.mean(D::Minus1)? * c)?,
            None => (ones * c)?,
        };
        let rows = if self.config.ada_token_with_mlp {
            tokens.clone()
        } else {
            (ones * n)?
        };
        let any_head = channels.detach().gt(0.0)?.to_dtype(channels.dtype())?;
        Ok(Kept {
            tokens,
            channels,
            rows,
            any_head,
        })
    }
}

/// Ones, one for each image of a block with gates.
fn ones(decision: &Decision) -> Option<Result<Tensor>> {
    let gates = decision.policy.any_gates()?;
    Some(
        gates
            .dim(0)
            .and_then(|b| Tensor::ones(b, gates.dtype(), gates.device())),
    )
}

#[cfg(test)]
mod tests {
    use adavit_gumbel::SeededNoise;
    use candle_core::{Device, Var};

    use super::*;
    use crate::config::HeadDeactivation;
    use crate::cost::usage::BlockUsage;
    use crate::network::BlockLogits;
    use crate::policy::block::BlockPolicy;
    use crate::policy::random::random_policy;

    const GEOMETRY: Geometry = Geometry {
        num_tokens: 5,
        embed_dim: 8,
        depth: 3,
        num_heads: 2,
        hidden_dim: 24,
        embed_macs: 100,
        head_macs: 30,
    };

    fn configs() -> Vec<DecisionConfig> {
        let modes = [
            None,
            Some(HeadDeactivation::Full),
            Some(HeadDeactivation::Partial),
            Some(HeadDeactivation::HeadV2),
        ];
        modes
            .into_iter()
            .flat_map(|ada_head| {
                [false, true].map(|ada_token_with_mlp| DecisionConfig {
                    ada_token_with_mlp,
                    ada_head,
                    ..DecisionConfig::default()
                })
            })
            .collect()
    }

    fn decided(policy: BlockPolicy) -> Decision {
        Decision {
            policy,
            logits: BlockLogits::default(),
        }
    }

    #[test]
    fn hard_gates_cost_their_exact_multiply_adds() -> Result<()> {
        let half = BlockUsage {
            tokens: 0.5,
            heads: 0.5,
            attention: 0.5,
            mlp: 0.5,
        };
        for config in configs() {
            let mut noise = SeededNoise::new(1, 0, &(0..40).collect::<Vec<_>>());
            let policy = random_policy(&config, &GEOMETRY, &[half; 3], &mut noise, 40)?;
            let kept = policy.kept(&GEOMETRY, 40)?;
            let decisions: Vec<Decision> = policy.blocks.into_iter().map(decided).collect();
            let loss = MacsLoss::new(&GEOMETRY, &config, 2.0, Deviation::Squared)?;
            let shares = loss.shares(&decisions)?.to_vec1::<f32>()?;
            let mut mean = 0.0;
            for (share, kept) in shares.iter().zip(&kept) {
                let macs = GEOMETRY.image_macs(&config, kept) as f64;
                let expected = macs / GEOMETRY.dense_macs() as f64;
                // f32 sums of a few thousands.
                assert!((f64::from(*share) - expected).abs() < 1e-6, "{config:?}");
                mean += expected / 40.0;
            }
            let value = loss.compute(&decisions, 0.25)?.to_scalar::<f32>()?;
            assert!((f64::from(value) - 2.0 * (mean - 0.25).powi(2)).abs() < 1e-6);
        }
        Ok(())
    }

    #[test]
    fn gradients_are_those_of_finite_differences() -> Result<()> {
        let config = DecisionConfig::default();
        let loss = MacsLoss::new(&GEOMETRY, &config, 1.0, Deviation::Absolute)?;
        assert_gradients(&|decisions| loss.compute(decisions, 0.1))?;
        let loss = MacsLoss::new(&GEOMETRY, &config, 3.0, Deviation::Squared)?;
        assert_gradients(&|decisions| loss.compute_each(decisions, &[0.1, 0.7]))
    }

    #[test]
    fn each_image_has_its_own_target() -> Result<()> {
        let config = DecisionConfig::default();
        let loss = MacsLoss::new(&GEOMETRY, &config, 2.0, Deviation::Squared)?;
        let all = BlockUsage {
            tokens: 1.0,
            heads: 1.0,
            attention: 0.5,
            mlp: 0.5,
        };
        let mut noise = SeededNoise::new(1, 0, &[0, 1, 2]);
        let policy = random_policy(&config, &GEOMETRY, &[all; 3], &mut noise, 3)?;
        let decisions: Vec<Decision> = policy.blocks.into_iter().map(decided).collect();
        let shares = loss.shares(&decisions)?.to_vec1::<f32>()?;
        let targets = [0.2, 0.5, 0.9];
        let squares = shares.iter().zip(targets);
        let squares = squares.map(|(share, target)| (f64::from(*share) - target).powi(2));
        let expected = 2.0 * squares.sum::<f64>() / 3.0;
        let found = loss
            .compute_each(&decisions, &targets)?
            .to_scalar::<f32>()?;
        assert!((f64::from(found) - expected).abs() < 1e-6);
        assert!(loss.compute_each(&decisions, &[0.5]).is_err());
        Ok(())
    }

    /// Compares the gradients of a loss with finite differences, in f64.
    fn assert_gradients(loss: &dyn Fn(&[Decision]) -> Result<Tensor>) -> Result<()> {
        let patches = Var::new(
            &[[0.25f64, 0.5, 1.0, 0.0], [1.0, 0.5, 0.5, 0.75]],
            &Device::Cpu,
        )?;
        let heads = Var::new(&[[0.5f64, 1.0], [0.25, 0.5]], &Device::Cpu)?;
        let sublayers = Var::new(&[[1.0f64, 0.5], [0.75, 1.0]], &Device::Cpu)?;
        let value = |patches: &Tensor, heads: &Tensor, sublayers: &Tensor| {
            let block = || {
                let policy =
                    BlockPolicy::new(Some(patches), Some(heads.clone()), Some(sublayers.clone()))?;
                Ok(decided(policy))
            };
            let decisions = (0..3).map(|_| block()).collect::<Result<Vec<_>>>()?;
            loss(&decisions)
        };
        let gradients = value(&patches, &heads, &sublayers)?.backward()?;
        for which in 0..3 {
            let vars = [&patches, &heads, &sublayers];
            let found = gradients
                .get(vars[which])
                .expect("every gate has a gradient");
            let found = found.flatten_all()?.to_vec1::<f64>()?;
            for (at, found) in found.iter().enumerate() {
                let moved = |by: f64| -> Result<f64> {
                    let mut tensors = vars.map(|var| var.as_tensor().clone());
                    let mut values = tensors[which].flatten_all()?.to_vec1::<f64>()?;
                    values[at] += by;
                    tensors[which] =
                        Tensor::from_vec(values, tensors[which].shape(), &Device::Cpu)?;
                    value(&tensors[0], &tensors[1], &tensors[2])?.to_scalar::<f64>()
                };
                let expected = (moved(1e-6)? - moved(-1e-6)?) / 2e-6;
                assert!((found - expected).abs() < 1e-7, "{which} {at}");
            }
        }
        Ok(())
    }
}
