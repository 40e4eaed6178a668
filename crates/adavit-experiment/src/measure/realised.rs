//! How much of the compute that policies save becomes time: the dense model, the masked path and the
//! sparse path in turn.
//!
//! Policies are Bernoulli per image, block and gate, so a batch is as ragged as a real one. Rounds
//! alternate the three, so that a change in the machine's load affects all of them.

use std::time::Instant;

use adavit_decision::{DecisionConfig, HardPolicy, Policy, Usage, random_policy};
use adavit_gumbel::SeededNoise;
use adavit_model::{
    Checkpoint, ModelConfig, PreparedTransformer, Strategy, Workspace, initial_tensors,
    is_decision_tensor,
};
use adavit_train::median;
use candle_core::Device;

use crate::error::{Error, Result};
use crate::measure::throughput::{Inputs, Workload, images};

/// Images of a round of the sparse path at least, so that their policies vary.
const ROUND_IMAGES: usize = 32;

/// Images that latency is measured over.
const LATENCY_IMAGES: usize = 200;

/// Shares to keep on average, each in (0, 1].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Keep {
    /// Of patch tokens.
    pub tokens: f64,
    /// Of heads.
    pub heads: f64,
    /// Of blocks: attention and MLP.
    pub blocks: f64,
}

/// Speeds and compute under policies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Realised {
    /// Images per second of the dense model, median over rounds.
    pub dense_images_per_s: f64,
    /// Of the masked path.
    pub masked_images_per_s: f64,
    /// Of the sparse path.
    pub sparse_images_per_s: f64,
    /// MACs of the dense model.
    pub dense_macs: u64,
    /// Mean `exact` MACs of the images run.
    pub macs: f64,
    /// Mean MACs that the sparse path did for them.
    pub macs_executed: f64,
    /// Median over rounds of (sparse / dense images per second) / (dense MACs / mean MACs): 1 if
    /// time falls as MACs do.
    pub ratio: f64,
    /// Milliseconds that half of the images take less than, one at a time, by the sparse path.
    pub latency_p50: f64,
    /// Milliseconds that 99 % take less than.
    pub latency_p99: f64,
}

/// An adaptive model with policies to run it under.
#[derive(Debug)]
pub struct AdaptiveWorkload {
    start: Checkpoint,
    keep: Keep,
    strategy: Strategy,
    seed: u64,
    device: Device,
}

impl AdaptiveWorkload {
    /// Takes a preset with every kind of gate; weights, images and policies come from `seed`.
    ///
    /// # Errors
    /// [`Error::Setting`] if a share is outside (0, 1]; [`Error::Model`] if there is no such preset.
    pub fn new(preset: &str, keep: Keep, seed: u64, device: &Device) -> Result<Self> {
        let config = ModelConfig::preset(preset)?.with_decisions(DecisionConfig::default());
        let tensors = initial_tensors(&config, seed, 0.0)?;
        Self::of(Checkpoint { config, tensors }, keep, seed, device)
    }

    /// Takes a checkpoint; a dense one gets untrained decision networks of every kind.
    ///
    /// # Errors
    /// [`Error::Setting`] if a share is outside (0, 1].
    pub fn of(mut start: Checkpoint, keep: Keep, seed: u64, device: &Device) -> Result<Self> {
        for (name, share) in [
            ("tokens", keep.tokens),
            ("heads", keep.heads),
            ("blocks", keep.blocks),
        ] {
            if !(share > 0.0 && share <= 1.0) {
                return Err(Error::Setting(format!(
                    "usage: expected {name} in (0, 1], found {share}"
                )));
            }
        }
        if start.config.decisions.is_none() {
            start.config = start.config.with_decisions(DecisionConfig::default());
            let mut decisions = initial_tensors(&start.config, seed, 0.0)?;
            decisions.retain(|name, _| is_decision_tensor(name));
            start.tensors.extend(decisions);
        }
        Ok(Self {
            start,
            keep,
            strategy: Strategy::Auto,
            seed,
            device: device.clone(),
        })
    }

    /// The same with a strategy forced.
    #[must_use]
    pub fn with_strategy(self, strategy: Strategy) -> Self {
        Self { strategy, ..self }
    }

    fn config(&self) -> &ModelConfig {
        &self.start.config
    }

    fn decisions(&self) -> DecisionConfig {
        self.config().decisions.clone().unwrap_or_default()
    }

    fn prepared(&self) -> Result<PreparedTransformer> {
        let mut model = self.start.prepared(&self.device)?;
        model.set_strategy(self.strategy);
        Ok(model)
    }

    /// Draws policies for `count` batches.
    fn policies(&self, batch: usize, count: usize) -> Result<Vec<Policy>> {
        let config = self.config();
        let decisions = self.decisions();
        let usage = Usage {
            tokens: self.keep.tokens,
            heads: self.keep.heads,
            blocks: self.keep.blocks,
            per_block: Vec::new(),
        };
        let usage = usage.in_every_block(config.depth);
        let draw = |index: usize| -> Result<Policy> {
            let first = (index * batch) as u64;
            let samples: Vec<u64> = (first..first + batch as u64).collect();
            let mut noise = SeededNoise::new(self.seed, 0, &samples);
            let policy = random_policy(&decisions, &config.geometry(), &usage, &mut noise, batch)?;
            Ok(policy)
        };
        (0..count)
            .map(|index| Ok(draw(index)?.to_device(&self.device)?))
            .collect()
    }

    fn hard(&self, policies: &[Policy], batch: usize) -> Result<Vec<HardPolicy>> {
        let geometry = self.config().geometry();
        let hard = policies
            .iter()
            .map(|policy| HardPolicy::new(policy, &geometry, batch));
        Ok(hard.collect::<candle_core::Result<_>>()?)
    }

    /// Mean `exact` MACs of the images of some policies.
    fn mean_macs(&self, policies: &[HardPolicy]) -> f64 {
        let (geometry, decisions) = (self.config().geometry(), self.decisions());
        let (mut macs, mut count) = (0, 0);
        for policy in policies {
            for image in 0..policy.batch() {
                macs += geometry.image_macs(&decisions, &policy.image_kept(image));
                count += 1;
            }
        }
        macs as f64 / f64::from(count.max(1))
    }

    /// Returns the masked path under policies of `batch` images, as many as a round takes.
    ///
    /// # Errors
    /// [`Error::Setting`] for an empty batch.
    pub fn masked(&self, batch: usize) -> Result<Workload> {
        let inputs = Inputs {
            images: images(self.config(), batch, self.seed, &self.device)?,
            policies: self.policies(batch, ROUND_IMAGES.div_ceil(batch))?,
        };
        Workload::masked(&self.start, inputs, &self.device)
    }

    /// As [`Self::masked`] by the sparse path.
    ///
    /// # Errors
    /// As for [`Self::masked`].
    pub fn sparse(&self, batch: usize) -> Result<Workload> {
        let images = images(self.config(), batch, self.seed, &self.device)?;
        let policies = self.policies(batch, ROUND_IMAGES.div_ceil(batch))?;
        let policies = self.hard(&policies, batch)?;
        Ok(Workload::sparse(
            self.prepared()?,
            Inputs { images, policies },
        ))
    }

    /// Measures for about `seconds`.
    ///
    /// # Errors
    /// [`Error::Setting`] for an empty batch or if `seconds` is not positive.
    pub fn measure(&self, batch: usize, seconds: f64) -> Result<Realised> {
        if !(seconds > 0.0 && seconds <= 86_400.0) {
            return Err(Error::Setting(format!(
                "seconds: expected more than 0 and at most 86400, found {seconds}"
            )));
        }
        let mut dense = Workload::inference_of(&self.start, batch, self.seed, &self.device)?;
        let (mut masked, mut sparse) = (self.masked(batch)?, self.sparse(batch)?);
        let turns = ROUND_IMAGES.div_ceil(batch);
        let macs = self.mean_macs(&self.hard(&self.policies(batch, turns)?, batch)?);
        for work in [&mut dense, &mut masked, &mut sparse] {
            work.run()?;
        }
        speed(&mut sparse, turns - 1, batch)?;
        sparse.take_macs();
        let mut rounds = Rounds::default();
        let begin = Instant::now();
        while rounds.time_saved.len() < 3 || begin.elapsed().as_secs_f64() < seconds {
            // The dense path runs before and after the sparse one.
            let before = speed(&mut dense, turns, batch)?;
            let found = speed(&mut sparse, turns, batch)?;
            let after = speed(&mut dense, turns, batch)?;
            rounds.dense.extend([before, after]);
            rounds.masked.push(speed(&mut masked, 1, batch)?);
            rounds.sparse.push(found);
            let time_saved = found * (before.recip() + after.recip()) / 2.0;
            rounds.time_saved.push(time_saved);
        }
        let images = rounds.time_saved.len() * turns * batch;
        let latencies = self.latencies()?;
        let dense_macs = dense.macs();
        Ok(Realised {
            dense_images_per_s: median(&mut rounds.dense),
            masked_images_per_s: median(&mut rounds.masked),
            sparse_images_per_s: median(&mut rounds.sparse),
            dense_macs,
            macs,
            macs_executed: sparse.take_macs() as f64 / images as f64,
            ratio: median(&mut rounds.time_saved) * macs / dense_macs as f64,
            latency_p50: latencies[LATENCY_IMAGES / 2],
            latency_p99: latencies[LATENCY_IMAGES * 99 / 100],
        })
    }

    /// Milliseconds of images that come one at a time, ascending.
    fn latencies(&self) -> Result<Vec<f64>> {
        let xs = images(self.config(), 1, self.seed, &self.device)?;
        let policies = self.hard(&self.policies(1, LATENCY_IMAGES)?, 1)?;
        let model = self.prepared()?;
        let mut workspace = Workspace::default();
        model.forward_dense(&xs, &mut workspace)?;
        let mut times = Vec::with_capacity(LATENCY_IMAGES);
        for policy in &policies {
            let start = Instant::now();
            model.forward_sparse_policy(&xs, policy, &mut workspace)?;
            self.device.synchronize()?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        Ok(times)
    }
}

/// Images per second of each path in each round.
#[derive(Default)]
struct Rounds {
    dense: Vec<f64>,
    masked: Vec<f64>,
    sparse: Vec<f64>,
    /// The dense model's time over that of the sparse path.
    time_saved: Vec<f64>,
}

/// Images per second of some runs, each of `batch` images.
fn speed(work: &mut Workload, runs: usize, batch: usize) -> Result<f64> {
    let start = Instant::now();
    for _ in 0..runs {
        work.run()?;
    }
    Ok((runs * batch) as f64 / start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Keep = Keep {
        tokens: 0.5,
        heads: 0.5,
        blocks: 0.75,
    };

    #[test]
    fn the_executed_multiply_adds_are_those_of_the_policies() {
        let adaptive = AdaptiveWorkload::new("nano_patch7_28", KEEP, 1, &Device::Cpu).unwrap();
        let found = adaptive.measure(3, 0.01).unwrap();
        assert!((found.macs_executed - found.macs).abs() < 0.5);
        assert!(found.macs < 0.6 * found.dense_macs as f64);
        for speed in [
            found.dense_images_per_s,
            found.masked_images_per_s,
            found.sparse_images_per_s,
            found.ratio,
        ] {
            assert!(speed > 0.0);
        }
        assert!(found.latency_p50 > 0.0 && found.latency_p50 <= found.latency_p99);
    }

    #[test]
    fn shares_outside_of_their_range_and_empty_batches_are_refused() {
        for keep in [
            Keep {
                tokens: 0.0,
                ..KEEP
            },
            Keep { heads: 1.1, ..KEEP },
            Keep {
                blocks: f64::NAN,
                ..KEEP
            },
        ] {
            assert!(
                AdaptiveWorkload::new("nano_patch7_28", keep, 1, &Device::Cpu)
                    .unwrap_err()
                    .is_input_error()
            );
        }
        let adaptive = AdaptiveWorkload::new("nano_patch7_28", KEEP, 1, &Device::Cpu).unwrap();
        assert!(adaptive.measure(0, 1.0).unwrap_err().is_input_error());
        assert!(adaptive.measure(1, 0.0).unwrap_err().is_input_error());
    }
}
