//! Attention at inference: among some rows of each image, for some heads.

use std::ops::Range;

use rayon::prelude::*;

use crate::cpu::head::{Channels, Head, HeadInputs, forward_head};
use crate::cpu::shared::{Shared, with_scratch};
use crate::cpu::simd::Level;
use crate::prepared::workspace::Workspace;
use crate::trace::operation;

/// The number of heads, and the channels of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadSizes {
    /// H.
    pub num_heads: usize,
    /// D.
    pub width: usize,
}

/// What attention computes of one image, as ranges of the lists of [`ImageRows`].
#[derive(Debug, Clone, Default)]
pub struct ImageHeads {
    /// Of the rows of its tokens that attend to each other.
    pub rows: Range<usize>,
    /// Of the heads to compute.
    pub heads: Range<usize>,
    /// Of the heads whose values pass through.
    pub passing: Range<usize>,
}

/// What attention computes of a batch: for each image, some rows and some heads.
#[derive(Debug, Clone, Copy)]
pub struct ImageRows<'a> {
    /// Row numbers; those of an image ascend, and follow those of the image before.
    pub rows: &'a [usize],
    /// Head numbers; those of an image's two ranges differ.
    pub heads: &'a [usize],
    /// One entry per image.
    pub images: &'a [ImageHeads],
}

impl ImageRows<'_> {
    /// Checks that no two places of the output are the same; returns the multiply-adds.
    fn check(&self, rows: usize, sizes: HeadSizes) -> usize {
        let HeadSizes { num_heads, width } = sizes;
        let (mut next, mut macs) = (0, 0);
        for image in self.images {
            for row in &self.rows[image.rows.clone()] {
                assert!(*row >= next && *row < rows, "attend: ascending rows");
                next = row + 1;
            }
            let heads = || {
                let (computed, passing) = (image.heads.clone(), image.passing.clone());
                self.heads[computed].iter().chain(&self.heads[passing])
            };
            for (index, head) in heads().enumerate() {
                let again = heads().take(index).any(|before| before == head);
                assert!(*head < num_heads && !again, "attend: different heads");
            }
            macs += 2 * image.rows.len().pow(2) * width * image.heads.len();
        }
        macs
    }
}

/// Writes, for each image's rows and heads, softmax(q k^T / sqrt(D)) v to those rows and the head's
/// channels of `ys`, rows of `H D` values; for its passing heads it writes v. `qkv` has rows of q, k
/// and v side by side.
///
/// # Panics
/// If the rows of all images do not ascend, two heads of an image are the same, or a row, a head or a
/// range is out of bounds.
pub fn attend(
    qkv: &[f32],
    ys: &mut [f32],
    sizes: HeadSizes,
    images: ImageRows,
    work: &mut Workspace,
) {
    let HeadSizes { num_heads, width } = sizes;
    let c = num_heads * width;
    assert_eq!(
        qkv.len(),
        3 * ys.len(),
        "attend: q, k and v for each output"
    );
    let macs = images.check(ys.len() / c.max(1), sizes);
    let _span = operation("attention", macs);
    work.count(macs as u64);
    let (level, shared) = (Level::current(), Shared::new(ys));
    let inputs = HeadInputs {
        q: qkv,
        k: &qkv[c.min(qkv.len())..],
        v: &qkv[(2 * c).min(qkv.len())..],
        gate: 1.0,
    };
    images.images.par_iter().for_each(|image| {
        let tokens = &images.rows[image.rows.clone()];
        let head = |number: usize| Head {
            inputs: Channels {
                start: number * width,
                stride: 3 * c,
            },
            outputs: Channels {
                start: number * width,
                stride: c,
            },
            width,
            tokens,
        };
        for number in &images.heads[image.passing.clone()] {
            for (from, to) in head(*number).places() {
                // SAFETY: rows ascend and heads differ, so the places of all tasks are apart.
                let ys = unsafe { shared.range(to, width) };
                ys.copy_from_slice(&inputs.v[from..][..width]);
            }
        }
        let heads = &images.heads[image.heads.clone()];
        heads.par_iter().for_each(|number| {
            let head = head(*number);
            with_scratch(head.scratch_len(), |scratch| {
                forward_head(level, head, inputs, &shared, scratch);
            });
        });
    });
}
