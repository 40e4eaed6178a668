//! One (image, head) pair as a task: where its rows are, what its gate does, forward and backward.

use pulp::{Simd, WithSimd};

use crate::cpu::head::{self, Head, HeadInputs, Source};
use crate::cpu::lanes;
use crate::cpu::shared::Shared;
use crate::cpu::tile::padded;

/// What the gate of a head does.
#[derive(Debug, Clone, Copy)]
pub(super) enum GateValue {
    /// A factor of q, k, v and of the output.
    Full(f32),
    /// The weight of attention against the value itself.
    Partial(f32),
}

/// Attention of one head of one image.
pub(super) struct Pair<'a> {
    pub(super) kept: Head<'a>,
    pub(super) dropped: Head<'a>,
    pub(super) gate: GateValue,
    /// Whether the gradient of a full gate is wanted.
    pub(super) gated: bool,
    pub(super) q: &'a [f32],
    pub(super) k: &'a [f32],
    pub(super) v: &'a [f32],
}

impl<'a> Pair<'a> {
    fn inputs(&self, gate: f32) -> HeadInputs<'a> {
        HeadInputs {
            q: self.q,
            k: self.k,
            v: self.v,
            gate,
        }
    }

    /// Floats of scratch that the tasks below need.
    pub(super) fn scratch_len(&self) -> usize {
        self.kept.scratch_len()
    }
}

/// Fills `ys` with `factor * x`.
#[inline(always)]
fn scale(ys: &mut [f32], xs: &[f32], factor: f32) {
    for (y, x) in ys.iter_mut().zip(xs) {
        *y = factor * x;
    }
}

/// Fills `ys` with `a x + b z`.
#[inline(always)]
fn blend(ys: &mut [f32], a: f32, xs: &[f32], b: f32, zs: &[f32]) {
    for ((y, x), z) in ys.iter_mut().zip(xs).zip(zs) {
        *y = a * x + b * z;
    }
}

/// Writes a pair's part of the output, which holds zeros.
pub(super) struct Forward<'a> {
    pub(super) pair: &'a Pair<'a>,
    pub(super) ys: &'a Shared<'a>,
    pub(super) scratch: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let (pair, v, d) = (self.pair, self.pair.v, self.pair.kept.width);
        match pair.gate {
            GateValue::Full(0.0) => {}
            GateValue::Full(gate) => {
                // A token that sees only itself attends to its own value.
                for (from, to) in pair.dropped.places() {
                    self.scale(to, &v[from..], gate * gate);
                }
                let scratch = std::mem::take(&mut self.scratch);
                let attended = head::forward(simd, pair.kept, pair.inputs(gate), scratch);
                for ((_, to), y) in pair.kept.places().zip(attended.chunks_exact(padded(d))) {
                    self.scale(to, y, gate);
                }
            }
            GateValue::Partial(0.0) => {
                self.pass_on(pair.dropped.places().chain(pair.kept.places()));
            }
            GateValue::Partial(gate) => {
                self.pass_on(pair.dropped.places());
                let scratch = std::mem::take(&mut self.scratch);
                let attended = head::forward(simd, pair.kept, pair.inputs(1.0), scratch);
                for ((from, to), y) in pair.kept.places().zip(attended.chunks_exact(padded(d))) {
                    // SAFETY: the rows of a pair are its own, and this is the only one held.
                    let row = unsafe { self.ys.range(to, d) };
                    blend(row, gate, y, 1.0 - gate, &v[from..]);
                }
            }
        }
    }
}

impl Forward<'_> {
    /// Fills the head's row at `place` with `factor * x`.
    #[inline(always)]
    fn scale(&self, place: usize, xs: &[f32], factor: f32) {
        // SAFETY: the rows of a pair are its own, and this is the only one held.
        let row = unsafe { self.ys.range(place, self.pair.kept.width) };
        scale(row, xs, factor);
    }

    /// Passes values on unchanged.
    #[inline(always)]
    fn pass_on(&self, places: impl Iterator<Item = (usize, usize)>) {
        for (from, to) in places {
            self.scale(to, &self.pair.v[from..], 1.0);
        }
    }
}

/// Writes a pair's part of the three gradients, which hold zeros, and returns that of its gate.
pub(super) struct Backward<'a> {
    pub(super) pair: &'a Pair<'a>,
    pub(super) grad: &'a [f32],
    pub(super) outputs: &'a [Shared<'a>; 3],
    pub(super) scratch: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        match self.pair.gate {
            // Each of the four factors meets another one that is zero.
            GateValue::Full(0.0) => 0.0,
            GateValue::Full(gate) => self.full(simd, gate),
            GateValue::Partial(0.0) => self.partial_off(simd),
            GateValue::Partial(gate) => self.partial(simd, gate),
        }
    }
}

impl Backward<'_> {
    /// Fills the head's row at `place` of output `index` (q, k, v) with `factor * x`.
    #[inline(always)]
    fn scale(&self, index: usize, place: usize, xs: &[f32], factor: f32) {
        // SAFETY: the rows of a pair are its own, and this is the only one held.
        let row = unsafe { self.outputs[index].range(place, self.pair.kept.width) };
        scale(row, xs, factor);
    }

    /// Returns the gradient of the output, times the gate.
    #[inline(always)]
    fn grads(&self, gate: f32) -> Source<'_> {
        Source {
            values: self.grad,
            channels: self.pair.kept.outputs,
            factor: gate,
        }
    }

    /// Passes the gradient of the output on to v, for tokens whose output is their value.
    #[inline(always)]
    fn pass_on(&self, places: impl Iterator<Item = (usize, usize)>) {
        for (to, from) in places {
            self.scale(2, to, &self.grad[from..], 1.0);
        }
    }

    #[inline(always)]
    fn full<S: Simd>(mut self, simd: S, gate: f32) -> f32 {
        let (pair, d) = (self.pair, self.pair.kept.width);
        let mut gate_gradient = 0.0;
        for (place, from) in pair.dropped.places() {
            let (v, grad) = (&pair.v[place..place + d], &self.grad[from..from + d]);
            self.scale(2, place, grad, gate * gate);
            gate_gradient += 2.0 * gate * lanes::dot(v, grad);
        }
        let scratch = std::mem::take(&mut self.scratch);
        let grads = self.grads(gate);
        let found = head::backward(simd, pair.kept, pair.inputs(gate), grads, scratch);
        for (i, (place, _)) in pair.kept.places().enumerate() {
            for (index, (dx, x)) in found.with([pair.q, pair.k, pair.v]).enumerate() {
                let dx = &dx[i * padded(d)..][..d];
                self.scale(index, place, dx, gate);
                if pair.gated {
                    gate_gradient += lanes::dot(dx, &x[place..place + d]);
                }
            }
        }
        // The output, times its gradient, over the gate that the packed gradient has.
        gate_gradient + found.means.iter().sum::<f32>() / gate
    }

    #[inline(always)]
    fn partial<S: Simd>(mut self, simd: S, gate: f32) -> f32 {
        let (pair, d) = (self.pair, self.pair.kept.width);
        self.pass_on(pair.dropped.places());
        let scratch = std::mem::take(&mut self.scratch);
        let grads = self.grads(gate);
        let found = head::backward(simd, pair.kept, pair.inputs(1.0), grads, scratch);
        let mut gate_gradient = 0.0;
        for (i, (place, from)) in pair.kept.places().enumerate() {
            let packed = i * padded(d)..i * padded(d) + d;
            let (v, grad) = (&pair.v[place..place + d], &self.grad[from..from + d]);
            self.scale(0, place, &found.q[packed.clone()], 1.0);
            self.scale(1, place, &found.k[packed.clone()], 1.0);
            // SAFETY: the rows of a pair are its own, and this is the only one held.
            let dv = unsafe { self.outputs[2].range(place, d) };
            blend(dv, 1.0, &found.v[packed], 1.0 - gate, grad);
            // y = v + gate (attended - v).
            gate_gradient -= lanes::dot(v, grad);
        }
        gate_gradient + found.means.iter().sum::<f32>() / gate
    }

    /// The value passes through, but the gate's gradient needs what attention would give.
    #[inline(always)]
    fn partial_off<S: Simd>(mut self, simd: S) -> f32 {
        let (pair, d) = (self.pair, self.pair.kept.width);
        self.pass_on(pair.dropped.places().chain(pair.kept.places()));
        let scratch = std::mem::take(&mut self.scratch);
        let attended = head::forward(simd, pair.kept, pair.inputs(1.0), scratch);
        let mut gate_gradient = 0.0;
        for ((place, from), y) in pair.kept.places().zip(attended.chunks_exact(padded(d))) {
            let (v, grad) = (&pair.v[place..place + d], &self.grad[from..from + d]);
            gate_gradient += lanes::dot(&y[..d], grad) - lanes::dot(v, grad);
        }
        gate_gradient
    }
}
