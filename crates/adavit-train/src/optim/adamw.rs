//! AdamW: Adam with decoupled weight decay, and global-norm clipping.
//!
//! ```text
//! g <- g min(1, max_grad_norm / (|g| + 1e-6))                       |g| over all parameters
//! m <- b1 m + (1 - b1) g          v <- b2 v + (1 - b2) g^2
//! w <- w (1 - lr wd) - lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps)
//! ```
//! t counts from 1. lr and wd are those of the parameter's [`Group`], lr times the factor of the
//! schedule: PyTorch's formula. (Loshchilov & Hutter, 2019, arXiv 1711.05101.)
//!
//! Layer-wise decay multiplies lr once more, by `layer_decay^(L + 1 - id)`: see [`Depth`].

use std::collections::BTreeMap;

use adavit_kernels::{AdamWSlot, AdamWStep, adamw, squared_norms};
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::optim::depth::Depth;
use crate::optim::parameters::{Group, Parameters, copy_like, match_by_name};
use crate::ranges::Ranges;

/// What PyTorch's `clip_grad_norm_` adds to the norm.
const CLIP_EPS: f64 = 1e-6;

/// The settings of [`AdamW`]; fields left out of a file have the values of [`Default`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWConfig {
    /// Learning rate of the backbone at factor 1.
    pub lr: f64,
    /// Learning rate of the decision networks at factor 1.
    pub decision_lr: f64,
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the corrected mean of squares.
    pub eps: f64,
    /// Factor of the learning rate from each block to the one before it, in (0, 1]; 1 for one learning
    /// rate. Decision networks keep theirs.
    pub layer_decay: f64,
    /// Weight decay of the groups that decay, times the learning rate.
    pub weight_decay: f64,
    /// Largest norm of the gradient of all parameters; larger ones are scaled down to it. 0 for no
    /// clipping.
    pub max_grad_norm: f64,
}

impl Default for AdamWConfig {
    /// DeiT's values at 512 images per step, no clipping.
    fn default() -> Self {
        Self {
            lr: 5e-4,
            decision_lr: 5e-4,
            layer_decay: 1.0,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.05,
            max_grad_norm: 0.0,
        }
    }
}

impl AdamWConfig {
    /// Checks the range of every field.
    ///
    /// # Errors
    /// [`Error::Setting`] names the first field that is out of range.
    pub fn validate(&self) -> Result<()> {
        self.validate_in("optimizer")
    }

    /// As [`Self::validate`], for the settings of the table `table`.
    pub(crate) fn validate_in(&self, table: &str) -> Result<()> {
        let rate = |value: f64| value.is_finite() && value >= 0.0;
        let beta = |value: f64| (0.0..1.0).contains(&value);
        let ranges = Ranges::of(table);
        for (name, value, ok, expected) in [
            ("beta1", self.beta1, beta(self.beta1), "in [0, 1)"),
            ("beta2", self.beta2, beta(self.beta2), "in [0, 1)"),
            ("eps", self.eps, rate(self.eps) && self.eps > 0.0, "above 0"),
        ] {
            ranges.check(name, value, ok, expected)?;
        }
        ranges.shares([("layer_decay", self.layer_decay)])?;
        ranges.weights([
            ("lr", self.lr),
            ("decision_lr", self.decision_lr),
            ("weight_decay", self.weight_decay),
            ("max_grad_norm", self.max_grad_norm),
        ])
    }
}

/// What one step of [`AdamW`] measured.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct StepStats {
    /// The norm of the gradient of all parameters, before clipping.
    pub grad_norm: f64,
    /// Whether the gradient was scaled down.
    pub clipped: bool,
}

/// AdamW over named parameters, with a state that can be saved and resumed.
///
/// ```
/// use candle_core::{Device, Var};
/// # use adavit_train::{AdamW, AdamWConfig, Parameters};
/// let var = Var::new(&[1f32, -1.0], &Device::Cpu)?;
/// let parameters = Parameters::from_vars([("w".to_string(), var.clone())].into());
/// let mut optimizer = AdamW::new(AdamWConfig { lr: 0.1, ..Default::default() }, &parameters)?;
/// let loss = var.sqr()?.sum_all()?;
/// let stats = optimizer.step(&loss.backward()?, 1.0)?;
/// assert!((stats.grad_norm - 8f64.sqrt()).abs() < 1e-6);
/// assert!((var.to_vec1::<f32>()?[0] - 0.9).abs() < 1e-6);
/// # Ok::<(), adavit_train::Error>(())
/// ```
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    slots: Vec<Slot>,
    step: u64,
}

impl AdamW {
    /// Starts with zero moments for `parameters`.
    ///
    /// # Errors
    /// [`Error::Setting`] for a field of `config` out of range, [`Error::Mismatch`] for parameters that
    /// are not all F32 or all F64 on one device.
    pub fn new(config: AdamWConfig, parameters: &Parameters) -> Result<Self> {
        config.validate()?;
        let mut slots: Vec<Slot> = Vec::with_capacity(parameters.len());
        let depth = Depth::of(parameters.iter().map(|(name, _)| name));
        for (name, var) in parameters.iter() {
            let dtype = slots.first().map_or(var.dtype(), |slot| slot.var.dtype());
            if var.dtype() != dtype || !matches!(dtype, DType::F32 | DType::F64) {
                return Err(Error::Mismatch(format!(
                    "parameter {name}: expected all f32 or all f64, found {}",
                    var.dtype().as_str()
                )));
            }
            if slots
                .first()
                .is_some_and(|slot| !slot.var.device().same_device(var.device()))
            {
                return Err(Error::Mismatch(format!(
                    "parameter {name}: expected all parameters on one device, found another"
                )));
            }
            let lr_scale = depth.lr_scale(name, config.layer_decay);
            slots.push(Slot::new(name, var, lr_scale)?);
        }
        Ok(Self {
            config,
            slots,
            step: 0,
        })
    }

    /// Updates every parameter from its gradient; the learning rates are times `lr_factor`.
    ///
    /// A parameter that `grads` lacks counts as one with a zero gradient: a gate that was off for
    /// the whole batch cuts its branch out of the graph. Its moments still decay and move it, and
    /// weight decay applies.
    ///
    /// # Errors
    /// [`Error::NonFinite`] names the first parameter, by name, whose gradient is not finite or
    /// so large that its squares overflow; no parameter and no moment has changed then.
    pub fn step(&mut self, grads: &GradStore, lr_factor: f64) -> Result<StepStats> {
        // A gradient may still hold the graph that it came from.
        let grads: Vec<Option<Tensor>> = self
            .slots
            .iter()
            .map(|slot| grads.get(&slot.var).map(Tensor::detach))
            .collect();
        self.step_by(&grads, lr_factor)
    }

    /// As [`Self::step`], by gradients in the order of the parameters' names.
    ///
    /// # Errors
    /// As for [`Self::step`].
    pub(crate) fn step_by(
        &mut self,
        grads: &[Option<Tensor>],
        lr_factor: f64,
    ) -> Result<StepStats> {
        if !lr_factor.is_finite() || lr_factor < 0.0 {
            return Err(Error::Setting(format!(
                "lr_factor: expected a finite number of at least 0, found {lr_factor}"
            )));
        }
        let grads: Vec<Option<&Tensor>> = grads.iter().map(Option::as_ref).collect();
        let grad_norm = self.global_norm(&grads)?;
        let max = self.config.max_grad_norm;
        let clip = if max > 0.0 {
            (max / (grad_norm + CLIP_EPS)).min(1.0)
        } else {
            1.0
        };
        let step = AdamWStep {
            beta1: self.config.beta1,
            beta2: self.config.beta2,
            eps: self.config.eps,
            step: self.step + 1,
            clip,
        };
        let slots: Vec<AdamWSlot> = self
            .slots
            .iter()
            .zip(grads)
            .map(|(slot, grad)| slot.with(grad, &self.config, lr_factor))
            .collect();
        adamw(&slots, &step)?;
        self.step += 1;
        Ok(StepStats {
            grad_norm,
            clipped: clip < 1.0,
        })
    }

    /// Returns how many steps were done.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Returns both moments of every parameter, as `NAME.exp_avg` and `NAME.exp_avg_sq`.
    ///
    /// These are copies: later steps do not change them.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        self.moments()
            .map(|(name, tensor)| Ok((name, copy_like(tensor, tensor)?)))
            .collect()
    }

    /// Resumes from an [`AdamW::state`] taken after `step` steps.
    ///
    /// # Errors
    /// [`Error::Mismatch`] lists every name that is missing, unused, or of another shape or dtype;
    /// nothing has changed then.
    pub fn load_state<'a>(
        &mut self,
        tensors: impl IntoIterator<Item = (&'a String, &'a Tensor)>,
        step: u64,
    ) -> Result<()> {
        let tensors = match_by_name("optimizer moments", self.moments(), tensors)?;
        for slot in &self.slots {
            let copy = |name: &str, var: &Var| -> Result<()> {
                Ok(var.set(&copy_like(tensors[name], var)?)?)
            };
            copy(&slot.exp_avg_name(), &slot.exp_avg)?;
            copy(&slot.exp_avg_sq_name(), &slot.exp_avg_sq)?;
        }
        self.step = step;
        Ok(())
    }

    fn moments(&self) -> impl Iterator<Item = (String, &Tensor)> {
        self.slots.iter().flat_map(|slot| {
            [
                (slot.exp_avg_name(), slot.exp_avg.as_tensor()),
                (slot.exp_avg_sq_name(), slot.exp_avg_sq.as_tensor()),
            ]
        })
    }

    /// Returns the norm over all gradients, at the cost of one read-back from the device.
    fn global_norm(&self, grads: &[Option<&Tensor>]) -> Result<f64> {
        let sums = squared_norms(grads)?;
        if let Some(first) = sums.iter().position(|sum| !sum.is_finite()) {
            return Err(Error::NonFinite {
                what: format!("the gradient of {}", self.slots[first].name),
                step: self.step,
            });
        }
        Ok(sums.iter().sum::<f64>().sqrt())
    }
}

/// One parameter with its moments.
#[derive(Debug)]
struct Slot {
    name: String,
    var: Var,
    group: Group,
    /// Of layer-wise decay.
    lr_scale: f64,
    exp_avg: Var,
    exp_avg_sq: Var,
}

impl Slot {
    fn new(name: &str, var: &Var, lr_scale: f64) -> Result<Self> {
        let zeros = || Var::zeros(var.shape(), var.dtype(), var.device());
        Ok(Self {
            name: name.to_string(),
            var: var.clone(),
            group: Group::of(name, var.rank()),
            lr_scale,
            exp_avg: zeros()?,
            exp_avg_sq: zeros()?,
        })
    }

    fn exp_avg_name(&self) -> String {
        format!("{}.exp_avg", self.name)
    }

    fn exp_avg_sq_name(&self) -> String {
        format!("{}.exp_avg_sq", self.name)
    }

    /// The slot as the kernel takes it.
    fn with<'a>(
        &'a self,
        grad: Option<&'a Tensor>,
        config: &AdamWConfig,
        lr_factor: f64,
    ) -> AdamWSlot<'a> {
        let base = if self.group.is_decision() {
            config.decision_lr
        } else {
            config.lr
        };
        AdamWSlot {
            var: &self.var,
            grad,
            exp_avg: &self.exp_avg,
            exp_avg_sq: &self.exp_avg_sq,
            lr: base * self.lr_scale * lr_factor,
            weight_decay: if self.group.decays() {
                config.weight_decay
            } else {
                0.0
            },
        }
    }
}

#[cfg(test)]
mod tests;
