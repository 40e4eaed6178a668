//! The product dY^T X of a weight's gradient, whose inner dimension is long.

use gemm::Parallelism;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::cpu::rows;
use crate::cpu::simd::Level;
use crate::cpu::tile::{LANES, Left, multiply};

/// Elements of the product up to which each task sums some rows of both operands; above, the tasks
/// divide the product, by the `gemm` crate.
const SMALL: usize = 1 << 16;

/// Rows that a task sums.
const ROWS: usize = 512;

/// Returns `dy^T xs`, `(n_out, n_in)` for rows of `n_out` and `n_in` values.
pub(crate) fn transposed_product(
    level: Level,
    (dy, n_out): (&[f32], usize),
    (xs, n_in): (&[f32], usize),
) -> Vec<f32> {
    if n_out * n_in <= SMALL && n_in.is_multiple_of(LANES) {
        let parts = dy
            .par_chunks(ROWS * n_out)
            .zip(xs.par_chunks(ROWS * n_in))
            .map(|(dy, xs)| {
                let mut sums = vec![0.0; n_out * n_in];
                level.dispatch(Columns {
                    sums: &mut sums,
                    dy: (dy, n_out),
                    xs: (xs, n_in),
                });
                sums
            })
            .collect();
        return rows::total(parts, n_out * n_in);
    }
    let mut product_sums = vec![0.0; n_out * n_in];
    let dy = Matrix::new(dy, n_out).t();
    product(&mut product_sums, dy, Matrix::new(xs, n_in));
    product_sums
}

struct Columns<'a> {
    sums: &'a mut [f32],
    dy: (&'a [f32], usize),
    xs: (&'a [f32], usize),
}

impl WithSimd for Columns<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let ((dy, n_out), (xs, n_in)) = (self.dy, self.xs);
        let right = (xs, xs.len() / n_in);
        multiply(simd, self.sums, Left::Columns(dy, n_out), right, n_in);
    }
}

/// A matrix in a slice: element (i, j) is at `i * row + j * column`.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row: usize,
    column: usize,
}

impl<'a> Matrix<'a> {
    /// Returns `values` as rows of `columns` elements.
    fn new(values: &'a [f32], columns: usize) -> Self {
        let rows = values.len() / columns.max(1);
        Self {
            values,
            rows,
            columns,
            row: columns,
            column: 1,
        }
    }

    /// Returns the transposed matrix.
    fn t(self) -> Self {
        Self {
            values: self.values,
            rows: self.columns,
            columns: self.rows,
            row: self.column,
            column: self.row,
        }
    }
}

/// Writes `a b` to `ys`, row-major, by all threads of rayon's current pool where the size is worth it.
///
/// # Panics
/// If the sizes do not fit.
fn product(ys: &mut [f32], a: Matrix, b: Matrix) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    assert_eq!(k, b.rows, "product: inner sizes");
    assert_eq!(ys.len(), m * n, "product: output size");
    assert!(
        a.values.len() >= m * k && b.values.len() >= k * n,
        "product: input sizes"
    );
    // SAFETY: by the assertions and `Matrix::new`, every (i, j) of the three matrices lies within
    // its slice, strides fit isize, and `ys` is borrowed mutably, so it overlaps neither input.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            ys.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.values.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.values.as_ptr(),
            b.column as isize,
            b.row as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::Rayon(0),
        );
    }
}
