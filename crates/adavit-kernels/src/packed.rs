//! Products Y = X B with B packed in panels of 32 columns, so that a tile of Y is summed whole in
//! registers and what follows the product (bias, GELU, gates) happens while the tile is in cache.
//!
//! Every element of Y is one chain of multiply-adds over the inner dimension: it depends neither on
//! the other rows of X nor on the number of threads.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::shared::{Aligned, Shared, with_scratch};
use crate::simd::Level;
use crate::tile::{Left, multiply};

/// Columns of a panel.
const PANEL: usize = 32;

/// Rows of a task, so that they stay in the second cache.
const ROWS: usize = 96;

/// Multiply-adds below which a task is not worth its start.
const TASK_MACS: usize = 1 << 20;

/// A matrix `(k, n)` in panels of columns, zeros behind the last.
#[derive(Debug, Clone)]
pub(crate) struct Packed {
    panels: Aligned,
    k: usize,
    n: usize,
}

impl Packed {
    /// Packs the transposed of `rows`, which are n rows of k values.
    pub(crate) fn transposed(rows: &[f32], k: usize) -> Self {
        let n = rows.len() / k.max(1);
        let pack = |panel: &mut [f32], first: usize| {
            for (column, row) in rows.chunks_exact(k).skip(first).take(PANEL).enumerate() {
                for (to, x) in panel.chunks_exact_mut(PANEL).zip(row) {
                    to[column] = *x;
                }
            }
        };
        Self::pack((k, n), pack)
    }

    /// Packs k rows of n values.
    pub(crate) fn rows(rows: &[f32], n: usize) -> Self {
        let k = rows.len() / n.max(1);
        let pack = |panel: &mut [f32], first: usize| {
            let width = PANEL.min(n - first);
            for (to, row) in panel.chunks_exact_mut(PANEL).zip(rows.chunks_exact(n)) {
                to[..width].copy_from_slice(&row[first..first + width]);
            }
        };
        Self::pack((k, n), pack)
    }

    fn pack((k, n): (usize, usize), pack: impl Fn(&mut [f32], usize) + Sync) -> Self {
        let mut panels = Aligned::zeros(n.div_ceil(PANEL) * PANEL * k);
        panels
            .as_mut_slice()
            .par_chunks_mut((PANEL * k).max(1))
            .enumerate()
            .for_each(|(index, panel)| pack(panel, index * PANEL));
        Self { panels, k, n }
    }

    /// Returns the columns.
    pub(crate) fn n(&self) -> usize {
        self.n
    }
}

/// A piece of a row of Y.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    pub(crate) row: usize,
    pub(crate) column: usize,
}

/// Multiplies `xs`, rows of k values, by `b`; `finish` gets every piece of a row of the product with
/// the same piece of each output `(m, n)` to write.
pub(crate) fn product<const O: usize>(
    level: Level,
    xs: &[f32],
    b: &Packed,
    outputs: [&mut [f32]; O],
    finish: impl Fn(Piece, [&mut [f32]; O], &[f32]) + Sync,
) {
    let m = xs.len() / b.k.max(1);
    if m == 0 || b.n == 0 {
        return;
    }
    for output in &outputs {
        assert_eq!(output.len(), m * b.n, "product: output size");
    }
    let outputs = outputs.map(|output| Shared::new(output));
    // Equal tasks of about ROWS rows, whole tiles of 8.
    let rows = m.div_ceil(m.div_ceil(ROWS)).next_multiple_of(8);
    let width = PANEL * (TASK_MACS / (rows * b.k * PANEL).max(1)).max(1);
    let across = b.n.div_ceil(width);
    (0..m.div_ceil(rows) * across)
        .into_par_iter()
        .for_each(|task| {
            let (down, across) = (task / across, task % across);
            let columns = across * width..((across + 1) * width).min(b.n);
            let rows = down * rows..((down + 1) * rows).min(m);
            with_scratch(rows.len() * PANEL, |tile| {
                level.dispatch(Task {
                    xs: &xs[rows.start * b.k..rows.end * b.k],
                    b,
                    columns,
                    first_row: rows.start,
                    outputs: &outputs,
                    tile,
                    finish: &finish,
                });
            });
        });
}

struct Task<'a, F, const O: usize> {
    xs: &'a [f32],
    b: &'a Packed,
    columns: std::ops::Range<usize>,
    first_row: usize,
    outputs: &'a [Shared<'a>; O],
    tile: &'a mut [f32],
    finish: &'a F,
}

impl<F, const O: usize> WithSimd for Task<'_, F, O>
where
    F: Fn(Piece, [&mut [f32]; O], &[f32]),
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (k, n) = (self.b.k, self.b.n);
        let panels = self.b.panels.as_slice();
        for column in self.columns.step_by(PANEL) {
            let panel = &panels[column * k..][..PANEL * k];
            let left = Left::Rows(self.xs, k);
            multiply(simd, self.tile, left, (panel, k), PANEL);
            let width = PANEL.min(n - column);
            for (row, sums) in self.tile.chunks_exact(PANEL).enumerate() {
                let row = self.first_row + row;
                let ys = self.outputs.each_ref().map(|output| {
                    // SAFETY: pieces of one task are apart from those of every other.
                    unsafe { output.range(row * n + column, width) }
                });
                (self.finish)(Piece { row, column }, ys, &sums[..width]);
            }
        }
    }
}
