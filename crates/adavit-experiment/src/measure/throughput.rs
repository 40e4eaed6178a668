//! Images per second of a model whose input is ready, and the machine's product peak.
//!
//! A measurement warms up, then runs rounds of equal work and takes the median round, which a busy
//! moment of the machine does not move.

use std::time::{Duration, Instant};

use adavit_decision::{HardPolicy, Policy};
use adavit_kernels::{cross_entropy, in_pool, linear};
use adavit_model::{
    Capture, Checkpoint, ModelConfig, PreparedTransformer, VisionTransformer, Workspace,
    initial_tensors, is_decision_tensor,
};
use adavit_train::{AdamW, AdamWConfig, median, trainable};
use candle_core::{DType, Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result};
use crate::measure::memory::Memory;

/// Rounds of a measurement, where an iteration is short enough.
const ROUNDS: u32 = 8;

/// Sizes of the square products of which the fastest counts as the peak.
const PEAK_SIZES: [usize; 3] = [512, 1024, 2048];

/// Products of a training step over those of a forward: outputs, and the gradients of both operands.
const STEP_PRODUCTS: f64 = 3.0;

/// The speed of a workload.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Throughput {
    /// Median over the rounds.
    pub images_per_s: f64,
    /// Speed of the products that the work needs, in FLOP/s.
    pub flops: f64,
    /// Speed of large square products in the same process, in FLOP/s.
    pub peak_flops: f64,
    /// Highest memory of the process while measuring minus that before the first iteration, in
    /// bytes; none where the system does not report it.
    pub grown_bytes: Option<u64>,
}

impl Throughput {
    /// Returns the speed of the products over the peak.
    pub fn share_of_peak(&self) -> f64 {
        self.flops / self.peak_flops
    }
}

/// A model with its input, ready to run again and again.
#[derive(Debug)]
pub struct Workload {
    config: ModelConfig,
    images: Tensor,
    device: Device,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// Dense inference.
    Prepared(Box<(PreparedTransformer, Workspace)>),
    /// Adaptive inference that computes everything and masks, under each policy in turn.
    Masked(Box<VisionTransformer>, Cycle<Policy>),
    /// Adaptive inference that computes what is kept.
    Sparse(Box<(PreparedTransformer, Workspace)>, Cycle<HardPolicy>),
    Training(Box<Training>),
}

#[derive(Debug)]
struct Training {
    model: VisionTransformer,
    optimizer: AdamW,
    /// `(B, K)`, one-hot.
    targets: Tensor,
}

/// Images, and policies of as many, one for each run.
#[derive(Debug)]
pub(crate) struct Inputs<P> {
    /// `(B, in_chans, height, width)`.
    pub(crate) images: Tensor,
    pub(crate) policies: Vec<P>,
}

/// Policies that are taken one after the other, again and again.
#[derive(Debug)]
struct Cycle<P> {
    policies: Vec<P>,
    next: usize,
}

impl<P> Cycle<P> {
    fn new(policies: Vec<P>) -> Self {
        Self { policies, next: 0 }
    }

    fn next(&mut self) -> &P {
        let index = self.next;
        self.next = (index + 1) % self.policies.len();
        &self.policies[index]
    }
}

impl Workload {
    /// Returns the fastest dense forward of a preset on `batch` images; weights and images come
    /// from `seed`.
    ///
    /// # Errors
    /// [`Error::Setting`] for an empty batch; [`Error::Model`] if there is no such preset.
    pub fn inference(preset: &str, batch: usize, seed: u64, device: &Device) -> Result<Self> {
        Self::inference_of(&initial(preset, seed)?, batch, seed, device)
    }

    /// As [`Self::inference`] of a checkpoint, whose decisions are not made.
    ///
    /// # Errors
    /// [`Error::Setting`] for an empty batch.
    pub fn inference_of(
        start: &Checkpoint,
        batch: usize,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        Ok(Self {
            images: images(&start.config, batch, seed, device)?,
            device: device.clone(),
            work: Work::Prepared(Box::new((start.prepared(device)?, Workspace::default()))),
            config: start.config.clone(),
        })
    }

    /// Returns an adaptive model by the masked path under the policies of `inputs`: everything is
    /// computed except the decisions.
    pub(crate) fn masked(
        start: &Checkpoint,
        inputs: Inputs<Policy>,
        device: &Device,
    ) -> Result<Self> {
        let model = Box::new(start.model(device)?);
        Ok(Self {
            config: start.config.clone(),
            images: inputs.images,
            device: device.clone(),
            work: Work::Masked(model, Cycle::new(inputs.policies)),
        })
    }

    /// Returns an adaptive model by the sparse path, whose decisions those of `inputs` replace.
    pub(crate) fn sparse(model: PreparedTransformer, inputs: Inputs<HardPolicy>) -> Self {
        let config = model.config().clone();
        let model = Box::new((model, Workspace::default()));
        let device = inputs.images.device().clone();
        Self {
            config,
            device,
            images: inputs.images,
            work: Work::Sparse(model, Cycle::new(inputs.policies)),
        }
    }

    /// Returns the multiply-adds that the sparse path has done since the last call.
    pub(crate) fn take_macs(&mut self) -> u64 {
        match &mut self.work {
            Work::Sparse(model, _) => model.1.take_macs(),
            _ => 0,
        }
    }

    /// Returns the training step of a preset: forward, cross entropy, backward, AdamW.
    ///
    /// # Errors
    /// As for [`Self::inference`].
    pub fn training(preset: &str, batch: usize, seed: u64, device: &Device) -> Result<Self> {
        Self::training_of(&initial(preset, seed)?, batch, seed, device)
    }

    /// As [`Self::training`] of a checkpoint's dense model.
    ///
    /// # Errors
    /// [`Error::Setting`] for an empty batch.
    pub fn training_of(
        start: &Checkpoint,
        batch: usize,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        let mut start = start.clone();
        start.config.decisions = None;
        start.tensors.retain(|name, _| !is_decision_tensor(name));
        let (model, parameters) = trainable(&start, device)?;
        let (k, mut rng) = (start.config.num_classes, ChaCha8Rng::seed_from_u64(seed));
        let images = images(&start.config, batch, seed, device)?;
        let mut targets = vec![0f32; batch * k];
        for row in targets.chunks_exact_mut(k) {
            row[rng.random_range(0..k)] = 1.0;
        }
        Ok(Self {
            work: Work::Training(Box::new(Training {
                model,
                optimizer: AdamW::new(AdamWConfig::default(), &parameters)?,
                targets: Tensor::from_vec(targets, (batch, k), device)?,
            })),
            images,
            device: device.clone(),
            config: start.config,
        })
    }

    /// Multiply-adds of a forward of one image.
    pub fn macs(&self) -> u64 {
        self.config.geometry().dense_macs()
    }

    /// Does the work once and waits until it is done.
    pub fn run(&mut self) -> Result<()> {
        let capture = Capture::default();
        match &mut self.work {
            Work::Prepared(prepared) => {
                let (model, workspace) = &mut **prepared;
                model.forward_dense(&self.images, workspace)?;
            }
            Work::Masked(model, policies) => {
                model.forward_policy(&self.images, policies.next(), capture)?;
            }
            Work::Sparse(model, policies) => {
                let (model, workspace) = &mut **model;
                model.forward_sparse_policy(&self.images, policies.next(), workspace)?;
            }
            Work::Training(training) => {
                let Training {
                    model,
                    optimizer,
                    targets,
                } = &mut **training;
                in_pool(|| {
                    // The graph is freed before the optimizer works.
                    let gradients = {
                        let logits = model.forward(&self.images, capture)?.logits;
                        cross_entropy(&logits, targets)?.backward()?
                    };
                    optimizer.step(&gradients, 1.0)
                })?;
            }
        }
        self.device.synchronize()?;
        Ok(())
    }

    /// Does the work for about `seconds` and returns its speed.
    ///
    /// # Errors
    /// [`Error::Setting`] if `seconds` is not positive.
    pub fn measure(&mut self, seconds: f64) -> Result<Throughput> {
        if !(seconds > 0.0 && seconds <= 86_400.0) {
            return Err(Error::Setting(format!(
                "seconds: expected more than 0 and at most 86400, found {seconds}"
            )));
        }
        let memory = Memory::watch();
        let round = Duration::from_secs_f64(seconds) / ROUNDS;
        let time = median_time(round, || self.run())?;
        let grown_bytes = memory.and_then(Memory::grown);
        let batch = self.images.dim(0)? as f64;
        let passes = match self.work {
            Work::Training(_) => STEP_PRODUCTS,
            _ => 1.0,
        };
        Ok(Throughput {
            images_per_s: batch / time,
            flops: 2.0 * self.macs() as f64 * passes * batch / time,
            peak_flops: product_peak(round, &self.device)?,
            grown_bytes,
        })
    }
}

pub(crate) fn initial(preset: &str, seed: u64) -> Result<Checkpoint> {
    let config = ModelConfig::preset(preset)?;
    let tensors = initial_tensors(&config, seed, 0.0)?;
    Ok(Checkpoint { config, tensors })
}

/// Images of mean 0 and variance 1, as standardised ones are.
pub(crate) fn images(
    config: &ModelConfig,
    batch: usize,
    seed: u64,
    device: &Device,
) -> Result<Tensor> {
    if batch == 0 {
        let message = "batch: expected at least 1 image, found 0";
        return Err(Error::Setting(message.to_string()));
    }
    let (height, width) = config.img_size;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // Of a uniform distribution with variance 1.
    let bound = 3f32.sqrt();
    let values: Vec<f32> = (0..batch * config.in_chans * height * width)
        .map(|_| rng.random_range(-bound..bound))
        .collect();
    let shape = (batch, config.in_chans, height, width);
    Ok(Tensor::from_vec(values, shape, device)?)
}

/// Returns the median over rounds of the seconds that `work` takes.
fn median_time(round: Duration, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut timed = |count: u32| -> Result<f64> {
        let start = Instant::now();
        for _ in 0..count {
            work()?;
        }
        Ok(start.elapsed().as_secs_f64() / f64::from(count))
    };
    timed(1)?;
    let once = timed(2)?;
    let wanted = round.as_secs_f64();
    let count = (wanted / once).clamp(1.0, 1e6);
    // Slow work still gets three rounds, or two where those alone take longer than asked for.
    let rounds = (f64::from(ROUNDS) * wanted / once / count.floor()).clamp(3.0, f64::from(ROUNDS));
    let mut times = (0..rounds as u32)
        .map(|_| timed(count as u32))
        .collect::<Result<Vec<_>>>()?;
    Ok(median(&mut times))
}

/// Returns the FLOP/s of the fastest of some square products.
fn product_peak(round: Duration, device: &Device) -> Result<f64> {
    let mut peak: f64 = 0.0;
    for size in PEAK_SIZES {
        let xs = Tensor::ones((size, size), DType::F32, device)?;
        let time = median_time(round / 4, || {
            linear(&xs, &xs, None)?;
            device.synchronize()?;
            Ok(())
        })?;
        peak = peak.max(2.0 * (size as f64).powi(3) / time);
    }
    Ok(peak)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_training_step_changes_the_weights_and_is_measured() {
        let mut work = Workload::training("nano_patch7_28", 2, 1, &Device::Cpu).unwrap();
        let logits = |work: &Workload| {
            let Work::Training(training) = &work.work else {
                panic!("a training step");
            };
            let output = training.model.forward(&work.images, Capture::default());
            output.unwrap().logits.to_vec2::<f32>().unwrap()
        };
        let before = logits(&work);
        let found = work.measure(0.01).unwrap();
        assert!(found.images_per_s > 0.0 && found.share_of_peak() > 0.0);
        assert!(logits(&work) != before);
    }

    #[test]
    fn nothing_to_measure_is_refused() {
        let mut work = Workload::inference("nano_patch7_28", 1, 0, &Device::Cpu).unwrap();
        assert!(work.measure(0.0).unwrap_err().is_input_error());
        assert!(work.measure(f64::NAN).unwrap_err().is_input_error());
        let empty = Workload::inference("nano_patch7_28", 0, 0, &Device::Cpu);
        assert!(empty.unwrap_err().is_input_error());
    }
}
