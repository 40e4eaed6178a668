//! Attention of one head of one image, forward and backward, on its kept tokens packed in cache.
//!
//! S = Q K^T / sqrt(D), P = softmax(S), Y = P V; backwards dP = dY V^T, dS = P (dP - rowsum(P dP)),
//! dQ = dS K / sqrt(D), dK = dS^T Q / sqrt(D), dV = P^T dY. P is computed again for the backward.

use pulp::{Simd, WithSimd};

use crate::cpu::shared::Shared;
use crate::cpu::simd::Level;
use crate::cpu::tile::{Left, Right, multiply, padded};

/// Where the D channels of a head are in a tensor with a row per token: those of token n are at
/// `start + n * stride`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Channels {
    pub(crate) start: usize,
    pub(crate) stride: usize,
}

impl Channels {
    fn of(self, token: usize) -> usize {
        self.start + token * self.stride
    }
}

/// One head of one image: some of its tokens, and where they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head<'a> {
    /// Within q, k and v, each from its own start.
    pub(crate) inputs: Channels,
    /// Within the output.
    pub(crate) outputs: Channels,
    pub(crate) width: usize,
    pub(crate) tokens: &'a [usize],
}

impl<'a> Head<'a> {
    /// Returns the places of the head's rows in the inputs and in the output, token by token.
    pub(crate) fn places(&self) -> impl Iterator<Item = (usize, usize)> + use<'a> {
        let (inputs, outputs) = (self.inputs, self.outputs);
        let tokens = self.tokens.iter();
        tokens.map(move |n| (inputs.of(*n), outputs.of(*n)))
    }

    /// Packs rows times their factor, each as wide as [`padded`], zeros behind.
    #[inline(always)]
    fn pack(&self, packed: &mut [f32], source: Source) {
        let rows = packed.chunks_exact_mut(padded(self.width));
        for (row, token) in rows.zip(self.tokens) {
            let (row, rest) = row.split_at_mut(self.width);
            for (y, x) in row.iter_mut().zip(source.of(*token)) {
                *y = x * source.factor;
            }
            rest.fill(0.0);
        }
    }

    /// As [`Self::pack`], one row per channel, as wide as [`padded`] number of tokens.
    #[inline(always)]
    fn pack_transposed(&self, packed: &mut [f32], source: Source) {
        let width = padded(self.tokens.len());
        for row in packed.chunks_exact_mut(width) {
            row[self.tokens.len()..].fill(0.0);
        }
        for (i, token) in self.tokens.iter().enumerate() {
            for (x, row) in source.of(*token).iter().zip(packed.chunks_exact_mut(width)) {
                row[i] = x * source.factor;
            }
        }
    }

    /// Returns the factor of the scores, 1 / sqrt(D).
    pub(crate) fn scale(&self) -> f32 {
        (self.width as f32).sqrt().recip()
    }

    /// Floats that [`forward`] and [`backward`] need.
    pub(crate) fn scratch_len(&self) -> usize {
        let (t, d) = (self.tokens.len(), self.width);
        7 * t * padded(d) + 2 * d * padded(t) + 2 * (t + 1) * padded(t)
    }
}

/// Values of a tensor with a row per token, where a head's channels lie in it, and their factor.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) channels: Channels,
    pub(crate) factor: f32,
}

impl<'a> Source<'a> {
    /// Returns the values from the head's channels of a token on.
    #[inline(always)]
    fn of(&self, token: usize) -> &'a [f32] {
        &self.values[self.channels.of(token)..]
    }
}

/// The values of q, k and v.
#[derive(Clone, Copy)]
pub(crate) struct HeadInputs<'a> {
    pub(crate) q: &'a [f32],
    pub(crate) k: &'a [f32],
    pub(crate) v: &'a [f32],
    /// The factor of all three, 1 without a gate.
    pub(crate) gate: f32,
}

impl<'a> HeadInputs<'a> {
    /// Returns q with the factor of the scores, k and v, as a head packs them.
    #[inline(always)]
    fn sources(self, head: Head) -> [Source<'a>; 3] {
        let source = |values, factor| Source {
            values,
            channels: head.inputs,
            factor,
        };
        [
            source(self.q, self.gate * head.scale()),
            source(self.k, self.gate),
            source(self.v, self.gate),
        ]
    }
}

/// Takes the first `len` floats of `rest`.
#[expect(clippy::mut_mut, reason = "the slice itself moves on")]
fn take<'a>(rest: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    let (first, behind) = std::mem::take(rest).split_at_mut(len);
    *rest = behind;
    first
}

/// Turns scores into e^(x - max) and `sums` into their sums, both per column: rows are keys, columns
/// queries, so that no vector is ever reduced within itself.
#[inline(always)]
fn exponentials(scores: &mut [f32], tops: &mut [f32], sums: &mut [f32]) {
    tops.fill(f32::NEG_INFINITY);
    sums.fill(0.0);
    for row in scores.chunks_exact(tops.len()) {
        for (top, x) in tops.iter_mut().zip(row) {
            *top = if *x > *top { *x } else { *top };
        }
    }
    for row in scores.chunks_exact_mut(tops.len()) {
        for ((x, top), sum) in row.iter_mut().zip(&*tops).zip(&mut *sums) {
            *x = crate::cpu::math::exp(*x - top);
            *sum += *x;
        }
    }
}

/// Returns packed rows of `width` values as a left operand.
#[inline(always)]
fn by_rows(values: &[f32], width: usize) -> Left<'_> {
    Left::Rows {
        values,
        stride: padded(width),
    }
}

/// Returns packed rows of `width` values, transposed, as a left operand.
#[inline(always)]
fn by_columns(values: &[f32], width: usize) -> Left<'_> {
    Left::Columns {
        values,
        stride: padded(width),
    }
}

/// Returns packed rows of `width` values as a right operand.
#[inline(always)]
fn right(values: &[f32], rows: usize, width: usize) -> Right<'_> {
    Right {
        values,
        rows,
        width: padded(width),
    }
}

/// Returns the packed output of the kept tokens, rows of `padded(D)`.
#[inline(always)]
pub(crate) fn forward<'s, S: Simd>(
    simd: S,
    head: Head,
    inputs: HeadInputs,
    mut scratch: &'s mut [f32],
) -> &'s [f32] {
    let (t, d) = (head.tokens.len(), head.width);
    let qt = take(&mut scratch, d * padded(t));
    let k = take(&mut scratch, t * padded(d));
    let v = take(&mut scratch, t * padded(d));
    let ys = take(&mut scratch, t * padded(d));
    let scores = take(&mut scratch, t * padded(t));
    let tops = take(&mut scratch, padded(t));
    let sums = take(&mut scratch, padded(t));
    let [q_source, k_source, v_source] = inputs.sources(head);
    head.pack_transposed(qt, q_source);
    head.pack(k, k_source);
    head.pack(v, v_source);
    multiply(simd, scores, by_rows(k, d), right(qt, d, t));
    exponentials(scores, tops, sums);
    multiply(simd, ys, by_columns(scores, t), right(v, t, d));
    // The sums divide Y, which is narrower than P.
    for (row, sum) in ys.chunks_exact_mut(padded(d)).zip(&*sums) {
        let factor = sum.recip();
        for y in row {
            *y *= factor;
        }
    }
    ys
}

/// Writes the output of the kept tokens of `head` to their places in `ys`.
pub(crate) fn forward_head(
    level: Level,
    head: Head,
    inputs: HeadInputs,
    ys: &Shared,
    scratch: &mut [f32],
) {
    level.dispatch(ForwardHead {
        head,
        inputs,
        ys,
        scratch,
    });
}

struct ForwardHead<'a> {
    head: Head<'a>,
    inputs: HeadInputs<'a>,
    ys: &'a Shared<'a>,
    scratch: &'a mut [f32],
}

impl WithSimd for ForwardHead<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let d = self.head.width;
        let attended = forward(simd, self.head, self.inputs, self.scratch);
        for ((_, place), y) in self.head.places().zip(attended.chunks_exact(padded(d))) {
            // SAFETY: the rows of a head are its own, and this is the only one held.
            let row = unsafe { self.ys.range(place, d) };
            row.copy_from_slice(&y[..d]);
        }
    }
}

/// What the backward gives, packed rows of `padded(D)`, for q, k and v times their gate.
pub(crate) struct HeadGradients<'s> {
    pub(crate) q: &'s [f32],
    pub(crate) k: &'s [f32],
    pub(crate) v: &'s [f32],
    /// The product of output and its packed gradient, for each kept token.
    pub(crate) means: &'s [f32],
}

impl<'s> HeadGradients<'s> {
    /// Pairs each gradient with one of `xs`.
    #[inline(always)]
    pub(crate) fn with<'x>(
        &self,
        xs: [&'x [f32]; 3],
    ) -> impl Iterator<Item = (&'s [f32], &'x [f32])> {
        [self.q, self.k, self.v].into_iter().zip(xs)
    }
}

/// Divides exponentials by their sums to P and turns dP into dS = P (dP - mean), where mean is the
/// sum of P dP per column.
#[inline(always)]
fn score_gradients(p: &mut [f32], ds: &mut [f32], sums: &mut [f32], means: &mut [f32]) {
    let t = sums.len();
    for sum in sums.iter_mut() {
        *sum = sum.recip();
    }
    means.fill(0.0);
    for (p, dp) in p.chunks_exact_mut(t).zip(ds.chunks_exact(t)) {
        let rows = p.iter_mut().zip(dp).zip(&*sums);
        for (((p, dp), factor), mean) in rows.zip(&mut *means) {
            *p *= factor;
            *mean += *p * dp;
        }
    }
    for (p, ds) in p.chunks_exact(t).zip(ds.chunks_exact_mut(t)) {
        for ((d, p), mean) in ds.iter_mut().zip(p).zip(&*means) {
            *d = p * (*d - mean);
        }
    }
}

/// Returns the gradients for the gradient `grad` of the output.
#[inline(always)]
pub(crate) fn backward<'s, S: Simd>(
    simd: S,
    head: Head,
    inputs: HeadInputs,
    grad: Source,
    mut scratch: &'s mut [f32],
) -> HeadGradients<'s> {
    let (t, d) = (head.tokens.len(), head.width);
    let q = take(&mut scratch, t * padded(d));
    let k = take(&mut scratch, t * padded(d));
    let dy = take(&mut scratch, t * padded(d));
    let (dq, dk, dv) = (
        take(&mut scratch, t * padded(d)),
        take(&mut scratch, t * padded(d)),
        take(&mut scratch, t * padded(d)),
    );
    let v = take(&mut scratch, t * padded(d));
    let qt = take(&mut scratch, d * padded(t));
    let dyt = take(&mut scratch, d * padded(t));
    let p = take(&mut scratch, t * padded(t));
    let ds = take(&mut scratch, t * padded(t));
    let tops = take(&mut scratch, padded(t));
    let sums = take(&mut scratch, padded(t));
    let [q_source, k_source, v_source] = inputs.sources(head);
    head.pack(q, q_source);
    head.pack(k, k_source);
    head.pack(v, v_source);
    head.pack(dy, grad);
    head.pack_transposed(qt, q_source);
    head.pack_transposed(dyt, grad);

    // P and dS are transposed: rows are keys.
    multiply(simd, p, by_rows(k, d), right(qt, d, t));
    multiply(simd, ds, by_rows(v, d), right(dyt, d, t));
    exponentials(p, tops, sums);
    score_gradients(p, ds, sums, tops);
    multiply(simd, dv, by_rows(p, t), right(dy, t, d));
    multiply(simd, dq, by_columns(ds, t), right(k, t, d));
    multiply(simd, dk, by_rows(ds, t), right(q, t, d));
    for x in dq.iter_mut() {
        *x *= head.scale();
    }
    HeadGradients {
        q: dq,
        k: dk,
        v: dv,
        means: &tops[..t],
    }
}
