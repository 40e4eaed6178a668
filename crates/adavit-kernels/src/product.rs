//! Matrix products of slices by the `gemm` crate.

use gemm::Parallelism;

/// A matrix in a slice: element (i, j) is at `i * row + j * column`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row: usize,
    column: usize,
}

impl<'a> Matrix<'a> {
    /// Returns `values` as rows of `columns` elements.
    pub(crate) fn new(values: &'a [f32], columns: usize) -> Self {
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
    pub(crate) fn t(self) -> Self {
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
pub(crate) fn product(ys: &mut [f32], a: Matrix, b: Matrix) {
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
