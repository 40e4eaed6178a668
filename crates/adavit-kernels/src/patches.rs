//! Images to rows of pixels: the patch embedding is one product, never a convolution.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::fused::{self, slice, tensor, values};
use crate::{composed, shape};

/// Returns the non-overlapping patches of each image, row by row, each laid out `(C, P, P)` like
/// the weight of the convolution that it replaces.
///
/// # Shapes
/// `xs`: `(B, C, H, W)`, H and W multiples of `patch_size` P -> `(B, (H / P) (W / P), C P P)`.
pub fn patchify(xs: &Tensor, patch_size: usize) -> Result<Tensor> {
    let (_, _, h, w) = xs.dims4()?;
    shape::divides("patch size", patch_size, h)?;
    shape::divides("patch size", patch_size, w)?;
    if fused::applies(&[xs]) {
        return xs.contiguous()?.apply_op1(Patchify { patch_size });
    }
    composed::patchify(xs, patch_size)
}

struct Patchify {
    patch_size: usize,
}

impl CustomOp1 for Patchify {
    fn name(&self) -> &'static str {
        "patchify"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (b, c, h, w) = layout.shape().dims4()?;
        let p = self.patch_size;
        let image = (c * h * w).max(1);
        let xs = slice(xs, layout)?;
        let mut ys = vec![0.0; xs.len()];
        ys.par_chunks_mut(image)
            .zip(xs.par_chunks(image))
            .for_each(|(ys, xs)| {
                self.for_runs((c, h, w), |at, patch_at| {
                    ys[patch_at..patch_at + p].copy_from_slice(&xs[at..at + p]);
                });
            });
        let shape = Shape::from((b, (h / p) * (w / p), c * p * p));
        Ok((CpuStorage::F32(ys), shape))
    }

    fn bwd(&self, xs: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, c, h, w) = xs.dims4()?;
        let p = self.patch_size;
        let image = (c * h * w).max(1);
        let grad = grad.contiguous()?;
        let mut dx = vec![0.0; xs.elem_count()];
        dx.par_chunks_mut(image)
            .zip(values(&grad)?.par_chunks(image))
            .for_each(|(dx, grad)| {
                self.for_runs((c, h, w), |at, patch_at| {
                    dx[at..at + p].copy_from_slice(&grad[patch_at..patch_at + p]);
                });
            });
        Ok(Some(tensor(dx, xs)?))
    }
}

impl Patchify {
    /// Calls `f(place in the image, place in the patches)` for each run of P pixels.
    fn for_runs(&self, (c, h, w): (usize, usize, usize), mut f: impl FnMut(usize, usize)) {
        let p = self.patch_size;
        for channel in 0..c {
            for y in 0..h {
                for column in 0..w / p {
                    let patch = (y / p) * (w / p) + column;
                    let patch_at = (patch * c + channel) * p * p + (y % p) * p;
                    f((channel * h + y) * w + column * p, patch_at);
                }
            }
        }
    }
}
