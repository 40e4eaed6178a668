//! The speed of a model on test images, in turn with the dense model.

use std::time::Instant;

use adavit_data::Batch;
use adavit_data::make_batch;
use adavit_decision::{BlockUsage, HardPolicy};
use adavit_model::{PreparedTransformer, Workspace};
use adavit_train::{Images, RandomDraw, drawn_policy, median};

use crate::error::Result;
use crate::sweep::point::{BATCHES, Speed};

/// Images of a pass at batch 1 and at larger batches.
const IMAGES: [usize; 2] = [64, 512];
/// The fewest rounds of a median.
const LEAST_ROUNDS: usize = 5;

/// How a prepared model computes.
#[derive(Debug)]
pub(super) enum Execution<'a> {
    /// Everything.
    Dense(&'a PreparedTransformer),
    /// What the model's own decisions keep.
    Sparse(&'a PreparedTransformer),
    /// What random decisions of this usage keep.
    Random(&'a PreparedTransformer, &'a [BlockUsage]),
}

/// An execution and the decisions that it is given, one for each batch.
struct Timed<'a> {
    execution: &'a Execution<'a>,
    policies: Vec<HardPolicy>,
    workspace: Workspace,
}

/// Measures `execution` and the dense model for about `seconds`, which the batch sizes share.
pub(super) fn measure(
    dense: &PreparedTransformer,
    execution: &Execution,
    images: &Images,
    seconds: f64,
) -> Result<Vec<Speed>> {
    let speeds = BATCHES.iter().map(|&batch| {
        let n = IMAGES[usize::from(batch > 1)].min(images.indices.len());
        let batches = images.indices[..n].chunks(batch).map(|indices| {
            let (set, normalization) = (images.dataset, images.normalization);
            Ok(make_batch(
                set,
                indices,
                None,
                normalization,
                images.device,
            )?)
        });
        let batches = batches.collect::<Result<Vec<_>>>()?;
        let dense = Execution::Dense(dense);
        let mut dense = Timed::new(&dense, &batches)?;
        let mut own = Timed::new(execution, &batches)?;
        let (mut times, mut dense_times) = (Vec::new(), Vec::new());
        dense.pass(&batches)?;
        own.pass(&batches)?;
        let begin = Instant::now();
        let share = seconds / BATCHES.len() as f64;
        while times.len() < LEAST_ROUNDS || begin.elapsed().as_secs_f64() < share {
            dense_times.push(dense.pass(&batches)?);
            times.push(own.pass(&batches)?);
        }
        let time = median(&mut times);
        Ok(Speed {
            batch,
            images_per_s: n as f64 / time,
            time_saved: median(&mut dense_times) / time,
        })
    });
    speeds.collect()
}

impl<'a> Timed<'a> {
    fn new(execution: &'a Execution<'a>, batches: &[Batch]) -> Result<Self> {
        let mut policies = Vec::new();
        if let Execution::Random(model, usage) = execution {
            let config = model.config();
            let draw = RandomDraw { seed: 0, draw: 0 };
            for Batch { samples, .. } in batches {
                let policy = drawn_policy(config, usage, draw, samples)?;
                policies.push(HardPolicy::new(&policy, &config.geometry(), samples.len())?);
            }
        }
        Ok(Self {
            execution,
            policies,
            workspace: Workspace::default(),
        })
    }

    /// Seconds of one pass over all batches.
    fn pass(&mut self, batches: &[Batch]) -> Result<f64> {
        let workspace = &mut self.workspace;
        let start = Instant::now();
        for (index, Batch { images, .. }) in batches.iter().enumerate() {
            match self.execution {
                Execution::Dense(model) => model.forward_dense(images, workspace)?,
                Execution::Sparse(model) => model.forward_sparse(images, workspace)?,
                Execution::Random(model, _) => {
                    model.forward_sparse_policy(images, &self.policies[index], workspace)?
                }
            };
        }
        if let Some(Batch { images, .. }) = batches.first() {
            // A launch is not yet a result.
            images.device().synchronize()?;
        }
        Ok(start.elapsed().as_secs_f64())
    }
}
