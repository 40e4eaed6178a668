//! Small products Y = A B in registers, for operands that lie packed in cache.
//!
//! B and Y are row-major, and their width is a multiple of [`LANES`], so that rows are whole vectors.

use std::ops::Range;

use pulp::{Simd, WithSimd};

/// Widths of packed rows are multiples of this, which is a multiple of every vector's length.
pub(crate) const LANES: usize = 16;

/// Vectors per row of a block.
const WIDTH: usize = 2;

/// Returns `n` rounded up to whole vectors, at least one.
pub(crate) fn padded(n: usize) -> usize {
    n.max(1).next_multiple_of(LANES)
}

/// The left operand: element (i, p) is at `i * stride + p` by rows, at `p * stride + i` by columns.
#[derive(Clone, Copy)]
pub(crate) enum Left<'a> {
    Rows { values: &'a [f32], stride: usize },
    Columns { values: &'a [f32], stride: usize },
}

/// The right operand: the first `rows` rows of `width` values.
#[derive(Clone, Copy)]
pub(crate) struct Right<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) width: usize,
}

/// Writes `left right` to all of `ys`, which has rows as wide as those of `right`.
#[inline(always)]
pub(crate) fn multiply<S: Simd>(simd: S, ys: &mut [f32], left: Left, right: Right) {
    // A function of its own, so that its sums stay in registers whatever surrounds it.
    simd.vectorize(Multiply {
        ys,
        left,
        right: &right.values[..right.rows * right.width],
        width: right.width,
    });
}

struct Multiply<'a> {
    ys: &'a mut [f32],
    left: Left<'a>,
    right: &'a [f32],
    width: usize,
}

impl WithSimd for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let right = S::as_simd_f32s(self.right).0;
        let ys = S::as_mut_simd_f32s(self.ys).0;
        let vectors = self.width / S::F32_LANES;
        for (start, rows) in starts::<S>(ys.len() / vectors) {
            let mut at = 0;
            let place = |at: usize| Place {
                start,
                rows,
                at,
                vectors,
            };
            while at + WIDTH <= vectors {
                rows_of::<S, WIDTH>(simd, ys, self.left, right, place(at));
                at += WIDTH;
            }
            while at < vectors {
                rows_of::<S, 1>(simd, ys, self.left, right, place(at));
                at += 1;
            }
        }
    }
}

/// A block of the product: some rows, and some vectors of each.
#[derive(Clone, Copy)]
struct Place {
    /// The first row.
    start: usize,
    rows: usize,
    /// The first vector of each row.
    at: usize,
    /// All vectors of a row.
    vectors: usize,
}

/// The product of some rows and a panel of columns: writes all of `ys`. Both `ys` and `panel` have
/// rows of `width` values.
pub(crate) struct PanelProduct<'a, P> {
    pub(crate) ys: &'a mut [f32],
    pub(crate) left: PlacedRows<'a, P>,
    pub(crate) panel: &'a [f32],
    pub(crate) width: usize,
}

/// The left operand of a [`PanelProduct`]: row i starts at `place(i)`.
pub(crate) struct PlacedRows<'a, P> {
    pub(crate) values: &'a [f32],
    pub(crate) place: P,
    /// The ranges of a row's values to multiply; they meet the panel's rows of the same ranges.
    pub(crate) inner: &'a [Range<usize>],
    /// Values between one range and the next that do not belong to the row.
    pub(crate) skip: usize,
}

impl<P: Fn(usize) -> usize> WithSimd for PanelProduct<'_, P> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let PlacedRows {
            values,
            place,
            inner,
            skip,
        } = self.left;
        let right = S::as_simd_f32s(self.panel).0;
        let ys = S::as_mut_simd_f32s(self.ys).0;
        let vectors = self.width / S::F32_LANES;
        for (start, rows) in starts::<S>(ys.len() / vectors) {
            let left = Runs {
                row: |r: usize| &values[place(start + r)..],
                inner,
                skip,
            };
            let mut at = 0;
            while at < vectors {
                let wide = at + WIDTH <= vectors;
                let ys = &mut ys[start * vectors..];
                let columns = Columns { at, vectors };
                match (rows, wide) {
                    (8, true) => ranges::<S, 8, WIDTH>(simd, ys, &left, right, columns),
                    (8, false) => ranges::<S, 8, 1>(simd, ys, &left, right, columns),
                    (6, true) => ranges::<S, 6, WIDTH>(simd, ys, &left, right, columns),
                    (6, false) => ranges::<S, 6, 1>(simd, ys, &left, right, columns),
                    (4, true) => ranges::<S, 4, WIDTH>(simd, ys, &left, right, columns),
                    (4, false) => ranges::<S, 4, 1>(simd, ys, &left, right, columns),
                    (2, true) => ranges::<S, 2, WIDTH>(simd, ys, &left, right, columns),
                    (2, false) => ranges::<S, 2, 1>(simd, ys, &left, right, columns),
                    (_, true) => ranges::<S, 1, WIDTH>(simd, ys, &left, right, columns),
                    (_, false) => ranges::<S, 1, 1>(simd, ys, &left, right, columns),
                }
                at += if wide { WIDTH } else { 1 };
            }
        }
    }
}

/// Some vectors of a row: those from `at` on, of `vectors`.
#[derive(Clone, Copy)]
struct Columns {
    at: usize,
    vectors: usize,
}

/// The rows of a block, of which only some ranges count.
struct Runs<'a, F> {
    row: F,
    inner: &'a [Range<usize>],
    skip: usize,
}

#[inline(always)]
fn ranges<'a, S: Simd, const R: usize, const W: usize>(
    simd: S,
    ys: &mut [S::f32s],
    left: &Runs<impl Fn(usize) -> &'a [f32]>,
    right: &[S::f32s],
    Columns { at, vectors }: Columns,
) {
    let mut sums = [[simd.splat_f32s(0.0); W]; R];
    for (index, range) in left.inner.iter().enumerate() {
        // Bounds are checked here, so that the loop below has nothing but products.
        let start = range.start + index * left.skip;
        let rows: [*const f32; R] =
            std::array::from_fn(|r| (left.row)(r)[start..][..range.len()].as_ptr());
        let right = &right[range.start * vectors..range.end * vectors];
        for (p, row) in right.chunks_exact(vectors).enumerate() {
            let row: &[S::f32s; W] = row[at..]
                .first_chunk()
                .expect("a block lies within the width");
            for (sums, values) in sums.iter_mut().zip(&rows) {
                // SAFETY: `right` has one row per element of the range, so p < range.len(), and
                // `values` starts a slice of range.len() elements that outlives this loop.
                step(simd, sums, unsafe { *values.add(p) }, row);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        ys[r * vectors + at..][..W].copy_from_slice(sums);
    }
}

/// Splits `m` rows into blocks that fit the registers: (first row, rows), rows in 8, 6, 4, 2, 1.
///
/// A block needs `rows * WIDTH` registers for its sums, `WIDTH` for a row of the right operand and one
/// for a value of the left: 8 rows fit the 32 registers of AVX-512, 6 rows fill the 16 of AVX2 and hide
/// the latency of its multiply-adds.
#[inline(always)]
fn starts<S: Simd>(m: usize) -> impl Iterator<Item = (usize, usize)> {
    let largest = match S::F32_LANES {
        LANES.. => 8,
        8.. => 6,
        _ => 4,
    };
    let mut start = 0;
    std::iter::from_fn(move || {
        let rest = m - start;
        let rows = match rest {
            0 => return None,
            1 => 1,
            2..4 => 2,
            _ if rest >= largest => largest,
            _ => 4,
        };
        start += rows;
        Some((start - rows, rows))
    })
}

#[inline(always)]
fn rows_of<S: Simd, const W: usize>(
    simd: S,
    ys: &mut [S::f32s],
    left: Left,
    right: &[S::f32s],
    place: Place,
) {
    match place.rows {
        8 => block::<S, 8, W>(simd, ys, left, right, place),
        6 => block::<S, 6, W>(simd, ys, left, right, place),
        4 => block::<S, 4, W>(simd, ys, left, right, place),
        2 => block::<S, 2, W>(simd, ys, left, right, place),
        _ => block::<S, 1, W>(simd, ys, left, right, place),
    }
}

#[inline(always)]
fn block<S: Simd, const R: usize, const W: usize>(
    simd: S,
    ys: &mut [S::f32s],
    left: Left,
    right: &[S::f32s],
    place: Place,
) {
    let Place {
        start, at, vectors, ..
    } = place;
    let mut sums = [[simd.splat_f32s(0.0); W]; R];
    let right = right.chunks_exact(vectors).map(|row| {
        let row: &[S::f32s; W] = row[at..]
            .first_chunk()
            .expect("a block lies within the width");
        row
    });
    // Bounds are checked before the loops, so that those have nothing but products.
    match left {
        Left::Rows { values, stride } => {
            let k = right.len();
            let rows: [*const f32; R] =
                std::array::from_fn(|r| values[(start + r) * stride..][..k].as_ptr());
            for (p, row) in right.enumerate() {
                for (sums, values) in sums.iter_mut().zip(&rows) {
                    // SAFETY: p < k, and `values` starts k elements that outlive this loop.
                    step(simd, sums, unsafe { *values.add(p) }, row);
                }
            }
        }
        Left::Columns { values, stride } => {
            let values = &values[start..];
            let k = right.len();
            assert!(k == 0 || values.len() >= (k - 1) * stride + R);
            let mut column = values.as_ptr();
            for row in right {
                for (r, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: this is column p < k, whose R elements lie within by the assertion.
                    step(simd, sums, unsafe { *column.add(r) }, row);
                }
                // Wrapping, since the pointer behind the last column is never read.
                column = column.wrapping_add(stride);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        ys[(start + r) * vectors + at..][..W].copy_from_slice(sums);
    }
}

#[inline(always)]
fn step<S: Simd, const W: usize>(simd: S, sums: &mut [S::f32s; W], x: f32, row: &[S::f32s; W]) {
    let x = simd.splat_f32s(x);
    for (sum, y) in sums.iter_mut().zip(row) {
        *sum = simd.mul_add_e_f32s(x, *y, *sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::Level;

    struct Product<'a> {
        ys: &'a mut [f32],
        left: Left<'a>,
        right: Right<'a>,
    }

    impl WithSimd for Product<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            multiply(simd, self.ys, self.left, self.right);
        }
    }

    #[test]
    fn every_level_multiplies_every_number_of_rows() {
        for (m, k, width) in (1..20).flat_map(|m| [(m, 1, 16), (m, 7, 48), (m, 33, 64)]) {
            // Small integers: their products and sums are exact.
            let number = |i: usize| (i * 7 % 11) as f32 - 5.0;
            let left: Vec<f32> = (0..m * k).map(number).collect();
            let right: Vec<f32> = (0..k * width).map(|i| number(i + 3)).collect();
            let expected = |at: fn(usize, usize, usize, usize) -> usize| -> Vec<f32> {
                let element = |i: usize, j: usize| -> f32 {
                    (0..k)
                        .map(|p| left[at(i, p, m, k)] * right[p * width + j])
                        .sum()
                };
                (0..m * width)
                    .map(|at| element(at / width, at % width))
                    .collect()
            };
            let (by_rows, by_columns) = (
                Left::Rows {
                    values: &left,
                    stride: k,
                },
                Left::Columns {
                    values: &left,
                    stride: m,
                },
            );
            let by_rows = (by_rows, expected(|i, p, _, k| i * k + p));
            let by_columns = (by_columns, expected(|i, p, m, _| p * m + i));
            for level in Level::available() {
                for (left, expected) in [&by_rows, &by_columns] {
                    let mut ys = vec![f32::NAN; m * width];
                    level.dispatch(Product {
                        ys: &mut ys,
                        left: *left,
                        right: Right {
                            values: &right,
                            rows: k,
                            width,
                        },
                    });
                    assert_eq!(&ys, expected, "{level:?} {m} {k} {width}");
                }
            }
        }
    }
}
