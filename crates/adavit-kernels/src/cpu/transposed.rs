//! The product dY^T X of a weight's gradient, whose inner dimension is long.

use gemm::Parallelism;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::cpu::rows;
use crate::cpu::simd::Level;
use crate::cpu::tile::{LANES, Left, Right, multiply};

/// Largest product, in elements, of which each task sums some rows of both operands. A larger one is
/// divided among the tasks by the `gemm` crate.
const SMALL: usize = 1 << 16;

/// Rows that a task sums.
const ROWS: usize = 512;

/// Rows of `width` values.
#[derive(Clone, Copy)]
pub(crate) struct Rowed<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) width: usize,
}

/// Returns `dy^T xs`, `(n_out, n_in)` for rows of `n_out` and `n_in` values.
pub(crate) fn transposed_product(level: Level, dy: Rowed, xs: Rowed) -> Vec<f32> {
    let (n_out, n_in) = (dy.width, xs.width);
    if n_out * n_in <= SMALL && n_in.is_multiple_of(LANES) {
        let parts = dy
            .values
            .par_chunks(ROWS * n_out)
            .zip(xs.values.par_chunks(ROWS * n_in))
            .map(|(dy, xs)| {
                let mut sums = vec![0.0; n_out * n_in];
                level.dispatch(Columns {
                    sums: &mut sums,
                    dy: Rowed {
                        values: dy,
                        width: n_out,
                    },
                    xs: Rowed {
                        values: xs,
                        width: n_in,
                    },
                });
                sums
            })
            .collect();
        return rows::total(parts, n_out * n_in);
    }
    let mut product_sums = vec![0.0; n_out * n_in];
    let dy = Matrix::new(dy).t();
    product(&mut product_sums, dy, Matrix::new(xs));
    product_sums
}

/// The product of a few rows, as an operation.
struct Columns<'a> {
    sums: &'a mut [f32],
    dy: Rowed<'a>,
    xs: Rowed<'a>,
}

impl WithSimd for Columns<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let left = Left::Columns {
            values: self.dy.values,
            stride: self.dy.width,
        };
        let right = Right {
            values: self.xs.values,
            rows: self.xs.values.len() / self.xs.width,
            width: self.xs.width,
        };
        multiply(simd, self.sums, left, right);
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
    fn new(rowed: Rowed<'a>) -> Self {
        let Rowed { values, width } = rowed;
        Self {
            values,
            rows: values.len() / width.max(1),
            columns: width,
            row: width,
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
