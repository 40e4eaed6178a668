//! Products Y = X B with B packed in panels of columns, so that a tile of Y is summed whole in
//! registers, and what follows the product (bias, GELU, residual) happens while it is in cache.
//!
//! Every element of Y is one chain of multiply-adds over the inner dimension, in order. So it depends
//! neither on the other rows of X nor on the number of threads. A product may skip rows, ranges of the
//! inner dimension and ranges of columns: they are neither read nor computed.

use std::ops::Range;

use rayon::prelude::*;

use crate::cpu::parts::{Part, PartList, Rows, total};
use crate::cpu::shared::{Aligned, Shared, with_scratch};
use crate::cpu::simd::Level;
use crate::cpu::tile::{PanelProduct, PlacedRows};

/// Rows of a task, so that they stay in the second cache.
const ROWS: usize = 96;

/// Rows of a task are a multiple of this, which is a multiple of the rows of every block of a tile.
const BLOCKS: usize = 24;

/// Multiply-adds below which a task is not worth its start.
const TASK_MACS: usize = 1 << 20;

/// A matrix `(k, n)` in panels of columns. Columns come in groups; a group starts with a panel, and
/// zeros follow its last column.
#[derive(Debug, Clone)]
pub(crate) struct Packed {
    panels: Aligned,
    layout: PanelLayout,
}

/// How a matrix `(k, n)` is cut into panels.
#[derive(Debug, Clone, Copy)]
struct PanelLayout {
    k: usize,
    n: usize,
    /// Columns of a panel: [`Packed::PANEL`], or half of it.
    width: usize,
    /// Columns of a group.
    group: usize,
}

impl Packed {
    /// Columns of a panel, where nothing asks for fewer.
    pub(crate) const PANEL: usize = 32;

    /// Packs the transposed of `rows`, which are n rows of k values.
    pub(crate) fn transposed(rows: &[f32], k: usize) -> Self {
        Self::grouped(rows, k, rows.len() / k.max(1))
    }

    /// As [`Self::transposed`], with columns in groups of `group`.
    pub(crate) fn grouped(rows: &[f32], k: usize, group: usize) -> Self {
        let n = rows.len() / k.max(1);
        let half = Self::PANEL / 2;
        // The narrower panel where the wider one would have an eighth of zeros more.
        let (wide, narrow) = (
            group.next_multiple_of(Self::PANEL),
            group.next_multiple_of(half),
        );
        let width = if 8 * wide <= 9 * narrow {
            Self::PANEL
        } else {
            half
        };
        let pack = |panel: &mut [f32], columns: Range<usize>| {
            let rows = rows.chunks_exact(k).skip(columns.start);
            for (column, row) in rows.take(columns.len()).enumerate() {
                for (to, x) in panel.chunks_exact_mut(width).zip(row) {
                    to[column] = *x;
                }
            }
        };
        let layout = PanelLayout { k, n, width, group };
        Self::pack(layout, pack)
    }

    /// Packs k rows of n values.
    pub(crate) fn rows(rows: &[f32], n: usize) -> Self {
        let k = rows.len() / n.max(1);
        let pack = |panel: &mut [f32], columns: Range<usize>| {
            for (to, row) in panel
                .chunks_exact_mut(Self::PANEL)
                .zip(rows.chunks_exact(n))
            {
                to[..columns.len()].copy_from_slice(&row[columns.clone()]);
            }
        };
        let layout = PanelLayout {
            k,
            n,
            width: Self::PANEL,
            group: n,
        };
        Self::pack(layout, pack)
    }

    /// Packs a matrix; `pack` writes the panel of the given columns.
    fn pack(layout: PanelLayout, pack: impl Fn(&mut [f32], Range<usize>) + Sync) -> Self {
        let PanelLayout { k, n, width, .. } = layout;
        let group = layout.group.max(1);
        let per_group = group.div_ceil(width);
        let mut panels = Aligned::zeros(n / group * per_group * width * k);
        panels
            .as_mut_slice()
            .par_chunks_mut((width * k).max(1))
            .enumerate()
            .for_each(|(index, panel)| {
                let start = index / per_group * group + index % per_group * width;
                let end = (start + width).min((index / per_group + 1) * group);
                pack(panel, start..end);
            });
        Self {
            panels,
            layout: PanelLayout { group, ..layout },
        }
    }

    /// Returns the panel that starts with `column`.
    pub(crate) fn panel(&self, column: usize) -> &[f32] {
        let padded = self.layout.group.next_multiple_of(self.layout.width);
        let place = column / self.layout.group * padded + column % self.layout.group;
        &self.panels.as_slice()[place * self.layout.k..][..self.layout.width * self.layout.k]
    }

    /// Returns the end of the panel that `column` lies in.
    fn panel_end(&self, column: usize) -> usize {
        let start = column / self.layout.group * self.layout.group;
        let within = (column - start + 1).next_multiple_of(self.layout.width);
        start + within.min(self.layout.group)
    }

    /// Returns the columns of a panel.
    pub(crate) fn width(&self) -> usize {
        self.layout.width
    }

    /// Returns the inner size.
    pub(crate) fn k(&self) -> usize {
        self.layout.k
    }

    /// Returns the columns.
    pub(crate) fn n(&self) -> usize {
        self.layout.n
    }
}

/// A piece of a row of Y.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    pub(crate) row: usize,
    pub(crate) column: usize,
}

/// A panel of a part: the one that starts with `column`, which lies in range `range` of the part's
/// columns.
#[derive(Debug, Clone, Copy)]
struct PanelStart {
    range: usize,
    column: usize,
}

/// Some rows of a part, and some of its panels, from `start` on.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    part: usize,
    rows: Range<usize>,
    start: PanelStart,
    panels: usize,
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
        rows: Rows::All(xs.len() / b.k().max(1)),
        inner: &[0..b.k()],
        columns: &[0..b.n()],
    };
    let parts = PartList::One(all);
    let product = PartialProduct {
        level,
        xs,
        b,
        parts,
    };
    product.run(outputs, finish, &mut Vec::new());
}

/// A product of parts of `xs` and parts of `b`.
pub(crate) struct PartialProduct<'a> {
    pub(crate) level: Level,
    /// Rows of k values.
    pub(crate) xs: &'a [f32],
    pub(crate) b: &'a Packed,
    pub(crate) parts: PartList<'a>,
}

impl PartialProduct<'_> {
    /// Computes the product; `finish` gets every piece of a row of it with the same piece of each
    /// output, rows of n values, to write.
    ///
    /// `tasks` is room for the division of the work.
    ///
    /// # Panics
    /// If the rows of all parts together, or the columns of one, do not ascend or lie out of bounds.
    pub(crate) fn run<const O: usize>(
        &self,
        outputs: [&mut [f32]; O],
        finish: impl Fn(Piece, [&mut [f32]; O], &[f32]) + Sync,
        tasks: &mut Vec<Task>,
    ) {
        let (b, parts) = (self.b, self.parts);
        let (width, n) = (b.width(), b.n());
        let (mut next_row, m) = (0, self.xs.len() / b.k().max(1));
        tasks.clear();
        for index in 0..parts.len() {
            let part = parts.get(index);
            next_row = check(&part, b, next_row..m);
            divide(&part, index, b, tasks);
        }
        let outputs = outputs.map(Shared::new);
        tasks.par_iter().with_max_len(1).for_each(|task| {
            let part = parts.get(task.part);
            with_scratch(task.rows.len() * width, |tile| {
                for columns in panels(&part, b, task.start).take(task.panels) {
                    let column = columns.start;
                    self.multiply(&part, &task.rows, column, tile);
                    // On its own, so that it takes no register from the product.
                    self.level.run(
                        #[inline(always)]
                        || {
                            for (index, sums) in tile.chunks_exact(width).enumerate() {
                                let row = part.rows.at(task.rows.start + index);
                                let place = row * n + column;
                                let ys = outputs.each_ref().map(
                                    #[inline(always)]
                                    |output| {
                                        // SAFETY: rows and columns ascend, so the pieces of all
                                        // tasks are apart.
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

    /// Writes the product of some rows of a part and the panel at `column` to `tile`.
    fn multiply(&self, part: &Part, some: &Range<usize>, column: usize, tile: &mut [f32]) {
        let (rows, k) = (part.rows, self.b.k());
        self.level.dispatch(PanelProduct {
            ys: tile,
            left: PlacedRows {
                values: self.xs,
                place: |index: usize| rows.at(some.start + index) * k,
                inner: part.inner,
                skip: 0,
            },
            panel: self.b.panel(column),
            width: self.b.width(),
        });
    }
}

/// Checks that no two pieces of the outputs overlap and that all lie within bounds, given the rows
/// that are left; returns the first row for the next part.
fn check(part: &Part, b: &Packed, left: Range<usize>) -> usize {
    let mut next_column = 0;
    for columns in part.columns {
        assert!(
            columns.start >= next_column
                && columns.end <= b.n()
                && (columns.start % b.layout.group).is_multiple_of(b.width()),
            "product: ascending columns from panels' starts"
        );
        // The last panel of a range ends with it.
        if let Some(last) = columns.clone().next_back() {
            next_column = b.panel_end(last);
        }
    }
    assert!(
        part.inner.iter().all(|range| range.end <= b.k()),
        "product: inner ranges within bounds"
    );
    part.rows.check(left.end);
    if part.rows.len() == 0 {
        return left.start;
    }
    assert!(part.rows.at(0) >= left.start, "product: parts ascend");
    part.rows.at(part.rows.len() - 1) + 1
}

/// Returns the columns of each panel of a part, from `start` on.
fn panels<'a>(
    part: &Part<'a>,
    b: &'a Packed,
    start: PanelStart,
) -> impl Iterator<Item = Range<usize>> + use<'a> {
    let columns = part.columns;
    let PanelStart {
        mut range,
        mut column,
    } = start;
    std::iter::from_fn(move || {
        let mut end = columns.get(range)?.end;
        while column >= end {
            range += 1;
            let next = columns.get(range)?;
            (column, end) = (next.start, next.end);
        }
        let panel = column..b.panel_end(column).min(end);
        column = panel.end;
        Some(panel)
    })
}

/// Divides a part into equal tasks of about [`ROWS`] rows, whole blocks, and as many panels as make
/// [`TASK_MACS`].
fn divide(part: &Part, index: usize, b: &Packed, tasks: &mut Vec<Task>) {
    let m = part.rows.len();
    if m == 0 {
        return;
    }
    let height = m.div_ceil(m.div_ceil(ROWS)).next_multiple_of(BLOCKS);
    let height = height.min(m.next_multiple_of(8));
    let panel_macs = (height * total(part.inner) * b.width()).max(1);
    let most = (TASK_MACS / panel_macs).max(1);
    for start in (0..m).step_by(height) {
        let rows = start..(start + height).min(m);
        let mut panel = 0;
        for (range, columns) in part.columns.iter().enumerate() {
            let mut column = columns.start;
            while column < columns.end {
                if panel % most == 0 {
                    tasks.push(Task {
                        part: index,
                        rows: rows.clone(),
                        start: PanelStart { range, column },
                        panels: most,
                    });
                }
                panel += 1;
                column = b.panel_end(column);
            }
        }
    }
}
