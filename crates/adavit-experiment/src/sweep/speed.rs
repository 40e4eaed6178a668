//! How fast a model is on test images, in turn with the plain model.

use std::time::Instant;

use adavit_decision::{BlockUsage, HardPolicy};
use adavit_kernels::in_pool;
use adavit_model::{PreparedTransformer, TokenReduction, VisionTransformer, Workspace};
use adavit_train::{Images, drawn_policy};
use candle_core::Tensor;

use crate::error::Result;
use crate::measure::throughput::median;
use crate::sweep::point::Speed;

/// Images of a pass at batch 1 and at larger batches.
const IMAGES: [usize; 2] = [64, 512];
/// Where the speeds of points are measured.
pub(super) const BATCHES: [usize; 2] = [1, 32];
/// The fewest rounds of a median.
const LEAST_ROUNDS: usize = 5;

/// A model, and the way its images go.
#[derive(Debug)]
pub(super) enum Path<'a> {
    /// Everything is computed.
    Dense(&'a PreparedTransformer),
    /// The model's own decisions.
    Sparse(&'a PreparedTransformer),
    /// Random decisions of this usage.
    Random(&'a PreparedTransformer, &'a [BlockUsage]),
    /// Fewer tokens from block to block, by candle's operations on our kernels.
    Reduced(&'a VisionTransformer, &'a TokenReduction),
}

/// A path and the decisions that it is given, one for each batch.
struct Work<'a> {
    path: &'a Path<'a>,
    policies: Vec<HardPolicy>,
    workspace: Workspace,
}

/// Measures both for about `seconds`, which the batch sizes share.
pub(super) fn measure(
    dense: &PreparedTransformer,
    path: &Path,
    images: &Images,
    seconds: f64,
) -> Result<Vec<Speed>> {
    let speeds = BATCHES.iter().map(|&batch| {
        let n = IMAGES[usize::from(batch > 1)].min(images.indices.len());
        let batches = images.indices[..n].chunks(batch).map(|indices| {
            let batch = images
                .dataset
                .batch(indices, images.normalization, images.device)?;
            Ok((batch.images, batch.samples))
        });
        let batches = batches.collect::<Result<Vec<_>>>()?;
        let plain = Path::Dense(dense);
        let mut plain = Work::new(&plain, &batches)?;
        let mut own = Work::new(path, &batches)?;
        let (mut times, mut plain_times) = (Vec::new(), Vec::new());
        plain.pass(&batches)?;
        own.pass(&batches)?;
        let begin = Instant::now();
        let share = seconds / BATCHES.len() as f64;
        while times.len() < LEAST_ROUNDS || begin.elapsed().as_secs_f64() < share {
            plain_times.push(plain.pass(&batches)?);
            times.push(own.pass(&batches)?);
        }
        let time = median(&mut times);
        Ok(Speed {
            batch,
            images_per_s: n as f64 / time,
            time_saved: median(&mut plain_times) / time,
        })
    });
    speeds.collect()
}

impl<'a> Work<'a> {
    fn new(path: &'a Path<'a>, batches: &[(Tensor, Vec<u64>)]) -> Result<Self> {
        let mut policies = Vec::new();
        if let Path::Random(model, usage) = path {
            let config = model.config();
            for (_, samples) in batches {
                let policy = drawn_policy(config, usage, (0, 0), samples)?;
                policies.push(HardPolicy::new(&policy, &config.geometry(), samples.len())?);
            }
        }
        Ok(Self {
            path,
            policies,
            workspace: Workspace::default(),
        })
    }

    /// Seconds of one pass over all batches.
    fn pass(&mut self, batches: &[(Tensor, Vec<u64>)]) -> Result<f64> {
        let workspace = &mut self.workspace;
        let start = Instant::now();
        for (index, (images, _)) in batches.iter().enumerate() {
            match self.path {
                Path::Dense(model) => model.forward_dense(images, workspace)?,
                Path::Sparse(model) => model.forward_sparse(images, workspace)?,
                Path::Random(model, _) => {
                    model.forward_sparse_policy(images, &self.policies[index], workspace)?
                }
                Path::Reduced(model, reduction) => {
                    in_pool(|| model.forward_reduced(images, reduction))?
                }
            };
        }
        if let Some((images, _)) = batches.first() {
            // A launch is not yet a result.
            images.device().synchronize()?;
        }
        Ok(start.elapsed().as_secs_f64())
    }
}
