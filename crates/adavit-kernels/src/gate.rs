//! Products with gates, one factor per token, per group of channels or per image, with gradients
//! of both sides.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

use crate::fused::{self, slice, tensor, values};
use crate::simd::Level;
use crate::{composed, lanes, rows, shape};

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
        let (xs, gates) = (slice(xs, layout)?, slice(gates, gates_layout)?);
        let unit = unit(xs, gates.len() / self.groups);
        let ys = rows::map(
            self.level,
            xs,
            unit,
            #[inline(always)]
            |first, ys, xs| {
                self.multiply(ys, xs, &gates[first * self.groups..], unit);
            },
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
        let grad = grad.contiguous()?;
        let (x_values, gate_values) = (values(xs)?, values(gates)?);
        let unit = unit(&x_values, gate_values.len() / self.groups);
        let inputs = (&*x_values, &*values(&grad)?);
        let mut dg = vec![0.0; gate_values.len()];
        let dx = rows::map2_reduce(
            self.level,
            inputs,
            unit,
            &mut dg,
            #[inline(always)]
            |first, (dx, dg), xs, grad| {
                self.multiply(dx, grad, &gate_values[first * self.groups..], unit);
                let units = xs.chunks_exact(unit).zip(grad.chunks_exact(unit));
                for (dg, (xs, grad)) in dg.chunks_exact_mut(self.groups).zip(units) {
                    let parts = xs
                        .chunks_exact(self.width)
                        .zip(grad.chunks_exact(self.width));
                    for (part, (xs, grad)) in parts.enumerate() {
                        dg[part % self.groups] += lanes::dot(xs, grad);
                    }
                }
            },
        );
        Ok((Some(tensor(dx, xs)?), Some(tensor(dg, gates)?)))
    }
}

impl GateRows {
    #[inline(always)]
    fn multiply(&self, ys: &mut [f32], xs: &[f32], gates: &[f32], unit: usize) {
        let units = ys.chunks_exact_mut(unit).zip(xs.chunks_exact(unit));
        for ((ys, xs), gates) in units.zip(gates.chunks_exact(self.groups)) {
            let parts = ys
                .chunks_exact_mut(self.width)
                .zip(xs.chunks_exact(self.width));
            for (part, (ys, xs)) in parts.enumerate() {
                let gate = gates[part % self.groups];
                for (y, x) in ys.iter_mut().zip(xs) {
                    *y = gate * x;
                }
            }
        }
    }
}

/// Returns the length of the runs of `xs` that share a row of gates.
fn unit(xs: &[f32], gate_rows: usize) -> usize {
    (xs.len() / gate_rows.max(1)).max(1)
}

/// x + g y, with as many equal runs of elements as there are gates.
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
        let (xs, ys) = (slice(xs, layout)?, slice(ys, ys_layout)?);
        let gates = slice(gates, gates_layout)?;
        let unit = unit(xs, gates.len());
        let zs = rows::map2(
            self.level,
            (xs, ys),
            unit,
            #[inline(always)]
            |first, zs, xs, ys| {
                let inputs = xs.chunks_exact(unit).zip(ys.chunks_exact(unit));
                let units = zs.chunks_exact_mut(unit).zip(inputs);
                for ((zs, (xs, ys)), gate) in units.zip(&gates[first..]) {
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
        let grad = grad.contiguous()?;
        let (y_values, gate_values) = (values(ys)?, values(gates)?);
        let unit = unit(&y_values, gate_values.len());
        let inputs = (&*y_values, &*values(&grad)?);
        let mut dg = vec![0.0; gate_values.len()];
        let dy = rows::map2_reduce(
            self.level,
            inputs,
            unit,
            &mut dg,
            #[inline(always)]
            |first, (dy, dg), ys, grad| {
                let inputs = ys.chunks_exact(unit).zip(grad.chunks_exact(unit));
                let units = dy.chunks_exact_mut(unit).zip(inputs);
                let gates = dg.iter_mut().zip(&gate_values[first..]);
                for ((dy, (ys, grad)), (dg, gate)) in units.zip(gates) {
                    *dg = lanes::dot(ys, grad);
                    for (d, g) in dy.iter_mut().zip(grad) {
                        *d = gate * g;
                    }
                }
            },
        );
        let (dy, dg) = (tensor(dy, ys)?, tensor(dg, gates)?);
        Ok((Some(grad.clone()), Some(dy), Some(dg)))
    }
}
