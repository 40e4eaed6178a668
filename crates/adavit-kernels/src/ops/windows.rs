//! Images to rows of pixels, so that a convolution is one product: the patch embedding and, where
//! the windows overlap, the soft split of T2T-ViT (Yuan et al. 2021, arXiv 2101.11986).
//!
//! A row of a window is one run of pixels in the image and one run in the output. The gradient adds
//! the runs back. One task owns one channel of one image, so that no two tasks add to the same pixel.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::args::Window;
use crate::cpu::rows::add_to;
use crate::ops::fused::{self, slice, tensor, values};
use crate::trace::operation;
use crate::{composed, shape};

/// Returns the windows of each image, row by row, each laid out `(C, k, k)` like the weight of
/// the convolution that it replaces. This is PyTorch's `nn.Unfold`, transposed.
///
/// # Shapes
/// `xs`: `(B, C, H, W)` -> `(B, L, C k k)`, with k the kernel size and L the number of windows.
///
/// # Errors
/// If the kernel size is 0 or larger than the padded image, or the stride is 0.
pub fn im2col(xs: &Tensor, window: Window) -> Result<Tensor> {
    let (_, _, h, w) = xs.dims4()?;
    window.count(h)?;
    window.count(w)?;
    if fused::applies(&[xs]) {
        return xs.contiguous()?.apply_op1(Im2col { window });
    }
    composed::im2col(xs, window)
}

/// Returns the non-overlapping patches of each image, row by row, each laid out `(C, P, P)` like
/// the weight of the convolution that it replaces: [`im2col`] for windows that tile the image.
///
/// # Shapes
/// `xs`: `(B, C, H, W)`, H and W multiples of `patch_size` P -> `(B, (H / P) (W / P), C P P)`.
pub fn patchify(xs: &Tensor, patch_size: usize) -> Result<Tensor> {
    let (_, _, h, w) = xs.dims4()?;
    shape::divides("patch size", patch_size, h)?;
    shape::divides("patch size", patch_size, w)?;
    if fused::applies(&[xs]) {
        let window = Window {
            kernel_size: patch_size,
            stride: patch_size,
            padding: 0,
        };
        return im2col(xs, window);
    }
    // No pixel is read twice, so a permutation is enough: no device needs indices.
    composed::patchify(xs, patch_size)
}

struct Im2col {
    window: Window,
}

impl CustomOp1 for Im2col {
    fn name(&self) -> &'static str {
        "im2col"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let _span = operation("im2col", 0);
        let grid = WindowGrid::new(self.window, layout.shape())?;
        let (b, c, _, _) = layout.shape().dims4()?;
        let xs = slice(xs, layout)?;
        let mut ys = vec![0.0; b * grid.rows * grid.row_len()];
        ys.par_chunks_mut(grid.row_len().max(1))
            .enumerate()
            .for_each(|(task, ys)| {
                let (image, row) = (task / grid.rows, task % grid.rows);
                for channel in 0..c {
                    let xs = &xs[(image * c + channel) * grid.channel_len()..];
                    grid.for_runs(channel, row, |from, to, len| {
                        ys[to..to + len].copy_from_slice(&xs[from..from + len]);
                    });
                }
            });
        let shape = Shape::from((b, grid.rows * grid.columns, grid.window_len()));
        Ok((CpuStorage::F32(ys), shape))
    }

    fn bwd(&self, xs: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let _span = operation("im2col backward", 0);
        let grid = WindowGrid::new(self.window, xs.shape())?;
        let grad = grad.contiguous()?;
        let grad = values(&grad)?;
        let mut dx = vec![0.0; xs.elem_count()];
        dx.par_chunks_mut(grid.channel_len().max(1))
            .enumerate()
            .for_each(|(task, dx)| {
                let (image, channel) = (task / grid.channels, task % grid.channels);
                for row in 0..grid.rows {
                    let grad = &grad[(image * grid.rows + row) * grid.row_len()..];
                    grid.for_runs(channel, row, |to, from, len| {
                        add_to(&mut dx[to..to + len], &grad[from..from + len]);
                    });
                }
            });
        Ok(Some(tensor(dx, xs)?))
    }
}

/// Where the windows of an image lie.
struct WindowGrid {
    window: Window,
    channels: usize,
    /// The image, in pixels.
    height: usize,
    width: usize,
    /// Windows from top to bottom, and from left to right.
    rows: usize,
    columns: usize,
}

impl WindowGrid {
    /// Lays windows over images of `shape`, `(B, C, H, W)`.
    fn new(window: Window, shape: &Shape) -> Result<Self> {
        let (_, c, h, w) = shape.dims4()?;
        Ok(Self {
            window,
            channels: c,
            height: h,
            width: w,
            rows: window.count(h)?,
            columns: window.count(w)?,
        })
    }

    fn channel_len(&self) -> usize {
        self.height * self.width
    }

    fn window_len(&self) -> usize {
        self.channels * self.window.kernel_size.pow(2)
    }

    /// The pixels of one row of windows.
    fn row_len(&self) -> usize {
        self.columns * self.window_len()
    }

    /// Calls `f(place in the channel, place in the row of windows, length)` for each run of pixels
    /// that lies both in a window of that row and in the image.
    #[inline(always)]
    fn for_runs(&self, channel: usize, row: usize, mut f: impl FnMut(usize, usize, usize)) {
        let k = self.window.kernel_size;
        let (stride, padding) = (self.window.stride, self.window.padding);
        for ky in 0..k {
            let y = (row * stride + ky).wrapping_sub(padding);
            if y >= self.height {
                continue;
            }
            for column in 0..self.columns {
                // In the padded image.
                let start = column * stride;
                let first = start.max(padding);
                let end = (start + k).min(padding + self.width);
                if first < end {
                    let run = ((column * self.channels + channel) * k + ky) * k;
                    let at = y * self.width + first - padding;
                    f(at, run + first - start, end - first);
                }
            }
        }
    }
}
