//! Reductions of slices in 16 lanes: the same order, hence the same bits, at every vector width.

const LANES: usize = 16;

#[inline(always)]
fn combine(mut lanes: [f32; LANES], mut op: impl FnMut(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = op(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// Returns the sum of `f(x)`.
#[inline(always)]
pub(crate) fn sum_of(xs: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = xs.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += f(*x);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += f(*x);
    }
    combine(
        lanes,
        #[inline(always)]
        |a, b| a + b,
    )
}

/// Returns the sum of the products of two slices of one length.
#[inline(always)]
pub(crate) fn dot(xs: &[f32], ys: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (x_chunks, x_rest) = xs.as_chunks::<LANES>();
    let (y_chunks, y_rest) = ys.as_chunks::<LANES>();
    for (x_chunk, y_chunk) in x_chunks.iter().zip(y_chunks) {
        for ((lane, x), y) in lanes.iter_mut().zip(x_chunk).zip(y_chunk) {
            *lane += x * y;
        }
    }
    for ((lane, x), y) in lanes.iter_mut().zip(x_rest).zip(y_rest) {
        *lane += x * y;
    }
    combine(
        lanes,
        #[inline(always)]
        |a, b| a + b,
    )
}

/// Returns the sum of the products of three slices of one length.
#[inline(always)]
pub(crate) fn dot3(xs: &[f32], ys: &[f32], zs: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (x_chunks, x_rest) = xs.as_chunks::<LANES>();
    let (y_chunks, y_rest) = ys.as_chunks::<LANES>();
    let (z_chunks, z_rest) = zs.as_chunks::<LANES>();
    for ((x_chunk, y_chunk), z_chunk) in x_chunks.iter().zip(y_chunks).zip(z_chunks) {
        for (((lane, x), y), z) in lanes.iter_mut().zip(x_chunk).zip(y_chunk).zip(z_chunk) {
            *lane += x * y * z;
        }
    }
    for (((lane, x), y), z) in lanes.iter_mut().zip(x_rest).zip(y_rest).zip(z_rest) {
        *lane += x * y * z;
    }
    combine(
        lanes,
        #[inline(always)]
        |a, b| a + b,
    )
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// Returns the largest value, NaN aside.
#[inline(always)]
pub(crate) fn max(xs: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = xs.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, *x);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = larger(*lane, *x);
    }
    combine(lanes, larger)
}

/// Replaces a row by e^(x - max) and returns the sum, which is NaN if one of the row is.
///
/// The caller divides by the sum where that is cheapest.
#[inline(always)]
pub(crate) fn exp_row(row: &mut [f32]) -> f32 {
    let top = max(row);
    for x in row.iter_mut() {
        *x = crate::cpu::math::exp(*x - top);
    }
    sum_of(
        row,
        #[inline(always)]
        |x| x,
    )
}
