//! What training leaves out at random: the residual branches of blocks (stochastic depth), and outputs
//! of the token module of T2T-ViT (dropout).
//!
//! ```text
//! blocks         x <- x + s f(x),   s = 0 with probability r_i, otherwise 1 / (1 - r_i);  r_i = drop_path i / (L - 1)
//! token module   y <- s * y,        s = 0 with probability r,   otherwise 1 / (1 - r);    r = token_dropout
//! ```
//!
//! Block i of L has the rate r_i; s is drawn for each image and each of attention and MLP. These are the
//! rates and the scale of timm's `drop_path_rate`. (Huang et al. 2016, arXiv 1603.09382.)
//! In the token module, s is drawn for each number that `proj` and `mlp` of its two layers give.
//! (Srivastava et al. 2014; Yuan et al. 2021, arXiv 2101.11986.)
//!
//! A draw depends on (seed, epoch, sample, block or layer, part) alone, never on the batch.

use adavit_gumbel::{SeededNoise, Site};
use candle_core::Tensor;

use crate::error::{Error, Result};

/// How much training leaves out at random; by default nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DropoutRates {
    /// The rate of the last block's branches, in [0, 1); that of the first is 0, and the others lie on
    /// the line between.
    pub drop_path: f64,
    /// The rate of each output of `proj` and `mlp` in the token module of T2T-ViT, in [0, 1).
    pub token_dropout: f64,
}

impl DropoutRates {
    /// Returns whether nothing is left out.
    pub fn is_off(self) -> bool {
        self == Self::default()
    }
}

/// What a batch leaves out: rates, and the noise that draws with them.
///
/// ```
/// use adavit_gumbel::SeededNoise;
/// # use adavit_model::{Dropout, DropoutRates};
/// let noise = SeededNoise::new(0, 3, &[17, 4]);
/// let rates = DropoutRates { drop_path: 0.1, ..DropoutRates::default() };
/// let dropout = Dropout::new(rates, noise)?;
/// # Ok::<(), adavit_model::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Dropout {
    rates: DropoutRates,
    noise: SeededNoise,
}

/// What is left out, and the axis of its noise in a block or layer. The number is part of the noise's
/// key, as those of gates are: it never changes, and no gate has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Part {
    /// The attention of a block.
    Attention = 256,
    /// The MLP of a block.
    Mlp = 257,
    /// The output of `proj` in a layer of the token module.
    TokenProj = 258,
    /// The output of `mlp` there.
    TokenMlp = 259,
}

/// The factors of a block's residual branches, one for each image, `(B,)`; none where both are kept.
#[derive(Debug, Default)]
pub(crate) struct BranchScales {
    pub(crate) attention: Option<Tensor>,
    pub(crate) mlp: Option<Tensor>,
}

impl Dropout {
    /// Returns the dropout of the batch that `noise` is for.
    ///
    /// # Errors
    /// [`Error::Config`] if a rate is not in [0, 1).
    pub fn new(rates: DropoutRates, noise: SeededNoise) -> Result<Self> {
        for (name, rate) in [
            ("drop_path", rates.drop_path),
            ("token_dropout", rates.token_dropout),
        ] {
            if !(0.0..1.0).contains(&rate) {
                return Err(Error::Config(format!(
                    "{name}: expected a rate in [0, 1), found {rate}"
                )));
            }
        }
        Ok(Self { rates, noise })
    }

    /// Returns what `part` of layer `layer` of the token module gives, `(B, n, d)`, without what is left
    /// out of it.
    pub(crate) fn of_tokens(
        &self,
        part: Part,
        layer: usize,
        ys: Tensor,
    ) -> candle_core::Result<Tensor> {
        let rate = self.rates.token_dropout;
        if rate == 0.0 {
            return Ok(ys);
        }
        let scales = self.scales(part, layer, rate, ys.dims(), &ys)?;
        ys * scales
    }

    /// Returns the factors of block `block` of `depth`, for tokens `xs`, `(B, N, C)`.
    pub(crate) fn of_block(
        &self,
        block: usize,
        depth: usize,
        xs: &Tensor,
    ) -> candle_core::Result<BranchScales> {
        let rate = self.rates.drop_path * block as f64 / (depth.max(2) - 1) as f64;
        if rate == 0.0 {
            return Ok(BranchScales::default());
        }
        let scales = |part| self.scales(part, block, rate, &[xs.dim(0)?], xs);
        Ok(BranchScales {
            attention: Some(scales(Part::Attention)?),
            mlp: Some(scales(Part::Mlp)?),
        })
    }

    /// 0 with probability `rate`, otherwise 1 / (1 - rate), in the dtype and on the device of `like`.
    fn scales(
        &self,
        part: Part,
        block: usize,
        rate: f64,
        shape: &[usize],
        like: &Tensor,
    ) -> candle_core::Result<Tensor> {
        let site = Site::new(block, part as u32);
        let kept = self
            .noise
            .bernoulli(site, 1.0 - rate, shape, like.dtype(), like.device())?;
        kept / (1.0 - rate)
    }
}

#[cfg(test)]
mod tests {
    use adavit_decision::Axis;
    use candle_core::{DType, Device};

    use super::*;

    const DEPTH: usize = 5;

    fn rates(drop_path: f64) -> DropoutRates {
        DropoutRates {
            drop_path,
            ..DropoutRates::default()
        }
    }

    /// The factors of attention and MLP of a block, for these samples.
    fn factors(drop_path: f64, block: usize, samples: &[u64]) -> [Vec<f32>; 2] {
        let noise = SeededNoise::new(7, 2, samples);
        let dropout = Dropout::new(rates(drop_path), noise).unwrap();
        let xs = Tensor::zeros((samples.len(), 3, 4), DType::F32, &Device::Cpu).unwrap();
        let scales = dropout.of_block(block, DEPTH, &xs).unwrap();
        [scales.attention, scales.mlp]
            .map(|scales| scales.map_or(Vec::new(), |scales| scales.to_vec1().unwrap()))
    }

    #[test]
    fn rates_rise_from_zero_to_the_setting_and_the_mean_factor_is_one() {
        let samples: Vec<u64> = (0..4000).collect();
        for (block, rate) in [(1, 0.1), (2, 0.2), (4, 0.4)] {
            for factors in factors(0.4, block, &samples) {
                let scale = (1.0 / (1.0 - rate)) as f32;
                assert!(
                    factors
                        .iter()
                        .all(|x| *x == 0.0 || (x - scale).abs() < 1e-6)
                );
                let dropped = factors.iter().filter(|x| **x == 0.0).count() as f64 / 4000.0;
                // Four standard deviations of a binomial.
                let tolerance = 4.0 * (rate * (1.0 - rate) / 4000.0_f64).sqrt();
                assert!((dropped - rate).abs() < tolerance, "{dropped} for {rate}");
                let mean = factors.iter().sum::<f32>() / 4000.0;
                assert!((f64::from(mean) - 1.0).abs() < tolerance / (1.0 - rate));
            }
        }
        assert!(factors(0.4, 0, &samples).iter().all(Vec::is_empty));
        assert!(factors(0.0, 4, &samples).iter().all(Vec::is_empty));
    }

    #[test]
    fn a_sample_has_its_factors_in_every_batch() {
        let batch: Vec<u64> = (0..40).collect();
        let reversed: Vec<u64> = batch.iter().rev().copied().collect();
        for (ours, mut theirs) in factors(0.5, 4, &batch)
            .into_iter()
            .zip(factors(0.5, 4, &reversed))
        {
            theirs.reverse();
            assert_eq!(ours, theirs);
        }
        assert_eq!(factors(0.5, 4, &[7])[0], factors(0.5, 4, &batch)[0][7..8]);
    }

    #[test]
    fn branches_and_blocks_draw_for_themselves() {
        let samples: Vec<u64> = (0..64).collect();
        let [attention, mlp] = factors(0.5, 4, &samples);
        assert_ne!(attention, mlp);
        let dropped = |xs: &[f32]| xs.iter().map(|x| *x == 0.0).collect::<Vec<_>>();
        let other = &factors(0.5, 3, &samples)[0];
        assert_ne!(dropped(&attention), dropped(other));
    }

    #[test]
    fn no_gate_shares_a_stream() {
        let axes = [Axis::Blocks, Axis::Heads, Axis::Tokens].map(|axis| axis.site(0).axis);
        for part in [Part::Attention, Part::Mlp, Part::TokenProj, Part::TokenMlp] {
            assert!(!axes.contains(&(part as u32)), "{part:?}");
        }
    }

    #[test]
    fn a_single_block_is_never_dropped_and_rates_out_of_range_are_refused() {
        let new = |drop_path| Dropout::new(rates(drop_path), SeededNoise::new(0, 0, &[1]));
        let xs = Tensor::zeros((1, 2, 2), DType::F32, &Device::Cpu).unwrap();
        let scales = new(0.9).unwrap().of_block(0, 1, &xs).unwrap();
        assert!(scales.attention.is_none() && scales.mlp.is_none());
        for rate in [1.0, -0.1, f64::NAN] {
            assert!(new(rate).is_err(), "{rate}");
        }
    }
    #[test]
    fn outputs_of_the_token_module_keep_their_mean_and_know_no_batch() {
        let ys = |samples: &[u64], part, layer| -> Vec<Vec<f32>> {
            let rates = DropoutRates {
                token_dropout: 0.1,
                ..DropoutRates::default()
            };
            let dropout = Dropout::new(rates, SeededNoise::new(7, 2, samples)).unwrap();
            let ones = Tensor::ones((samples.len(), 40, 50), DType::F32, &Device::Cpu).unwrap();
            let ys = dropout.of_tokens(part, layer, ones).unwrap();
            ys.flatten_from(1).unwrap().to_vec2().unwrap()
        };
        let batch = ys(&[4, 9], Part::TokenProj, 0);
        for image in &batch {
            let mean = image.iter().sum::<f32>() / 2000.0;
            // Four standard deviations of a mean of 2000.
            assert!(
                (mean - 1.0).abs() < 4.0 * (0.1_f32 / 0.9 / 2000.0).sqrt(),
                "{mean}"
            );
        }
        assert_ne!(batch[0], batch[1]);
        assert_eq!(ys(&[9], Part::TokenProj, 0)[0], batch[1]);
        assert_ne!(ys(&[9], Part::TokenProj, 1)[0], batch[1]);
        assert_ne!(ys(&[9], Part::TokenMlp, 0)[0], batch[1]);
    }
}
