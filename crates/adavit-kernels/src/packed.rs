//! Products Y = X B with B packed in panels of columns, so that a tile of Y is summed whole in
//! registers, and what follows the product (bias, GELU, residual) happens while it is in cache.
//!
//! Every element of Y is one chain of multiply-adds over the inner dimension, in order: it depends
//! neither on the other rows of X nor on the number of threads. A product may leave out rows,
//! ranges of the inner dimension and ranges of columns: what is left out is neither read nor
//! computed.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::shared::{Aligned, Shared, with_scratch};
use crate::simd::Level;
use crate::tile;

/// Rows of a task, so that they stay in the second cache.
const ROWS: usize = 96;

/// Multiply-adds below which a task is not worth its start.
const TASK_MACS: usize = 1 << 20;

/// A matrix `(k, n)` in panels of columns, zeros behind the last.
#[derive(Debug, Clone)]
pub(crate) struct Packed {
    panels: Aligned,
    /// Columns of a panel: [`Packed::PANEL`], or half of it.
    width: usize,
    k: usize,
    n: usize,
}

impl Packed {
    /// Columns of a panel, where nothing asks for fewer.
    pub(crate) const PANEL: usize = 32;

    /// Packs the transposed of `rows`, which are n rows of k values.
    pub(crate) fn transposed(rows: &[f32], k: usize, width: usize) -> Self {
        let n = rows.len() / k.max(1);
        let pack = |panel: &mut [f32], first: usize| {
            for (column, row) in rows.chunks_exact(k).skip(first).take(width).enumerate() {
                for (to, x) in panel.chunks_exact_mut(width).zip(row) {
                    to[column] = *x;
                }
            }
        };
        Self::pack((k, n), width, pack)
    }

    /// Packs k rows of n values.
    pub(crate) fn rows(rows: &[f32], n: usize) -> Self {
        let k = rows.len() / n.max(1);
        let pack = |panel: &mut [f32], first: usize| {
            let width = Self::PANEL.min(n - first);
            for (to, row) in panel
                .chunks_exact_mut(Self::PANEL)
                .zip(rows.chunks_exact(n))
            {
                to[..width].copy_from_slice(&row[first..first + width]);
            }
        };
        Self::pack((k, n), Self::PANEL, pack)
    }

    fn pack((k, n): (usize, usize), width: usize, pack: impl Fn(&mut [f32], usize) + Sync) -> Self {
        let mut panels = Aligned::zeros(n.div_ceil(width) * width * k);
        panels
            .as_mut_slice()
            .par_chunks_mut((width * k).max(1))
            .enumerate()
            .for_each(|(index, panel)| pack(panel, index * width));
        Self {
            panels,
            width,
            k,
            n,
        }
    }

    /// Returns the inner size.
    pub(crate) fn k(&self) -> usize {
        self.k
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

/// Rows of an input and of the output that belongs to it.
#[derive(Debug, Clone, Copy)]
pub enum Rows<'a> {
    /// The first n.
    All(usize),
    /// These, ascending.
    Some(&'a [usize]),
}

impl Rows<'_> {
    pub(crate) fn len(self) -> usize {
        match self {
            Rows::All(n) => n,
            Rows::Some(rows) => rows.len(),
        }
    }

    /// Panics unless rows ascend and lie below `m`.
    pub(crate) fn check(self, m: usize) {
        match self {
            Rows::All(n) => assert!(n <= m, "rows: at most {m}, found {n}"),
            Rows::Some(rows) => {
                let ascending = rows.is_sorted_by(|a, b| a < b);
                let bounded = rows.last().is_none_or(|row| *row < m);
                assert!(ascending && bounded, "rows: ascending and below {m}");
            }
        }
    }

    #[inline(always)]
    pub(crate) fn at(self, index: usize) -> usize {
        match self {
            Rows::All(_) => index,
            Rows::Some(rows) => rows[index],
        }
    }
}

/// Rows that take the same part of a product. The rows of all parts of a product together ascend.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// The rows to compute.
    pub rows: Rows<'a>,
    /// Ranges of inputs, ascending: the others count as zero.
    pub inner: &'a [Range<usize>],
    /// Ranges of outputs, ascending, each starting with a group: the others are left as they are.
    pub columns: &'a [Range<usize>],
}

impl Part<'_> {
    /// Returns the multiply-adds.
    pub(crate) fn macs(&self) -> usize {
        let total = |ranges: &[Range<usize>]| ranges.iter().map(Range::len).sum::<usize>();
        self.rows.len() * total(self.inner) * total(self.columns)
    }
}

/// Some rows and panels of a part.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    part: usize,
    rows: Range<usize>,
    columns: Range<usize>,
}

/// Multiplies the whole of `xs`, rows of k values, by `b`.
pub(crate) fn product<const O: usize>(
    level: Level,
    xs: &[f32],
    b: &Packed,
    outputs: [&mut [f32]; O],
    finish: impl Fn(Piece, [&mut [f32]; O], &[f32]) + Sync,
) {
    let all = Part {
        rows: Rows::All(xs.len() / b.k.max(1)),
        inner: &[0..b.k],
        columns: &[0..b.n],
    };
    let mut tasks = Vec::new();
    partial_product(level, (xs, b), &[all], outputs, (finish, &mut tasks));
}

/// Multiplies parts of `xs` by parts of `b`; `finish` gets every piece of a row of the product with
/// the same piece of each output, rows of n values, to write.
///
/// `tasks` is room for the division of the work.
///
/// # Panics
/// If the rows of all parts together, or the columns of one, do not ascend or lie out of bounds.
pub(crate) fn partial_product<const O: usize>(
    level: Level,
    (xs, b): (&[f32], &Packed),
    parts: &[Part],
    outputs: [&mut [f32]; O],
    (finish, tasks): (
        impl Fn(Piece, [&mut [f32]; O], &[f32]) + Sync,
        &mut Vec<Task>,
    ),
) {
    check(parts, b, xs.len() / b.k.max(1));
    let outputs = outputs.map(Shared::new);
    divide(parts, b, tasks);
    tasks.par_iter().with_max_len(1).for_each(|task| {
        let part = &parts[task.part];
        with_scratch(task.rows.len() * b.width, |tile| {
            for column in task.columns.clone().step_by(b.width) {
                let columns = column..(column + b.width).min(task.columns.end);
                multiply(
                    level,
                    (xs, b),
                    (part.rows, &task.rows),
                    part.inner,
                    (column, tile),
                );
                // On its own, so that it takes no register from the product.
                level.run(
                    #[inline(always)]
                    || {
                        for (index, sums) in tile.chunks_exact(b.width).enumerate() {
                            let row = part.rows.at(task.rows.start + index);
                            let place = row * b.n + column;
                            let ys = outputs.each_ref().map(
                                #[inline(always)]
                                |output| {
                                    // SAFETY: rows and columns ascend, so the pieces of all tasks
                                    // are apart.
                                    unsafe { output.range(place, columns.len()) }
                                },
                            );
                            finish(Piece { row, column }, ys, &sums[..columns.len()]);
                        }
                    },
                );
            }
        });
    });
}

/// Checks that no two pieces of the outputs overlap and that all lie within bounds.
fn check(parts: &[Part], b: &Packed, m: usize) {
    let mut next_row = 0;
    for part in parts {
        part.rows.check(m);
        if part.rows.len() > 0 {
            assert!(part.rows.at(0) >= next_row, "product: parts ascend");
            next_row = part.rows.at(part.rows.len() - 1) + 1;
        }
        let mut next_column = 0;
        for columns in part.columns {
            assert!(
                columns.start >= next_column
                    && columns.end <= b.n
                    && columns.start.is_multiple_of(b.width),
                "product: ascending columns from panels' starts"
            );
            // The last panel of a range ends with it.
            next_column = columns.end.next_multiple_of(b.width);
        }
        let inner = part.inner.iter();
        assert!(
            inner.clone().all(|range| range.end <= b.k),
            "product: inner ranges within bounds"
        );
    }
}

/// Divides the parts into equal tasks of about [`ROWS`] rows, whole tiles of 8.
fn divide(parts: &[Part], b: &Packed, tasks: &mut Vec<Task>) {
    tasks.clear();
    for (index, part) in parts.iter().enumerate() {
        let m = part.rows.len();
        if m == 0 {
            continue;
        }
        let height = m.div_ceil(m.div_ceil(ROWS)).next_multiple_of(8);
        let depth: usize = part.inner.iter().map(Range::len).sum();
        let panel_macs = (height * depth * b.width).max(1);
        let width = b.width * (TASK_MACS / panel_macs).max(1);
        for start in (0..m).step_by(height) {
            for columns in part.columns {
                for column in columns.clone().step_by(width) {
                    tasks.push(Task {
                        part: index,
                        rows: start..(start + height).min(m),
                        columns: column..(column + width).min(columns.end),
                    });
                }
            }
        }
    }
}

/// Writes the product of some rows and a panel to `tile`.
fn multiply(
    level: Level,
    (xs, b): (&[f32], &Packed),
    (rows, some): (Rows, &Range<usize>),
    inner: &[Range<usize>],
    (column, tile): (usize, &mut [f32]),
) {
    level.dispatch(Multiply {
        tile,
        xs,
        place: |index: usize| rows.at(some.start + index) * b.k,
        panel: &b.panels.as_slice()[column * b.k..][..b.width * b.k],
        inner,
        width: b.width,
    });
}

struct Multiply<'a, P> {
    tile: &'a mut [f32],
    xs: &'a [f32],
    place: P,
    panel: &'a [f32],
    inner: &'a [Range<usize>],
    width: usize,
}

impl<P: Fn(usize) -> usize> WithSimd for Multiply<'_, P> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let right = (self.panel, self.inner);
        tile::multiply_rows(simd, self.tile, (self.xs, self.place), right, self.width);
    }
}
