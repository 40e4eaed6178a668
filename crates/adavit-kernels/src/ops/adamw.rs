//! AdamW over all parameters in one pass, in place.
//!
//! ```text
//! m <- b1 m + (1 - b1) c g          v <- b2 v + (1 - b2) (c g)^2
//! w <- w (1 - lr wd) - lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps)
//! ```
//! c is the factor of gradient clipping, 1 without it. (Loshchilov & Hutter, 2019, arXiv 1711.05101.)

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use candle_core::{
    CpuStorage, DType, Device, InplaceOp1, Layout, Result, Storage, Tensor, Var, bail,
};
use rayon::prelude::*;

use crate::cpu::lanes;
use crate::cpu::simd::Level;
use crate::ops::fused::{self, values};
use crate::shape;
use crate::trace::operation;

/// Elements of a task.
const TASK_LEN: usize = 1 << 14;

/// Squares that are summed in f32; the sums of these runs are added in f64.
const RUN: usize = 1 << 10;

/// A parameter with its gradient and its state.
#[derive(Debug)]
pub struct AdamWSlot<'a> {
    /// The parameter, changed in place.
    pub var: &'a Var,
    /// Its gradient; none counts as zero.
    pub grad: Option<&'a Tensor>,
    /// The decaying mean of gradients, changed in place.
    pub exp_avg: &'a Var,
    /// The decaying mean of squared gradients, changed in place.
    pub exp_avg_sq: &'a Var,
    /// Learning rate.
    pub lr: f64,
    /// Weight decay, times the learning rate.
    pub weight_decay: f64,
}

/// The numbers that all parameters share in a step.
#[derive(Debug, Clone, Copy)]
pub struct AdamWStep {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the corrected mean of squares.
    pub eps: f64,
    /// Number of the step, from 1.
    pub step: u64,
    /// Factor of every gradient.
    pub clip: f64,
}

/// Returns the sum of squares of each gradient, 0 where there is none.
pub fn squared_norms(grads: &[Option<&Tensor>]) -> Result<Vec<f64>> {
    squared_norms_at(Level::current(), grads)
}

pub(crate) fn squared_norms_at(level: Level, grads: &[Option<&Tensor>]) -> Result<Vec<f64>> {
    let all: Vec<&Tensor> = grads.iter().flatten().copied().collect();
    if !fused::applies(&all) {
        return composed_norms(grads);
    }
    let contiguous = |grad: &Tensor| grad.contiguous();
    let grads: Vec<Option<Tensor>> = grads
        .iter()
        .map(|grad| grad.map(contiguous).transpose())
        .collect::<Result<_>>()?;
    let sums = grads.iter().map(|grad| {
        let Some(grad) = grad else {
            return Ok(0.0);
        };
        let parts: Vec<f64> = values(grad)?
            .par_chunks(TASK_LEN)
            .map(|xs| sum_of_squares(level, xs))
            .collect();
        Ok(parts.iter().sum())
    });
    sums.collect()
}

fn sum_of_squares(level: Level, xs: &[f32]) -> f64 {
    let mut sum = 0.0;
    level.run(
        #[inline(always)]
        || {
            for run in xs.chunks(RUN) {
                sum += f64::from(lanes::dot(run, run));
            }
        },
    );
    sum
}

fn composed_norms(grads: &[Option<&Tensor>]) -> Result<Vec<f64>> {
    // One read-back for all.
    let sums = grads.iter().flatten().map(|grad| grad.sqr()?.sum_all());
    let sums = Tensor::stack(&sums.collect::<Result<Vec<_>>>()?, 0)?;
    let mut sums = sums
        .to_device(&Device::Cpu)?
        .to_dtype(DType::F64)?
        .to_vec1::<f64>()?
        .into_iter();
    let sum = |grad: Option<&Tensor>| grad.map_or(Some(0.0), |_| sums.next());
    Ok(grads.iter().copied().filter_map(sum).collect())
}

/// Does a step of every parameter.
///
/// While it runs, the variables hold no values: other threads must not read them.
///
/// # Errors
/// If shapes within a slot differ, or `step.step` is 0; nothing has changed then.
pub fn adamw(slots: &[AdamWSlot], step: &AdamWStep) -> Result<()> {
    adamw_at(Level::current(), slots, step)
}

pub(crate) fn adamw_at(level: Level, slots: &[AdamWSlot], step: &AdamWStep) -> Result<()> {
    if step.step == 0 {
        bail!("adamw: expected a step number from 1, found 0");
    }
    for slot in slots {
        shape::same("adamw exp_avg", slot.var, slot.exp_avg)?;
        shape::same("adamw exp_avg_sq", slot.var, slot.exp_avg_sq)?;
        if let Some(grad) = slot.grad {
            shape::same("adamw gradient", slot.var, grad)?;
        }
    }
    if !applies(slots) {
        return slots.iter().try_for_each(|slot| composed_step(slot, step));
    }
    fused_step(level, slots, step)
}

/// Some elements of a parameter: its values, its two means, its gradient.
struct Task<'a> {
    w: &'a mut [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    grad: Option<&'a [f32]>,
    factors: Factors,
}

/// Takes the values of all variables out, updates them in one pass, and puts them back.
fn fused_step(level: Level, slots: &[AdamWSlot], step: &AdamWStep) -> Result<()> {
    let _span = operation("adamw", 0);
    let grads: Vec<Option<Tensor>> = slots
        .iter()
        .map(|slot| slot.grad.map(Tensor::contiguous).transpose())
        .collect::<Result<_>>()?;
    let grads: Vec<_> = grads
        .iter()
        .map(|grad| grad.as_ref().map(values).transpose())
        .collect::<Result<_>>()?;
    let mut buffers = slots
        .iter()
        .map(|slot| {
            Ok([
                exchange(slot.var, Vec::new())?,
                exchange(slot.exp_avg, Vec::new())?,
                exchange(slot.exp_avg_sq, Vec::new())?,
            ])
        })
        .collect::<Result<Vec<_>>>()?;
    let mut tasks = Vec::new();
    for ((slot, buffers), grad) in slots.iter().zip(&mut buffers).zip(&grads) {
        let factors = Factors::new(slot, step);
        let [w, m, v] = buffers.each_mut().map(|buffer| buffer.chunks_mut(TASK_LEN));
        for (i, ((w, m), v)) in w.zip(m).zip(v).enumerate() {
            let grad = grad.as_ref().map(|grad| &grad[i * TASK_LEN..][..w.len()]);
            tasks.push(Task {
                w,
                m,
                v,
                grad,
                factors,
            });
        }
    }
    tasks.par_iter_mut().for_each(|task| {
        level.run(
            #[inline(always)]
            || task.factors.apply(task.w, task.m, task.v, task.grad),
        );
    });
    drop(tasks);
    for (slot, [w, m, v]) in slots.iter().zip(buffers) {
        exchange(slot.var, w)?;
        exchange(slot.exp_avg, m)?;
        exchange(slot.exp_avg_sq, v)?;
    }
    Ok(())
}

/// Returns whether every tensor is f32 on the CPU, and every variable owns the whole of a storage that
/// no other tensor of the step shares. Only then can values be taken out.
fn applies(slots: &[AdamWSlot]) -> bool {
    let mut taken = HashSet::new();
    let alone = |var: &Var| whole(var).is_some_and(|(at, len)| len == 0 || taken.insert(at));
    let vars = slots
        .iter()
        .flat_map(|slot| [slot.var, slot.exp_avg, slot.exp_avg_sq]);
    vars.into_iter().all(alone)
        && slots
            .iter()
            .filter_map(|slot| slot.grad)
            .all(|grad| storage(grad).is_some_and(|(at, len)| len == 0 || !taken.contains(&at)))
}

/// Returns address and length of the storage of an f32 tensor on the CPU.
fn storage(xs: &Tensor) -> Option<(usize, usize)> {
    match &*xs.storage_and_layout().0 {
        Storage::Cpu(CpuStorage::F32(all)) => Some((all.as_ptr().addr(), all.len())),
        _ => None,
    }
}

/// As [`storage`], if the variable is the whole of it.
fn whole(var: &Var) -> Option<(usize, usize)> {
    let (at, len) = storage(var)?;
    (var.layout().contiguous_offsets() == Some((0, len))).then_some((at, len))
}

/// The numbers of one parameter's step.
#[derive(Debug, Clone, Copy)]
struct Factors {
    beta1: f32,
    beta2: f32,
    /// Of the gradient in each mean.
    weight1: f32,
    weight2: f32,
    root_scale: f32,
    eps: f32,
    keep: f32,
    rate: f32,
}

impl Factors {
    fn new(slot: &AdamWSlot, step: &AdamWStep) -> Self {
        let correction1 = 1.0 - step.beta1.powf(step.step as f64);
        let correction2 = 1.0 - step.beta2.powf(step.step as f64);
        Self {
            beta1: step.beta1 as f32,
            beta2: step.beta2 as f32,
            weight1: ((1.0 - step.beta1) * step.clip) as f32,
            weight2: ((1.0 - step.beta2) * step.clip * step.clip) as f32,
            root_scale: correction2.sqrt().recip() as f32,
            eps: step.eps as f32,
            keep: (1.0 - slot.lr * slot.weight_decay) as f32,
            rate: (slot.lr / correction1) as f32,
        }
    }

    #[inline(always)]
    fn apply(&self, w: &mut [f32], m: &mut [f32], v: &mut [f32], grad: Option<&[f32]>) {
        if let Some(grad) = grad {
            for ((m, v), g) in m.iter_mut().zip(v.iter_mut()).zip(grad) {
                *m = self.beta1 * *m + self.weight1 * g;
                *v = self.beta2 * *v + self.weight2 * (g * g);
            }
        } else {
            for (m, v) in m.iter_mut().zip(v.iter_mut()) {
                *m *= self.beta1;
                *v *= self.beta2;
            }
        }
        for ((w, m), v) in w.iter_mut().zip(m).zip(v) {
            let root = v.sqrt() * self.root_scale + self.eps;
            *w = *w * self.keep - *m / root * self.rate;
        }
    }
}

/// Puts `values` in place of a variable's own and returns those.
fn exchange(var: &Var, values: Vec<f32>) -> Result<Vec<f32>> {
    let op = Exchange(Mutex::new(values));
    var.inplace_op1(&op)?;
    Ok(op.0.into_inner().unwrap_or_else(PoisonError::into_inner))
}

struct Exchange(Mutex<Vec<f32>>);

impl InplaceOp1 for Exchange {
    fn name(&self) -> &'static str {
        "exchange"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> Result<()> {
        let CpuStorage::F32(own) = storage else {
            bail!("exchange: expected f32 on the CPU");
        };
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(own, &mut values);
        Ok(())
    }
}

/// The same of one parameter with candle's operations, for other devices and f64.
fn composed_step(slot: &AdamWSlot, step: &AdamWStep) -> Result<()> {
    if slot.var.elem_count() == 0 {
        return Ok(());
    }
    let mut exp_avg = (slot.exp_avg.as_detached_tensor() * step.beta1)?;
    let mut exp_avg_sq = (slot.exp_avg_sq.as_detached_tensor() * step.beta2)?;
    if let Some(grad) = slot.grad {
        let grad = grad.detach();
        exp_avg = (exp_avg + (&grad * ((1.0 - step.beta1) * step.clip))?)?;
        let weight = (1.0 - step.beta2) * step.clip * step.clip;
        exp_avg_sq = (exp_avg_sq + (grad.sqr()? * weight)?)?;
    }
    let correction1 = 1.0 - step.beta1.powf(step.step as f64);
    let correction2 = 1.0 - step.beta2.powf(step.step as f64);
    let root = exp_avg_sq
        .sqrt()?
        .affine(correction2.sqrt().recip(), step.eps)?;
    let change = ((&exp_avg / root)? * (slot.lr / correction1))?;
    let value = (slot.var.as_detached_tensor() * (1.0 - slot.lr * slot.weight_decay))?;
    slot.var.set(&(value - change)?)?;
    slot.exp_avg.set(&exp_avg)?;
    slot.exp_avg_sq.set(&exp_avg_sq)
}

#[cfg(test)]
mod tests;
