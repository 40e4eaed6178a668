//! Passes over rows, in tasks of a fixed number of rows, over rayon's current pool; what they run
//! is compiled for the given level.

use rayon::prelude::*;

use crate::cpu::simd::Level;
use crate::ops::fused::rows_per_task;

/// Returns the output of `f(first row, output rows, input rows)` over tasks of whole rows.
pub(crate) fn map(
    level: Level,
    xs: &[f32],
    row_len: usize,
    f: impl Fn(usize, &mut [f32], &[f32]) + Sync,
) -> Vec<f32> {
    let mut ys = vec![0.0; xs.len()];
    let rows = rows_per_task(row_len);
    let step = rows * row_len.max(1);
    ys.par_chunks_mut(step)
        .zip(xs.par_chunks(step))
        .enumerate()
        .for_each(|(task, (ys, xs))| {
            level.run(
                #[inline(always)]
                || f(task * rows, ys, xs),
            );
        });
    ys
}

/// Returns the first output of an elementwise `f(first, second, input)` and fills the second.
pub(crate) fn map_into(
    level: Level,
    xs: &[f32],
    seconds: &mut [f32],
    f: impl Fn(&mut [f32], &mut [f32], &[f32]) + Sync,
) -> Vec<f32> {
    let mut ys = vec![0.0; xs.len()];
    let step = rows_per_task(1);
    ys.par_chunks_mut(step)
        .zip(seconds.par_chunks_mut(step))
        .zip(xs.par_chunks(step))
        .for_each(|((ys, seconds), xs)| {
            level.run(
                #[inline(always)]
                || f(&mut *ys, &mut *seconds, xs),
            );
        });
    ys
}

/// As [`map`], from two inputs of one length.
pub(crate) fn map2(
    level: Level,
    (xs, zs): (&[f32], &[f32]),
    row_len: usize,
    f: impl Fn(usize, &mut [f32], &[f32], &[f32]) + Sync,
) -> Vec<f32> {
    let mut ys = vec![0.0; xs.len()];
    let rows = rows_per_task(row_len);
    let step = rows * row_len.max(1);
    ys.par_chunks_mut(step)
        .zip(xs.par_chunks(step))
        .zip(zs.par_chunks(step))
        .enumerate()
        .for_each(|(task, ((ys, xs), zs))| {
            level.run(
                #[inline(always)]
                || f(task * rows, ys, xs, zs),
            );
        });
    ys
}

/// As [`map2`], where `f` also writes `numbers.len() / rows` numbers per row.
pub(crate) fn map2_reduce(
    level: Level,
    (xs, zs): (&[f32], &[f32]),
    row_len: usize,
    numbers: &mut [f32],
    f: impl Fn(usize, (&mut [f32], &mut [f32]), &[f32], &[f32]) + Sync,
) -> Vec<f32> {
    let mut ys = vec![0.0; xs.len()];
    let rows = rows_per_task(row_len);
    let step = rows * row_len.max(1);
    let per_row = numbers.len() * row_len / xs.len().max(1);
    ys.par_chunks_mut(step)
        .zip(numbers.par_chunks_mut((rows * per_row).max(1)))
        .zip(xs.par_chunks(step).zip(zs.par_chunks(step)))
        .enumerate()
        .for_each(|(task, ((ys, numbers), (xs, zs)))| {
            level.run(
                #[inline(always)]
                || f(task * rows, (&mut *ys, &mut *numbers), xs, zs),
            );
        });
    ys
}

/// Returns the column sums of `xs`, rows of `row_len`, added in an order fixed by the shape.
pub(crate) fn column_sums(level: Level, xs: &[f32], row_len: usize) -> Vec<f32> {
    let row_len = row_len.max(1);
    let step = rows_per_task(row_len) * row_len;
    let partial = |rows: &[f32]| {
        let mut sums = vec![0.0; row_len];
        level.run(
            #[inline(always)]
            || {
                for row in rows.chunks_exact(row_len) {
                    add_to(&mut sums, row);
                }
            },
        );
        sums
    };
    total(xs.par_chunks(step).map(partial).collect(), row_len)
}

/// Returns the sum of equally long vectors, from the first to the last.
pub(crate) fn total(parts: Vec<Vec<f32>>, len: usize) -> Vec<f32> {
    let mut sums = vec![0.0; len];
    for part in parts {
        add_to(&mut sums, &part);
    }
    sums
}

#[inline(always)]
pub(crate) fn add_to(sums: &mut [f32], xs: &[f32]) {
    for (sum, x) in sums.iter_mut().zip(xs) {
        *sum += x;
    }
}
