//! The budget in multiply-adds: what a batch costs, with the gradient of its gates.
//!
//! ```text
//! share_i = (embedding + head + sum_blocks (decisions + a_i A(k_i, h_i) + m_i M(k_i, h_i))) / dense
//! loss    = w d(mean_i share_i, target)
//! ```
//!
//! A and M are the `exact` counts of [`Geometry::block_parts`] as functions of the gates, so the
//! loss weighs every gate by what it costs where it stands, and leaves to the task which axis
//! saves it. The published loss asks for a usage of each axis instead: [`crate::UsageLoss`].

use candle_core::{D, DType, Device, Result, Tensor, bail};

use crate::{Decision, DecisionConfig, Deviation, Geometry, HeadDeactivation};

/// The budget loss in multiply-adds of one model.
#[derive(Debug, Clone)]
pub struct MacsLoss {
    geometry: Geometry,
    config: DecisionConfig,
    weight: f64,
    deviation: Deviation,
}

impl MacsLoss {
    /// Makes the loss of a model of `geometry` that decides as `config` says.
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

    /// The weighted deviation of the batch's mean share from `target`; a scalar with gradient.
    ///
    /// # Errors
    /// If `decisions` has not one entry per block, or no gate at all.
    pub fn compute(&self, decisions: &[Decision], target: f64) -> Result<Tensor> {
        let share = self.shares(decisions)?.mean_all()?;
        self.deviation.of(&share, target)? * self.weight
    }

    /// The `exact` multiply-adds of each image over those of the plain model, `(B,)`, with the
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

    /// What one block costs of each image, `(B,)`.
    fn block(&self, block: usize, decision: &Decision, ones: &Tensor) -> Result<Tensor> {
        let (geometry, policy) = (&self.geometry, &decision.policy);
        let [n, c, r] =
            [geometry.num_tokens, geometry.embed_dim, geometry.hidden_dim].map(|size| size as f64);
        let t = match policy.tokens() {
            Some(gates) => gates.sum(D::Minus1)?,
            None => (ones * n)?,
        };
        // The kept channels, h D.
        let w = match policy.heads() {
            Some(gates) => (gates.mean(D::Minus1)? * c)?,
            None => (ones * c)?,
        };
        let mode = self.config.gates_heads(block);
        let tw = (&t * &w)?;
        let attention = match mode {
            Some(HeadDeactivation::Partial) => {
                (((&tw + (&t * c)?)? * (2.0 * c))? + (&t * &tw)? * 2.0)?
            }
            _ => ((&tw * (4.0 * c))? + ((&t * &tw)? * 2.0)?)?,
        };
        let rows = if self.config.ada_token_with_mlp {
            t
        } else {
            (ones * n)?
        };
        let mlp = match mode {
            Some(HeadDeactivation::Full) => {
                let any = w.detach().gt(0.0)?.to_dtype(w.dtype())?;
                (&rows * ((&w + (any * c)?)? * r)?)?
            }
            Some(HeadDeactivation::HeadV2) => (&rows * (w * (2.0 * r))?)?,
            Some(HeadDeactivation::Partial) | None => (rows * (2.0 * c * r))?,
        };
        let (attention, mlp) = match policy.sublayers() {
            Some(gates) => {
                let gate = |index: usize| gates.narrow(1, index, 1)?.squeeze(1);
                ((attention * gate(0)?)?, (mlp * gate(1)?)?)
            }
            None => (attention, mlp),
        };
        let decisions = geometry
            .block_parts(&self.config, block, geometry.all())
            .decisions;
        (attention + mlp)? + decisions as f64
    }
}

/// Ones for the images of a block with gates.
fn ones(decision: &Decision) -> Option<Result<Tensor>> {
    let policy = &decision.policy;
    let gates = policy.tokens().or(policy.heads()).or(policy.sublayers())?;
    let (dtype, device): (DType, &Device) = (gates.dtype(), gates.device());
    Some(gates.dim(0).and_then(|b| Tensor::ones(b, dtype, device)))
}

#[cfg(test)]
mod tests {
    use adavit_gumbel::SeededNoise;
    use candle_core::Var;

    use super::*;
    use crate::{BlockLogits, BlockPolicy, BlockUsage, random_policy};

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
            let used = policy.usage(40, GEOMETRY.num_tokens, GEOMETRY.num_heads)?;
            let decisions: Vec<Decision> = policy.blocks.into_iter().map(decided).collect();
            let loss = MacsLoss::new(&GEOMETRY, &config, 2.0, Deviation::Squared)?;
            let shares = loss.shares(&decisions)?.to_vec1::<f32>()?;
            let mut mean = 0.0;
            for (share, used) in shares.iter().zip(&used) {
                let macs = GEOMETRY.image_macs(&config, used) as f64;
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
            loss.compute(&decisions, 0.1)
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
