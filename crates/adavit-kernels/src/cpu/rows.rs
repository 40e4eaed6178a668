//! Passes over rows, in tasks of a fixed number of rows, on rayon's current pool.

use rayon::prelude::*;

use crate::cpu::simd::Level;

/// Elements below which a pass stays on one thread, and the size of a task above.
const TASK: usize = 1 << 14;

/// Returns how many rows of `row_len` elements one task takes: a function of the shape alone, so
/// that partial sums do not depend on the number of threads.
pub(crate) fn rows_per_task(row_len: usize) -> usize {
    (TASK / row_len.max(1)).max(1)
}

/// A pass over rows of `row_len` elements; its closures are compiled for `level`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pass {
    level: Level,
    row_len: usize,
}

impl Pass {
    pub(crate) fn rows(level: Level, row_len: usize) -> Self {
        Self { level, row_len }
    }

    /// A pass over single elements.
    pub(crate) fn elementwise(level: Level) -> Self {
        Self::rows(level, 1)
    }

    /// Returns the elements of a task.
    fn step(self) -> usize {
        rows_per_task(self.row_len) * self.row_len.max(1)
    }

    /// Returns the output of `f(first row, output rows, input rows)` over tasks of whole rows.
    pub(crate) fn map(self, xs: &[f32], f: impl Fn(usize, &mut [f32], &[f32]) + Sync) -> Vec<f32> {
        let mut ys = vec![0.0; xs.len()];
        let (rows, step) = (rows_per_task(self.row_len), self.step());
        ys.par_chunks_mut(step)
            .zip(xs.par_chunks(step))
            .enumerate()
            .for_each(|(task, (ys, xs))| {
                self.level.run(
                    #[inline(always)]
                    || f(task * rows, ys, xs),
                );
            });
        ys
    }

    /// As [`Self::map`], from two inputs of one length.
    pub(crate) fn map2(
        self,
        xs: &[f32],
        zs: &[f32],
        f: impl Fn(usize, &mut [f32], &[f32], &[f32]) + Sync,
    ) -> Vec<f32> {
        let mut ys = vec![0.0; xs.len()];
        let (rows, step) = (rows_per_task(self.row_len), self.step());
        ys.par_chunks_mut(step)
            .zip(xs.par_chunks(step))
            .zip(zs.par_chunks(step))
            .enumerate()
            .for_each(|(task, ((ys, xs), zs))| {
                self.level.run(
                    #[inline(always)]
                    || f(task * rows, ys, xs, zs),
                );
            });
        ys
    }

    /// As [`Self::map2`], where `f` also writes `numbers.len() / rows` numbers per row:
    /// `f(first row, (output rows, their numbers), input rows, input rows)`.
    pub(crate) fn map2_reduce(
        self,
        xs: &[f32],
        zs: &[f32],
        numbers: &mut [f32],
        f: impl Fn(usize, (&mut [f32], &mut [f32]), &[f32], &[f32]) + Sync,
    ) -> Vec<f32> {
        let mut ys = vec![0.0; xs.len()];
        let (rows, step) = (rows_per_task(self.row_len), self.step());
        let per_row = numbers.len() * self.row_len / xs.len().max(1);
        ys.par_chunks_mut(step)
            .zip(numbers.par_chunks_mut((rows * per_row).max(1)))
            .zip(xs.par_chunks(step).zip(zs.par_chunks(step)))
            .enumerate()
            .for_each(|(task, ((ys, numbers), (xs, zs)))| {
                self.level.run(
                    #[inline(always)]
                    || f(task * rows, (&mut *ys, &mut *numbers), xs, zs),
                );
            });
        ys
    }
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
