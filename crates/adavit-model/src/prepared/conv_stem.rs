//! The convolutional stem of a prepared model: windows of rows, one product for each convolution.
//!
//! Pixels lie channels last here, so that a window's row of pixels is one run of the image's.

use adavit_kernels::{Parts, PreparedLinear, Work};
use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use rayon::prelude::*;

use crate::ModelConfig;
use crate::conv_stem::{ConvStemConfig, Convolution, KERNEL_SIZE, PADDING, convolutions};

/// Images that are worked on at a time: their windows stay in cache.
const IMAGES: usize = 4;

#[derive(Debug)]
pub(super) struct PreparedConvStem {
    /// The input of each convolution, and the map of its windows.
    convs: Vec<(Pixels, PreparedLinear)>,
    proj: PreparedLinear,
    embed_dim: usize,
}

/// An image, channels last, and the windows that are taken of it.
#[derive(Debug, Clone, Copy)]
struct Pixels {
    height: usize,
    width: usize,
    channels: usize,
    stride: usize,
}

/// Buffers of the stem, kept from one forward to the next.
#[derive(Debug, Default)]
pub(super) struct StemRoom {
    windows: Vec<f32>,
    rows: Vec<f32>,
    parts: Parts,
}

/// How many rows of an image go before its pixels: none but before the tokens.
#[derive(Debug, Clone, Copy)]
struct Place {
    prefix: usize,
    images: usize,
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
        let convs = convs.iter().zip(&stem.strides).map(|(conv, stride)| {
            let channels = conv.0.dim(1)?;
            let input = Pixels {
                height,
                width,
                channels,
                stride: *stride,
            };
            (height, width) = (input.rows(), input.columns());
            Ok((input, prepared(conv)?))
        });
        Ok(Self {
            convs: convs.collect::<Result<_>>()?,
            proj: prepared(&proj)?,
            embed_dim: c,
        })
    }

    /// Adds the tokens of the images to `ys`, `(B, N, C)`; `patch_rows` are their rows in it.
    pub(super) fn add(
        &self,
        images: &Tensor,
        (ys, prefix, patch_rows): (&mut [f32], usize, &[usize]),
        room: &mut StemRoom,
        work: &mut Work,
    ) -> Result<()> {
        let b = images.dim(0)?;
        if b == 0 {
            return Ok(());
        }
        let pixels = images.permute((0, 2, 3, 1))?.contiguous()?;
        let pixels = pixels.flatten_all()?.to_vec1::<f32>()?;
        let (image_len, tokens_len) = (pixels.len() / b, ys.len() / b);
        let ys = ys.chunks_mut(IMAGES * tokens_len);
        for (pixels, ys) in pixels.chunks(IMAGES * image_len).zip(ys) {
            let b = pixels.len() / image_len;
            // Every image's rows lie as those of the first.
            let patch_rows = &patch_rows[..b * self.patches()];
            room.rows.clear();
            room.rows.extend_from_slice(pixels);
            self.add_some(b, (ys, prefix, patch_rows), room, work);
        }
        Ok(())
    }

    /// Adds the tokens of the `b` images whose pixels are the rows of `room`.
    fn add_some(
        &self,
        b: usize,
        (ys, prefix, patch_rows): (&mut [f32], usize, &[usize]),
        room: &mut StemRoom,
        work: &mut Work,
    ) {
        let StemRoom {
            windows,
            rows,
            parts,
        } = room;
        let mut width = 0;
        for (index, (input, map)) in self.convs.iter().enumerate() {
            // The last rows are tokens already, each where it will lie in `ys`.
            let last = index + 1 == self.convs.len();
            let place = Place {
                prefix: if last { prefix } else { 0 },
                images: b,
            };
            input.windows(rows, windows, place);
            let window_len = input.window_len();
            width = map.n_out();
            let n = windows.len() / window_len;
            rows.resize(n * width, 0.0);
            parts.clear();
            if last {
                parts.push(patch_rows.iter().copied(), &[0..window_len], &[0..width]);
            } else {
                parts.push(0..n, &[0..window_len], &[0..width]);
            }
            map.write_gelu(windows, rows, parts, work);
        }
        parts.clear();
        let c = self.embed_dim;
        parts.push(patch_rows.iter().copied(), &[0..width], &[0..c]);
        self.proj.add(rows, ys, parts, work);
    }

    /// The tokens of an image that come of its pixels.
    fn patches(&self) -> usize {
        let last = self.convs.last();
        last.map_or(0, |(input, _)| input.rows() * input.columns())
    }
}

impl Pixels {
    /// Windows from top to bottom.
    fn rows(self) -> usize {
        self.height.div_ceil(self.stride)
    }

    /// Windows from left to right.
    fn columns(self) -> usize {
        self.width.div_ceil(self.stride)
    }

    fn window_len(self) -> usize {
        KERNEL_SIZE.pow(2) * self.channels
    }

    /// Writes the windows of every image, `(k, k, channels)` each.
    fn windows(self, xs: &[f32], windows: &mut Vec<f32>, place: Place) {
        let (rows, columns) = (self.rows(), self.columns());
        let image_len = self.height * self.width * self.channels;
        let windows_len = (place.prefix + rows * columns) * self.window_len();
        windows.resize(place.images * windows_len, 0.0);
        let images = xs.par_chunks_exact(image_len);
        let out = windows.par_chunks_exact_mut(windows_len);
        out.zip(images).for_each(|(out, xs)| {
            let out = &mut out[place.prefix * self.window_len()..];
            for (at, window) in out.chunks_exact_mut(self.window_len()).enumerate() {
                let (row, column) = (at / columns, at % columns);
                let (top, left) = (row * self.stride, column * self.stride);
                let inside = |start: usize, size: usize| {
                    start >= PADDING && start + KERNEL_SIZE <= PADDING + size
                };
                if !(inside(top, self.height) && inside(left, self.width)) {
                    self.window_at_border(xs, (top, left), window);
                } else if self.channels == 1 {
                    // A call to copy so few values takes longer than the copy.
                    self.window_inside(xs, (top, left), window, |to, from| {
                        to[..KERNEL_SIZE].clone_from_slice(&from[..KERNEL_SIZE]);
                    });
                } else {
                    self.window_inside(xs, (top, left), window, <[f32]>::copy_from_slice);
                }
            }
        });
    }

    /// A window of which all pixels are the image's; it starts at `(top, left)` of the padded image.
    #[inline(always)]
    fn window_inside(
        self,
        xs: &[f32],
        (top, left): (usize, usize),
        window: &mut [f32],
        copy: impl Fn(&mut [f32], &[f32]),
    ) {
        let len = KERNEL_SIZE * self.channels;
        let from = ((top - PADDING) * self.width + left - PADDING) * self.channels;
        let rows = xs[from..].chunks(self.width * self.channels);
        for (to, from) in window.chunks_exact_mut(len).zip(rows) {
            copy(to, &from[..len]);
        }
    }

    /// A window that the padding is a part of.
    fn window_at_border(self, xs: &[f32], (top, left): (usize, usize), window: &mut [f32]) {
        let (k, c) = (KERNEL_SIZE, self.channels);
        // In the padded image.
        let first = left.max(PADDING);
        let end = (left + k).min(PADDING + self.width);
        for (ky, out) in window.chunks_exact_mut(k * c).enumerate() {
            out.fill(0.0);
            let y = (top + ky).wrapping_sub(PADDING);
            if y < self.height && first < end {
                let from = (y * self.width + first - PADDING) * c;
                let len = (end - first) * c;
                out[(first - left) * c..][..len].copy_from_slice(&xs[from..from + len]);
            }
        }
    }
}

/// The map of a convolution's windows, whose channels come last.
fn prepared((weight, bias): &Convolution) -> Result<PreparedLinear> {
    let weight = weight.permute((0, 2, 3, 1))?.flatten_from(1)?;
    PreparedLinear::new(&weight.contiguous()?, Some(bias), bias.dim(0)?)
}
