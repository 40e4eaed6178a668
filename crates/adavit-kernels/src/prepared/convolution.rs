//! Convolutions at inference, without copies of the windows.
//!
//! The channels of a pixel lie side by side. So each row of a window is one run of values, and the
//! product reads the runs in place.

use std::ops::Range;

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use crate::cpu::math;
use crate::cpu::packed::Packed;
use crate::cpu::shared::{Shared, with_scratch};
use crate::cpu::simd::Level;
use crate::cpu::tile::{PanelProduct, PlacedRows};
use crate::prepared::weights::{biases, floats};
use crate::prepared::workspace::Workspace;
use crate::shape;
use crate::trace::operation;

/// Outputs of a piece of work.
const PIXELS: usize = 96;

/// Multiply-adds below which pieces are not worth a task each.
const TASK_MACS: usize = 1 << 17;

/// Where pixels lie in a list of pixels: pixel (i, y, x) of a batch is number
/// `first + i * image + y * row + x * column`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PixelGrid {
    /// The number of the first pixel.
    pub first: usize,
    /// From a pixel to the one on its right.
    pub column: usize,
    /// From a pixel to the one below.
    pub row: usize,
    /// From an image to the next.
    pub image: usize,
}

impl PixelGrid {
    /// The number behind the last pixel of `images` images of a size, if there is such a number.
    fn end(self, images: usize, (height, width): (usize, usize)) -> Option<usize> {
        if images * height * width == 0 {
            return Some(0);
        }
        let image = self.image.checked_mul(images - 1)?;
        let row = self.row.checked_mul(height - 1)?;
        let column = self.column.checked_mul(width - 1)?;
        let last = self.first.checked_add(image)?.checked_add(row)?;
        last.checked_add(column)?.checked_add(1)
    }

    /// Whether no two pixels of images of a size are the same.
    fn apart(self, (height, width): (usize, usize)) -> bool {
        let row = self.column.checked_mul(width);
        let rows = self.row.checked_mul(height.saturating_sub(1));
        let image = rows.zip(row).and_then(|(rows, row)| rows.checked_add(row));
        self.column > 0
            && row.is_some_and(|row| row <= self.row)
            && image.is_some_and(|image| image <= self.image)
    }

    #[inline(always)]
    fn at(self, image: usize, (y, x): (usize, usize)) -> usize {
        self.first + image * self.image + y * self.row + x * self.column
    }
}

/// Where a convolution reads and writes its pixels.
#[derive(Debug, Clone, Copy)]
pub struct ConvolutionPlaces {
    /// Height and width of the output.
    pub size: (usize, usize),
    /// The first pixel of each output's window, among the pixels of the input with its padding.
    pub windows: PixelGrid,
    /// From a pixel of the input to the one below.
    pub input_row: usize,
    /// The outputs.
    pub outputs: PixelGrid,
}

/// A convolution with its weight packed for inference, over inputs that hold their padding.
#[derive(Debug, Clone)]
pub struct PreparedConvolution {
    weight: Packed,
    bias: Vec<f32>,
    channels: usize,
    /// The inputs of a window's rows.
    runs: Vec<Range<usize>>,
    places: ConvolutionPlaces,
}

impl PreparedConvolution {
    /// Packs `weight`, `(O, I, k, k)`, and `bias`, `(O,)`.
    ///
    /// # Errors
    /// If the tensors have other shapes or are empty, two outputs would lie in the same place, or a
    /// row of the input is narrower than a window.
    pub fn new(weight: &Tensor, bias: &Tensor, places: ConvolutionPlaces) -> Result<Self> {
        let (n_out, channels, k, _) = weight.dims4()?;
        shape::expect("prepared convolution", weight, &[n_out, channels, k, k])?;
        if weight.elem_count() == 0 {
            bail!(
                "prepared convolution: expected a weight, found {:?}",
                weight.dims()
            );
        }
        if !places.outputs.apart(places.size) {
            bail!("prepared convolution: expected outputs in different places, found {places:?}");
        }
        if places.input_row < k {
            bail!("prepared convolution: expected rows of at least {k} pixels, found {places:?}");
        }
        let run = k * channels;
        let weight = weight.permute((0, 2, 3, 1))?.flatten_from(1)?;
        Ok(Self {
            weight: Packed::transposed(&floats(&weight)?, k * run),
            bias: biases(Some(bias), n_out)?,
            channels,
            runs: (0..k).map(|row| row * run..(row + 1) * run).collect(),
            places,
        })
    }

    /// Returns the output channels.
    pub fn n_out(&self) -> usize {
        self.bias.len()
    }

    /// Writes the exact GELU of the outputs of `images` images: `xs` has pixels of I values, `ys` of O.
    ///
    /// # Panics
    /// If a place lies out of bounds.
    pub fn write_gelu(&self, images: usize, xs: &[f32], ys: &mut [f32], work: &mut Workspace) {
        let ConvolutionPlaces { size, outputs, .. } = self.places;
        let (pixels, n) = (size.0 * size.1, self.weight.n());
        let end = outputs.end(images, size).and_then(|end| end.checked_mul(n));
        assert!(
            end.is_some_and(|end| end <= ys.len()),
            "convolution: outputs within bounds"
        );
        let macs_of_piece = PIXELS.min(pixels) * self.weight.k() * n;
        let macs = images * pixels * self.weight.k() * n;
        let _span = operation("convolution", macs);
        work.count(macs as u64);
        let per_image = pixels.div_ceil(PIXELS);
        let shared = Shared::new(ys);
        let pieces = (0..images * per_image).into_par_iter();
        let pieces = pieces.with_min_len((TASK_MACS / macs_of_piece.max(1)).max(1));
        pieces.for_each(|piece| {
            let (image, start) = (piece / per_image, piece % per_image * PIXELS);
            let some = start..(start + PIXELS).min(pixels);
            self.piece(image, some, xs, &shared);
        });
    }

    /// Writes the outputs `some` of one image.
    fn piece(&self, image: usize, some: Range<usize>, xs: &[f32], ys: &Shared) {
        let (level, panel_width, n) = (Level::current(), self.weight.width(), self.weight.n());
        // Where each window starts and each output lies.
        let mut table = [OutputPlace::default(); PIXELS];
        let table = &mut table[..some.len()];
        for (places, index) in table.iter_mut().zip(some) {
            let pixel = (index / self.places.size.1, index % self.places.size.1);
            *places = OutputPlace {
                window: self.places.windows.at(image, pixel) * self.channels,
                output: self.places.outputs.at(image, pixel) * n,
            };
        }
        let run = self.runs.first().map_or(0, Range::len);
        with_scratch(table.len() * panel_width, |tile| {
            for column in (0..n).step_by(panel_width) {
                level.dispatch(PanelProduct {
                    ys: tile,
                    left: PlacedRows {
                        values: xs,
                        place: |index: usize| table[index].window,
                        inner: &self.runs,
                        skip: self.places.input_row * self.channels - run,
                    },
                    panel: self.weight.panel(column),
                    width: panel_width,
                });
                let bias = &self.bias[column..(column + panel_width).min(n)];
                level.run(
                    #[inline(always)]
                    || {
                        for (sums, place) in tile.chunks_exact(panel_width).zip(&*table) {
                            // SAFETY: outputs lie in different places by the check in `new`; none of
                            // these places wraps around by the check in `write_gelu`; and no two
                            // pieces have the same outputs.
                            let ys = unsafe { ys.range(place.output + column, bias.len()) };
                            for ((y, sum), b) in ys.iter_mut().zip(sums).zip(bias) {
                                *y = math::gelu(sum + b);
                            }
                        }
                    },
                );
            }
        });
    }
}

/// Where the window of an output starts among the inputs, and where the output lies.
#[derive(Clone, Copy, Default)]
struct OutputPlace {
    window: usize,
    output: usize,
}
