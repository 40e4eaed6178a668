//! A convolutional stem in place of the patch embedding: 3x3 convolutions with a GELU after each,
//! then a 1x1 convolution to the model's width.
//!
//! ```text
//! image --3x3, GELU--> ... --3x3, GELU--> --1x1--> (B, N - 1, C)
//! ```
//!
//! Xiao et al. 2021, "Early convolutions help transformers see better" (arXiv 2106.14881), without
//! its batch normalisation. Windows overlap, so a token sees beyond its patch.

use adavit_kernels::{Window, gelu, gelu_linear, im2col, linear};
use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use crate::error::{self, Error};

/// The side of every convolution but the last.
const KERNEL_SIZE: usize = 3;
/// Zeros around the image: a convolution of stride 1 keeps its size.
pub(crate) const PADDING: usize = 1;

fn window(stride: usize) -> Window {
    Window {
        kernel_size: KERNEL_SIZE,
        stride,
        padding: PADDING,
    }
}

/// What a convolutional stem is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvStemConfig {
    /// The output channels of each 3x3 convolution.
    pub channels: Vec<usize>,
    /// The stride of each, 1 or 2; their product is the patch size.
    pub strides: Vec<usize>,
}

impl ConvStemConfig {
    /// The product of the strides.
    pub(crate) fn patch_size(&self) -> usize {
        let strides = self.strides.iter().copied();
        strides.fold(1, usize::saturating_mul)
    }

    pub(crate) fn validate(&self) -> error::Result<()> {
        let fail = |message: String| Err(Error::Config(format!("conv_stem{message}")));
        let convolutions = self.channels.len();
        if !(1..=32).contains(&convolutions) || self.strides.len() != convolutions {
            return fail(format!(
                ": expected between 1 and 32 channels and as many strides, found {convolutions} \
                 and {}",
                self.strides.len()
            ));
        }
        if self.strides.iter().any(|stride| !(1..=2).contains(stride)) {
            return fail(format!(
                ".strides: expected 1 or 2 each, found {:?}",
                self.strides
            ));
        }
        if let Some(wrong) = self.channels.iter().find(|c| !(1..=1 << 14).contains(*c)) {
            return fail(format!(
                ".channels: expected between 1 and 16384, found {wrong}"
            ));
        }
        Ok(())
    }

    /// Input and output channels of each 3x3 convolution.
    pub(crate) fn widths(&self, in_chans: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        let inputs = std::iter::once(in_chans).chain(self.channels.iter().copied());
        inputs.zip(self.channels.iter().copied())
    }

    /// The input channels of the 1x1 convolution.
    pub(crate) fn last_width(&self) -> usize {
        self.channels.last().copied().unwrap_or(0)
    }

    /// Multiply-adds of every convolution, for one image whose sides the patch size divides.
    pub(crate) fn macs(
        &self,
        (height, width): (usize, usize),
        in_chans: usize,
        embed_dim: usize,
    ) -> u64 {
        let (mut pixels, mut macs) = (height * width, 0);
        for ((c_in, c_out), stride) in self.widths(in_chans).zip(&self.strides) {
            pixels /= stride.pow(2);
            macs += pixels * KERNEL_SIZE.pow(2) * c_in * c_out;
        }
        (macs + pixels * self.last_width() * embed_dim) as u64
    }
}

/// Weight, laid out `(c_out, c_in, k, k)`, and bias of a convolution.
pub(crate) type Convolution = (Tensor, Tensor);

/// The stem's convolutions by their names: those of 3x3, then that of 1x1.
pub(crate) fn convolutions(
    config: &ConvStemConfig,
    in_chans: usize,
    embed_dim: usize,
    vb: &VarBuilder,
) -> Result<(Vec<Convolution>, Convolution)> {
    let k = KERNEL_SIZE;
    let read = |shape: (usize, usize, usize, usize), vb: VarBuilder| -> Result<_> {
        Ok((vb.get(shape, "weight")?, vb.get(shape.0, "bias")?))
    };
    let convs = vb.pp("convs");
    let stack = config.widths(in_chans).enumerate();
    let stack = stack.map(|(index, (c_in, c_out))| read((c_out, c_in, k, k), convs.pp(index)));
    let proj = read((embed_dim, config.last_width(), 1, 1), vb.pp("proj"))?;
    Ok((stack.collect::<Result<_>>()?, proj))
}

#[derive(Debug, Clone)]
pub(crate) struct ConvStem {
    convs: Vec<Convolution>,
    strides: Vec<usize>,
    proj: Convolution,
}

impl ConvStem {
    pub(crate) fn new(
        config: &ConvStemConfig,
        in_chans: usize,
        embed_dim: usize,
        vb: &VarBuilder,
    ) -> Result<Self> {
        let (convs, proj) = convolutions(config, in_chans, embed_dim, vb)?;
        Ok(Self {
            convs,
            strides: config.strides.clone(),
            proj,
        })
    }

    /// `(B, in_chans, height, width)` to `(B, N - 1, C)`.
    pub(crate) fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let (b, _, mut height, mut width) = xs.dims4()?;
        let mut image = xs.clone();
        let mut rows = None;
        for ((weight, bias), stride) in self.convs.iter().zip(&self.strides) {
            if let Some(rows) = &rows {
                let channels = weight.dim(1)?;
                let pixels = gelu(rows)?.transpose(1, 2)?;
                image = pixels.reshape((b, channels, height, width))?;
            }
            let windows = im2col(&image, window(*stride))?;
            rows = Some(linear(&windows, &weight.flatten_from(1)?, Some(bias))?);
            (height, width) = (height.div_ceil(*stride), width.div_ceil(*stride));
        }
        let Some(rows) = rows else {
            bail!("conv_stem: expected at least one convolution");
        };
        gelu_linear(&rows, &self.proj.0.flatten_from(1)?, &self.proj.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_convolution_is_counted() {
        let config = ConvStemConfig {
            channels: vec![16, 24, 48],
            strides: vec![1, 2, 2],
        };
        let convolutions = 28 * 28 * 9 * 16 + 14 * 14 * 9 * 16 * 24 + 7 * 7 * 9 * 24 * 48;
        let expected = convolutions + 7 * 7 * 48 * 64;
        assert_eq!(config.macs((28, 28), 1, 64), expected);
    }

    #[test]
    fn convolutions_that_make_no_patches_are_refused() {
        let config = |channels: &[usize], strides: &[usize]| ConvStemConfig {
            channels: channels.to_vec(),
            strides: strides.to_vec(),
        };
        config(&[8, 16], &[2, 2]).validate().unwrap();
        assert_eq!(config(&[8, 16], &[2, 2]).patch_size(), 4);
        assert_eq!(config(&[8, 16], &[1, 2]).patch_size(), 2);
        for (channels, strides) in [
            (&[8][..], &[4][..]),
            (&[8], &[0]),
            (&[8, 16], &[2]),
            (&[], &[]),
            (&[8, 0], &[2, 2]),
        ] {
            assert!(config(channels, strides).validate().is_err());
        }
    }
}
