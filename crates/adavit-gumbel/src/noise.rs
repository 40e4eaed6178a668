//! Noise for gates. Its key is what the noise is for, never when it is drawn.
//!
//! ```text
//! key      = seed (8 bytes) | epoch (8) | sample (8) | block (4) | axis (4), little-endian
//! u        = (k + 1/2) / 2^52,  k = the upper 52 bits of each next u64 of ChaCha8(key)
//! Gumbel   = -ln(-ln u)
//! Logistic = ln u - ln(1 - u), the distribution of the difference of two Gumbel variables
//! ```
//!
//! The key is the whole input of the generator and no two fields share a byte. So different
//! (seed, epoch, sample, site) have different streams, and a sample has the same noise in any
//! batch, worker or order of calls.
//! `k + 1/2` is exact in `f64` for 52 bits; with 53 bits the largest value would round to u = 1,
//! which gives infinite noise.
//!
//! # Shapes
//!
//! `(B, ...)`: axis 0 is the batch; the values of one sample are drawn in row-major order.

use std::collections::VecDeque;

use candle_core::{DType, Device, Result, Tensor, bail};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::perturb::compute_dtype;

/// The gates that noise is for: a block of the network, and an axis whose meaning the network
/// chooses (for instance blocks, heads, tokens).
///
/// Both numbers are part of the noise's key, so a network that gives its axes other numbers gets
/// other noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site {
    /// Index of the block.
    pub block: u32,
    /// Which gates of the block.
    pub axis: u32,
}

impl Site {
    /// Returns the site of the gates `axis` in block `block`.
    ///
    /// # Panics
    ///
    /// If `block` does not fit 32 bits.
    pub fn new(block: usize, axis: u32) -> Self {
        let block = u32::try_from(block).expect("a network has fewer than 2^32 blocks");
        Self { block, axis }
    }
}

/// A source of gate noise.
///
/// A site stands for one call. What a second call for the same site returns depends on the source.
pub trait Noise {
    /// Returns Logistic(0, 1) noise of `shape`, for binary gates.
    fn logistic(
        &mut self,
        site: Site,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor>;

    /// Returns Gumbel(0, 1) noise of `shape`, for categorical gates.
    fn gumbel(
        &mut self,
        site: Site,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor>;
}

/// Another noise, with every value multiplied by a factor: 1 leaves the noise as it is, 0 removes
/// it. A schedule can thus take the noise away before training ends.
pub struct ScaledNoise<'a> {
    noise: &'a mut dyn Noise,
    factor: f64,
}

impl<'a> ScaledNoise<'a> {
    /// Makes a source of `noise` times `factor`.
    pub fn new(noise: &'a mut dyn Noise, factor: f64) -> Self {
        Self { noise, factor }
    }

    /// Returns what `draw` returns, times the factor. With a factor of 0 it draws nothing.
    fn scaled(
        &mut self,
        shape: &[usize],
        dtype: DType,
        device: &Device,
        draw: impl FnOnce(&mut dyn Noise) -> Result<Tensor>,
    ) -> Result<Tensor> {
        if self.factor == 0.0 {
            return Tensor::zeros(shape, dtype, device);
        }
        draw(self.noise)? * self.factor
    }
}

impl std::fmt::Debug for ScaledNoise<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScaledNoise")
            .field("factor", &self.factor)
            .finish_non_exhaustive()
    }
}

impl Noise for ScaledNoise<'_> {
    fn logistic(
        &mut self,
        site: Site,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        self.scaled(shape, dtype, device, |noise| {
            noise.logistic(site, shape, dtype, device)
        })
    }

    fn gumbel(
        &mut self,
        site: Site,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        self.scaled(shape, dtype, device, |noise| {
            noise.gumbel(site, shape, dtype, device)
        })
    }
}

/// Noise of one batch, a function of (seed, epoch, sample, site) alone.
///
/// The same site gives the same noise each time. A site's logistic and Gumbel noise come from the
/// same stream, so use only one of them per site.
///
/// # Example
///
/// ```
/// use adavit_gumbel::{Noise, SeededNoise, Site};
/// use candle_core::{DType, Device};
///
/// let site = Site::new(3, 0);
/// let batch = SeededNoise::new(1, 0, &[8, 5]).logistic(site, &[2, 4], DType::F32, &Device::Cpu)?;
/// let alone = SeededNoise::new(1, 0, &[5]).logistic(site, &[1, 4], DType::F32, &Device::Cpu)?;
/// assert_eq!(batch.to_vec2::<f32>()?[1], alone.to_vec2::<f32>()?[0]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SeededNoise {
    seed: u64,
    epoch: u64,
    samples: Vec<u64>,
}

impl SeededNoise {
    /// Makes the noise of the images with data-set indices `samples`, in the order of the batch.
    pub fn new(seed: u64, epoch: u64, samples: &[u64]) -> Self {
        Self {
            seed,
            epoch,
            samples: samples.to_vec(),
        }
    }

    /// Returns 1 with this probability and 0 otherwise, of `shape`, for what training leaves out at
    /// random.
    ///
    /// It reads the stream of the site's other noise, so a site is for one of them.
    ///
    /// ```
    /// use adavit_gumbel::{SeededNoise, Site};
    /// use candle_core::{DType, Device};
    ///
    /// let noise = SeededNoise::new(1, 0, &[8, 5]);
    /// let kept = noise.bernoulli(Site::new(3, 7), 0.75, &[2, 4], DType::F32, &Device::Cpu)?;
    /// assert!(kept.flatten_all()?.to_vec1::<f32>()?.iter().all(|x| *x == 0.0 || *x == 1.0));
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn bernoulli(
        &self,
        site: Site,
        probability: f64,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        self.draw(site, shape, dtype, device, |u| {
            f64::from(u8::from(u < probability))
        })
    }

    fn draw(
        &self,
        site: Site,
        shape: &[usize],
        dtype: DType,
        device: &Device,
        quantile: impl Fn(f64) -> f64,
    ) -> Result<Tensor> {
        compute_dtype(dtype)?;
        let Some((&b, dims)) = shape.split_first() else {
            bail!("noise needs the batch as axis 0, found a shape without axes");
        };
        if b != self.samples.len() {
            bail!(
                "noise of {} samples cannot have a batch of {b} (shape {shape:?})",
                self.samples.len()
            );
        }
        let n: usize = dims.iter().product();
        let mut values = Vec::with_capacity(b * n);
        for &sample in &self.samples {
            let mut rng = self.stream(sample, site);
            values.extend((0..n).map(|_| quantile(open_unit(rng.next_u64()))));
        }
        // Rounded on the host, so that every device gets the same bits.
        Tensor::from_vec(values, shape, &Device::Cpu)?
            .to_dtype(dtype)?
            .to_device(device)
    }

    fn stream(&self, sample: u64, site: Site) -> ChaCha8Rng {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&self.seed.to_le_bytes());
        key[8..16].copy_from_slice(&self.epoch.to_le_bytes());
        key[16..24].copy_from_slice(&sample.to_le_bytes());
        key[24..28].copy_from_slice(&site.block.to_le_bytes());
        key[28..].copy_from_slice(&site.axis.to_le_bytes());
        ChaCha8Rng::from_seed(key)
    }
}

impl Noise for SeededNoise {
    fn logistic(
        &mut self,
        site: Site,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        self.draw(site, shape, dtype, device, |u| u.ln() - (-u).ln_1p())
    }

    fn gumbel(
        &mut self,
        site: Site,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        self.draw(site, shape, dtype, device, |u| -(-u.ln()).ln())
    }
}

/// Recorded noise, returned in the order of the calls. Site and distribution are ignored.
///
/// # Example
///
/// ```
/// use adavit_gumbel::{Noise, ReplayedNoise, Site};
/// use candle_core::{DType, Device, Tensor};
///
/// let mut noise = ReplayedNoise::new([Tensor::new(&[[0.5f32, -1.]], &Device::Cpu)?]);
/// let first = noise.logistic(Site::new(0, 0), &[1, 2], DType::F32, &Device::Cpu)?;
/// assert_eq!(first.to_vec2::<f32>()?, [[0.5, -1.]]);
/// assert!(noise.logistic(Site::new(0, 1), &[1, 2], DType::F32, &Device::Cpu).is_err());
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ReplayedNoise {
    left: VecDeque<Tensor>,
    returned: usize,
}

impl ReplayedNoise {
    /// Makes a source that returns `recorded`, one tensor per call.
    pub fn new(recorded: impl IntoIterator<Item = Tensor>) -> Self {
        Self {
            left: recorded.into_iter().collect(),
            returned: 0,
        }
    }

    /// Returns the number of tensors that are left.
    pub fn remaining(&self) -> usize {
        self.left.len()
    }

    fn next(
        &mut self,
        site: Site,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let call = format!(
            "noise call {} (block {}, axis {})",
            self.returned + 1,
            site.block,
            site.axis
        );
        let Some(noise) = self.left.front() else {
            bail!(
                "{call}: expected shape {shape:?}, found the end of {} recorded tensors",
                self.returned
            );
        };
        if noise.dims() != shape {
            bail!(
                "{call}: expected shape {shape:?}, found {:?} in the recording",
                noise.dims()
            );
        }
        let noise = noise.detach().to_dtype(dtype)?.to_device(device)?;
        self.left.pop_front();
        self.returned += 1;
        Ok(noise)
    }
}

impl Noise for ReplayedNoise {
    fn logistic(
        &mut self,
        site: Site,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        self.next(site, shape, dtype, device)
    }

    fn gumbel(
        &mut self,
        site: Site,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        self.next(site, shape, dtype, device)
    }
}

/// Maps random bits to the open interval (0, 1), symmetrically about 1/2.
fn open_unit(bits: u64) -> f64 {
    const STEP: f64 = f64::EPSILON; // 2^-52
    ((bits >> 12) as f64 + 0.5) * STEP
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaled_noise_is_the_noise_times_its_factor() -> Result<()> {
        let site = Site::new(1, 2);
        let draw = |factor: f64| {
            let mut noise = SeededNoise::new(3, 0, &[4, 5]);
            let mut noise = ScaledNoise::new(&mut noise, factor);
            let drawn = noise.logistic(site, &[2, 3], DType::F64, &Device::Cpu)?;
            drawn.flatten_all()?.to_vec1::<f64>()
        };
        let whole =
            SeededNoise::new(3, 0, &[4, 5]).logistic(site, &[2, 3], DType::F64, &Device::Cpu)?;
        let whole = whole.flatten_all()?.to_vec1::<f64>()?;
        assert_eq!(draw(1.0)?, whole);
        assert_eq!(
            draw(0.5)?,
            whole.iter().map(|x| x * 0.5).collect::<Vec<_>>()
        );
        assert_eq!(draw(0.0)?, [0.0; 6]);
        Ok(())
    }

    #[test]
    fn uniform_values_never_reach_zero_or_one() {
        let (lowest, highest) = (open_unit(0), open_unit(u64::MAX));
        assert_eq!((lowest, 1. - highest), (0.5f64.powi(53), 0.5f64.powi(53)));
    }

    #[test]
    fn the_largest_noise_is_finite_in_every_dtype() -> Result<()> {
        let u = open_unit(u64::MAX);
        let largest = [u.ln() - (-u).ln_1p(), -(-u.ln()).ln()];
        for dtype in [DType::F32, DType::F64, DType::BF16, DType::F16] {
            let xs = Tensor::new(&largest, &Device::Cpu)?.to_dtype(dtype)?;
            for x in xs.to_dtype(DType::F64)?.to_vec1::<f64>()? {
                assert!(x > 36. && x < 37., "{x}");
            }
        }
        Ok(())
    }
}
