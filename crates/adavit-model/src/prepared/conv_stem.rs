//! The convolutional stem of a prepared model.
//!
//! Pixels lie channels last here. The input of each convolution holds its padding: zeros that are
//! written once, around the pixels that the convolution before writes.

use adavit_kernels::{
    ConvolutionPlaces, PixelGrid, PreparedConvolution, PreparedLinear, ProductParts, Workspace,
};
use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::buffers::TokenRows;
use crate::config::ModelConfig;
use crate::stem::conv_stem::{ConvStemConfig, Convolution, PADDING, convolutions};

/// Images that are worked on at a time: their pixels stay in cache.
const IMAGES: usize = 4;

#[derive(Debug)]
pub(super) struct PreparedConvStem {
    /// Each convolution, and its input.
    convs: Vec<(Padded, PreparedConvolution)>,
    proj: PreparedLinear,
    embed_dim: usize,
}

/// An image, channels last, with its padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Padded {
    height: usize,
    width: usize,
    channels: usize,
}

/// Buffers of the stem, kept from one forward to the next.
#[derive(Debug, Default)]
pub(super) struct ConvStemRoom {
    /// The input of each convolution.
    inputs: Vec<(Padded, Vec<f32>)>,
    /// The outputs of the last one.
    rows: Vec<f32>,
    parts: ProductParts,
}

impl PreparedConvStem {
    pub(super) fn new(
        config: &ModelConfig,
        stem: &ConvStemConfig,
        vb: &VarBuilder,
    ) -> Result<Self> {
        let c = config.embed_dim;
        let (convs, proj) = convolutions(stem, config.in_chans, c, &vb.pp("patch_embed"))?;
        let (mut height, mut width) = config.img_size;
        let (last, prefix) = (convs.len() - 1, config.num_prefix_tokens());
        let convs = convs.iter().zip(&stem.strides).enumerate();
        let convs = convs.map(|(index, ((weight, bias), &stride))| {
            let input = Padded {
                height,
                width,
                channels: weight.dim(1)?,
            };
            (height, width) = (height.div_ceil(stride), width.div_ceil(stride));
            let outputs = if index == last {
                // Rows of tokens already, each where it will lie among them.
                PixelGrid {
                    first: prefix,
                    column: 1,
                    row: width,
                    image: prefix + height * width,
                }
            } else {
                let next = Padded {
                    height,
                    width,
                    channels: weight.dim(0)?,
                };
                next.pixels()
            };
            let places = ConvolutionPlaces {
                size: (height, width),
                windows: input.windows(stride),
                input_row: input.row(),
                outputs,
            };
            Ok((input, PreparedConvolution::new(weight, bias, places)?))
        });
        Ok(Self {
            convs: convs.collect::<Result<_>>()?,
            proj: projection(&proj)?,
            embed_dim: c,
        })
    }

    /// Adds what comes of the images' pixels to their tokens.
    pub(super) fn add(
        &self,
        images: &Tensor,
        tokens: &mut TokenRows,
        room: &mut ConvStemRoom,
        work: &mut Workspace,
    ) -> Result<()> {
        let b = images.dim(0)?;
        if b == 0 {
            return Ok(());
        }
        let pixels = images.permute((0, 2, 3, 1))?.contiguous()?;
        let pixels = pixels.flatten_all()?.to_vec1::<f32>()?;
        room.reserve(&self.convs, b.min(IMAGES));
        let (image_len, tokens_len) = (pixels.len() / b, tokens.xs.len() / b);
        let rows_len = tokens.patch_rows.len() / b;
        let chunks = tokens.xs.chunks_mut(IMAGES * tokens_len);
        for (pixels, xs) in pixels.chunks(IMAGES * image_len).zip(chunks) {
            let some = pixels.len() / image_len;
            // Every image's rows lie as those of the first.
            let patch_rows = &tokens.patch_rows[..rows_len * some];
            if let Some((input, values)) = room.inputs.first_mut() {
                input.fill(pixels, values);
            }
            self.add_some(some, &mut TokenRows { xs, patch_rows }, room, work);
        }
        Ok(())
    }

    /// Adds the tokens of the `b` images whose pixels are the first input.
    fn add_some(
        &self,
        b: usize,
        tokens: &mut TokenRows,
        room: &mut ConvStemRoom,
        work: &mut Workspace,
    ) {
        let ConvStemRoom {
            inputs,
            rows,
            parts,
        } = room;
        let c = self.embed_dim;
        let width = self.convs.last().map_or(0, |(_, conv)| conv.n_out());
        rows.resize(tokens.xs.len() / c * width, 0.0);
        for (index, (_, conv)) in self.convs.iter().enumerate() {
            let (before, after) = inputs.split_at_mut(index + 1);
            let to = after.first_mut().map_or(&mut *rows, |(_, values)| values);
            conv.write_gelu(b, &before[index].1, to, work);
        }
        parts.clear();
        let patch_rows = tokens.patch_rows.iter().copied();
        parts.push(patch_rows, &[0..width], &[0..c]);
        self.proj.add(rows, tokens.xs, parts, work);
    }
}

impl ConvStemRoom {
    /// Makes room for `b` images at a time; paddings are zeros.
    fn reserve(&mut self, convs: &[(Padded, PreparedConvolution)], b: usize) {
        let inputs = convs.iter().map(|(input, _)| *input);
        // Another model's pixels may lie where the padding is now.
        if !inputs
            .clone()
            .eq(self.inputs.iter().map(|(input, _)| *input))
        {
            self.inputs = inputs.map(|input| (input, Vec::new())).collect();
        }
        for (input, values) in &mut self.inputs {
            let len = b * input.image() * input.channels;
            values.resize(len.max(values.len()), 0.0);
        }
    }
}

impl Padded {
    /// Pixels from one to the one below.
    fn row(self) -> usize {
        self.width + 2 * PADDING
    }

    /// Pixels of an image.
    fn image(self) -> usize {
        (self.height + 2 * PADDING) * self.row()
    }

    fn pixels(self) -> PixelGrid {
        PixelGrid {
            first: PADDING * self.row() + PADDING,
            column: 1,
            row: self.row(),
            image: self.image(),
        }
    }

    /// The first pixels of the windows.
    fn windows(self, stride: usize) -> PixelGrid {
        PixelGrid {
            first: 0,
            column: stride,
            row: stride * self.row(),
            image: self.image(),
        }
    }

    /// Writes images, rows of pixels, into their padding.
    fn fill(self, images: &[f32], values: &mut [f32]) {
        let (c, len) = (self.channels, self.width * self.channels);
        let padded = values.chunks_exact_mut(self.image() * c);
        for (padded, image) in padded.zip(images.chunks_exact(self.height * len)) {
            let rows = padded.chunks_exact_mut(self.row() * c).skip(PADDING);
            for (to, row) in rows.zip(image.chunks_exact(len)) {
                to[PADDING * c..][..len].copy_from_slice(row);
            }
        }
    }
}

/// The 1x1 convolution as a map of rows.
fn projection((weight, bias): &Convolution) -> Result<PreparedLinear> {
    PreparedLinear::new(&weight.flatten_from(1)?, Some(bias), bias.dim(0)?)
}
