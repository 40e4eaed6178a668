//! Products with gates, one factor per token, per group of channels or per image, with gradients
//! of both sides.
//!
//! The gradient of a gate is a sum over the rows that share it. Each row gives one term, and the terms
//! are added in order. So threads may divide one image without changing the sum.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, D, Layout, Result, Shape, Tensor};

use crate::composed;
use crate::cpu::rows::Pass;
use crate::cpu::simd::Level;
use crate::cpu::{lanes, rows};
use crate::ops::fused::{self, slice, tensor, values};
use crate::shape;
use crate::trace::operation;

/// Returns `xs` with each token multiplied by its gate.
///
/// # Shapes
/// `xs`: `(B, N, C)`, `tokens`: `(B, N)` -> `(B, N, C)`.
pub fn gate_tokens(xs: &Tensor, tokens: &Tensor) -> Result<Tensor> {
    gate_tokens_at(Level::current(), xs, tokens)
}

pub(crate) fn gate_tokens_at(level: Level, xs: &Tensor, tokens: &Tensor) -> Result<Tensor> {
    let (b, n, c) = xs.dims3()?;
    shape::expect("token gates", tokens, &[b, n])?;
    if fused::applies(&[xs, tokens]) {
        let op = GateRows {
            level,
            groups: 1,
            width: c,
        };
        return xs.contiguous()?.apply_op2(&tokens.contiguous()?, op);
    }
    composed::gate_tokens(xs, tokens)
}

/// Returns `xs` with each of G equal groups of channels multiplied by its gate: channel c belongs
/// to group `c / (C / G)`, so that G heads have D channels each.
///
/// # Shapes
/// `xs`: `(B, N, C)`, `gates`: `(B, G)` -> `(B, N, C)`.
pub fn gate_groups(xs: &Tensor, gates: &Tensor) -> Result<Tensor> {
    gate_groups_at(Level::current(), xs, gates)
}

pub(crate) fn gate_groups_at(level: Level, xs: &Tensor, gates: &Tensor) -> Result<Tensor> {
    let (b, _, c) = xs.dims3()?;
    let (_, groups) = gates.dims2()?;
    shape::expect("group gates", gates, &[b, groups])?;
    shape::divides("groups of channels", groups, c)?;
    if fused::applies(&[xs, gates]) {
        let op = GateRows {
            level,
            groups,
            width: c / groups,
        };
        return xs.contiguous()?.apply_op2(&gates.contiguous()?, op);
    }
    composed::gate_groups(xs, gates)
}

/// Returns `xs + gates * ys`, one gate per image or one per token.
///
/// # Shapes
/// `xs`, `ys`: `(B, N, C)`, `gates`: `(B,)` or `(B, N)` -> `(B, N, C)`.
pub fn gated_residual(xs: &Tensor, ys: &Tensor, gates: &Tensor) -> Result<Tensor> {
    gated_residual_at(Level::current(), xs, ys, gates)
}

pub(crate) fn gated_residual_at(
    level: Level,
    xs: &Tensor,
    ys: &Tensor,
    gates: &Tensor,
) -> Result<Tensor> {
    shape::same("gated_residual", xs, ys)?;
    let (b, n, _) = xs.dims3()?;
    let expected: &[usize] = if gates.rank() == 1 { &[b] } else { &[b, n] };
    shape::expect("gated_residual gates", gates, expected)?;
    if fused::applies(&[xs, ys, gates]) {
        let (ys, gates) = (ys.contiguous()?, gates.contiguous()?);
        return xs
            .contiguous()?
            .apply_op3(&ys, &gates, GatedResidual { level });
    }
    composed::gated_residual(xs, ys, gates)
}

/// Rows of `groups * width` channels; row r of R takes its factors from row `r / (R / gate rows)`
/// of the gates, one factor per group.
struct GateRows {
    level: Level,
    groups: usize,
    width: usize,
}

impl CustomOp2 for GateRows {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn cpu_fwd(
        &self,
        xs: &CpuStorage,
        layout: &Layout,
        gates: &CpuStorage,
        gates_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let _span = operation("gate", 0);
        let (xs, gates) = (slice(xs, layout)?, slice(gates, gates_layout)?);
        let c = self.groups * self.width;
        let shared = GatesOfRows::new(gates, self.groups, xs.len() / c.max(1));
        let ys = Pass::rows(self.level, c).map(
            xs,
            #[inline(always)]
            |first, ys, xs| self.multiply(ys, xs, shared, first),
        );
        Ok((CpuStorage::F32(ys), layout.shape().clone()))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        gates: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let _span = operation("gate backward", 0);
        let grad = grad.contiguous()?;
        let (x_values, gate_values) = (values(xs)?, values(gates)?);
        let c = self.groups * self.width;
        let n_rows = x_values.len() / c.max(1);
        let shared = GatesOfRows::new(&gate_values, self.groups, n_rows);
        let mut parts = vec![0.0; n_rows * self.groups];
        let dx = Pass::rows(self.level, c).map2_reduce(
            &x_values,
            &values(&grad)?,
            &mut parts,
            #[inline(always)]
            |first, (dx, parts), xs, grad| {
                self.multiply(dx, grad, shared, first);
                let groups = xs
                    .chunks_exact(self.width)
                    .zip(grad.chunks_exact(self.width));
                for (part, (xs, grad)) in parts.iter_mut().zip(groups) {
                    *part = lanes::dot(xs, grad);
                }
            },
        );
        let dg = shared.gradient(&parts);
        Ok((Some(tensor(dx, xs)?), Some(tensor(dg, gates)?)))
    }
}

impl GateRows {
    /// Fills the rows `ys`, of which the first is row `first` of all.
    #[inline(always)]
    fn multiply(&self, ys: &mut [f32], xs: &[f32], gates: GatesOfRows, first: usize) {
        let c = self.groups * self.width;
        let rows = ys.chunks_exact_mut(c).zip(xs.chunks_exact(c));
        for (row, (ys, xs)) in rows.enumerate() {
            let groups = ys
                .chunks_exact_mut(self.width)
                .zip(xs.chunks_exact(self.width));
            for ((ys, xs), gate) in groups.zip(gates.of(first + row)) {
                for (y, x) in ys.iter_mut().zip(xs) {
                    *y = gate * x;
                }
            }
        }
    }
}

/// Gates, `groups` to a row, each row shared by as many consecutive rows of a tensor.
///
/// Tasks are rows of the tensor, not runs that share gates: one run may be the whole batch.
#[derive(Clone, Copy)]
struct GatesOfRows<'a> {
    gates: &'a [f32],
    groups: usize,
    /// The number of rows that share one row of gates.
    run: usize,
}

impl<'a> GatesOfRows<'a> {
    fn new(gates: &'a [f32], groups: usize, n_rows: usize) -> Self {
        let gate_rows = gates.len() / groups.max(1);
        Self {
            gates,
            groups,
            run: (n_rows / gate_rows.max(1)).max(1),
        }
    }

    /// Returns the gates of a row.
    #[inline(always)]
    fn of(&self, row: usize) -> &'a [f32] {
        &self.gates[row / self.run * self.groups..][..self.groups]
    }

    /// Returns the gradient of the gates from each row's part in it, added from the first row on.
    fn gradient(&self, parts: &[f32]) -> Vec<f32> {
        let mut dg = vec![0.0; self.gates.len()];
        let runs = parts.chunks_exact(self.run * self.groups);
        for (dg, run) in dg.chunks_exact_mut(self.groups).zip(runs) {
            for part in run.chunks_exact(self.groups) {
                rows::add_to(dg, part);
            }
        }
        dg
    }
}

/// x + g y; row r of R has gate `r / (R / gates)`.
struct GatedResidual {
    level: Level,
}

impl CustomOp3 for GatedResidual {
    fn name(&self) -> &'static str {
        "gated_residual"
    }

    fn cpu_fwd(
        &self,
        xs: &CpuStorage,
        layout: &Layout,
        ys: &CpuStorage,
        ys_layout: &Layout,
        gates: &CpuStorage,
        gates_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let _span = operation("gated_residual", 0);
        let (xs, ys) = (slice(xs, layout)?, slice(ys, ys_layout)?);
        let gates = slice(gates, gates_layout)?;
        let c = layout.shape().dim(D::Minus1)?.max(1);
        let shared = GatesOfRows::new(gates, 1, xs.len() / c);
        let zs = Pass::rows(self.level, c).map2(
            xs,
            ys,
            #[inline(always)]
            |first, zs, xs, ys| {
                let inputs = xs.chunks_exact(c).zip(ys.chunks_exact(c));
                for (row, (zs, (xs, ys))) in zs.chunks_exact_mut(c).zip(inputs).enumerate() {
                    let gate = shared.of(first + row)[0];
                    for ((z, x), y) in zs.iter_mut().zip(xs).zip(ys) {
                        *z = x + gate * y;
                    }
                }
            },
        );
        Ok((CpuStorage::F32(zs), layout.shape().clone()))
    }

    fn bwd(
        &self,
        _: &Tensor,
        ys: &Tensor,
        gates: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let _span = operation("gated_residual backward", 0);
        let grad = grad.contiguous()?;
        let (y_values, gate_values) = (values(ys)?, values(gates)?);
        let c = ys.dim(D::Minus1)?.max(1);
        let n_rows = y_values.len() / c;
        let shared = GatesOfRows::new(&gate_values, 1, n_rows);
        let mut parts = vec![0.0; n_rows];
        let dy = Pass::rows(self.level, c).map2_reduce(
            &y_values,
            &values(&grad)?,
            &mut parts,
            #[inline(always)]
            |first, (dy, parts), ys, grad| {
                let inputs = ys.chunks_exact(c).zip(grad.chunks_exact(c));
                let rows = dy.chunks_exact_mut(c).zip(inputs).zip(parts);
                for (row, ((dy, (ys, grad)), part)) in rows.enumerate() {
                    let gate = shared.of(first + row)[0];
                    *part = lanes::dot(ys, grad);
                    for (d, g) in dy.iter_mut().zip(grad) {
                        *d = gate * g;
                    }
                }
            },
        );
        let (dy, dg) = (tensor(dy, ys)?, tensor(shared.gradient(&parts), gates)?);
        Ok((Some(grad), Some(dy), Some(dg)))
    }
}
