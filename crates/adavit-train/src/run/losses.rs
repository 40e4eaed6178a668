//! The training loss: labels, the dense model's outputs, and the budget.
//!
//! ```text
//! dense     CE(labels)
//! adaptive  (1 - l) CE(labels) + l CE(softmax(teacher / T), student / T)
//!           + w_hidden sum_blocks m (c_student - c_teacher)²      class token's hidden state
//!           + w_attention sum_blocks |r_student - r_teacher|      class token's attention row
//!           + ramp * usage losses
//! ```
//!
//! With class weights w, the cross entropy with the labels is PyTorch's with `weight` and smoothing s:
//!
//! ```text
//! sum_n sum_k t_nk w_k (-log p_nk) / sum_n w_(y_n)      t_nk = (1 - s) [k = y_n] + s / K
//! ```
//!
//! The published terms have no factor T² (their T is 5). m is the block's MLP gate: a hidden state
//! counts where the branch runs. Squares and absolutes are means over batch and elements.

use adavit_decision::UsageLosses;
use adavit_model::Output;
use candle_core::{D, DType, Tensor};

use crate::config::distillation::Distillation;
use crate::error::{Error, Result};
use crate::run::targets::BudgetLosses;

/// The terms of one batch's loss, weighted; scalars with gradient.
#[derive(Debug, Clone)]
pub(crate) struct Losses {
    terms: Vec<(Term, Tensor)>,
}

/// What a term is part of, with its name for errors.
#[derive(Debug, Clone, Copy)]
enum Term {
    Task,
    Distillation(&'static str),
    Usage(&'static str),
}

impl Term {
    fn name(self) -> &'static str {
        match self {
            Self::Task => "task loss",
            Self::Distillation(name) | Self::Usage(name) => name,
        }
    }
}

/// The values of a batch's terms.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LossValues {
    pub(crate) task: f64,
    pub(crate) distillation: f64,
    pub(crate) usage: f64,
}

impl LossValues {
    /// Moves these means towards the values of another batch, which has this share of the images.
    pub(crate) fn mix(&mut self, other: Self, share: f64) {
        let mix = |mean: &mut f64, other: f64| *mean = *mean * (1.0 - share) + other * share;
        mix(&mut self.task, other.task);
        mix(&mut self.distillation, other.distillation);
        mix(&mut self.usage, other.usage);
    }
}

impl Losses {
    /// Cross entropy with the labels.
    pub(crate) fn dense(output: &Output, targets: &Tensor) -> Result<Self> {
        let task = adavit_kernels::cross_entropy(&output.logits, targets)?;
        Ok(Self {
            terms: vec![(Term::Task, task)],
        })
    }

    /// Cross entropy with the labels, and distillation from `teacher`, the dense model's output on the
    /// same batch.
    pub(crate) fn distilled(
        output: &Output,
        targets: &Tensor,
        teacher: Option<&Output>,
        distillation: &Distillation,
    ) -> Result<Self> {
        let mut losses = Self::dense(output, targets)?;
        if let Some(teacher) = teacher {
            losses.distil(output, teacher, distillation)?;
        }
        Ok(losses)
    }

    /// Adds the budget losses of the decisions of `output`, at `progress` of the stage, in [0, 1].
    /// `asked` is what each image was asked for, if it was.
    pub(crate) fn add_budget(
        &mut self,
        output: &Output,
        budget: &BudgetLosses,
        progress: f64,
        asked: Option<&[f64]>,
    ) -> Result<()> {
        let factor = budget.ramp.factor(progress);
        let UsageLosses {
            tokens,
            heads,
            blocks,
        } = budget.usage.compute(&output.decisions)?;
        for (name, term) in [
            ("token usage loss", tokens),
            ("head usage loss", heads),
            ("block usage loss", blocks),
        ] {
            self.terms.push((Term::Usage(name), (term * factor)?));
        }
        if let Some(macs) = &budget.macs {
            // The target falls where the weights of the others rise.
            let target = |share: f64| 1.0 - factor * (1.0 - share);
            let term = match asked {
                Some(asked) => {
                    let targets: Vec<f64> = asked.iter().copied().map(target).collect();
                    macs.compute_each(&output.decisions, &targets)?
                }
                None => macs.compute(&output.decisions, target(budget.share))?,
            };
            self.terms.push((Term::Usage("macs loss"), term));
        }
        Ok(())
    }

    fn distil(&mut self, student: &Output, teacher: &Output, by: &Distillation) -> Result<()> {
        if by.logits > 0.0 {
            for (_, task) in &mut self.terms {
                *task = (&*task * (1.0 - by.logits))?;
            }
            let term = soft_target_loss(student, teacher, by.temperature)?;
            self.add_distillation("logit distillation loss", &term, by.logits)?;
        }
        if by.hidden > 0.0 {
            let term = hidden_loss(student, teacher)?;
            self.add_distillation("hidden state distillation loss", &term, by.hidden)?;
        }
        if by.attention > 0.0 {
            let term = attention_loss(student, teacher)?;
            self.add_distillation("attention distillation loss", &term, by.attention)?;
        }
        Ok(())
    }

    fn add_distillation(&mut self, name: &'static str, term: &Tensor, weight: f64) -> Result<()> {
        self.terms
            .push((Term::Distillation(name), (term * weight)?));
        Ok(())
    }

    /// The sum of all terms.
    pub(crate) fn total(&self) -> Result<Tensor> {
        let mut total = self.terms[0].1.clone();
        for (_, term) in &self.terms[1..] {
            total = (total + term)?;
        }
        Ok(total)
    }

    /// Reads the values back.
    ///
    /// # Errors
    /// If a term is not finite; the error names it and `step`.
    pub(crate) fn values(&self, step: u64) -> Result<LossValues> {
        let terms: Vec<Tensor> = self
            .terms
            .iter()
            .map(|(_, term)| term.detach().to_dtype(DType::F32))
            .collect::<candle_core::Result<_>>()?;
        let read = Tensor::stack(&terms, 0)?.to_vec1::<f32>()?;
        let mut values = LossValues::default();
        for ((term, _), value) in self.terms.iter().zip(read) {
            if !value.is_finite() {
                return Err(Error::NonFinite {
                    what: term.name().to_string(),
                    step,
                });
            }
            let sum = match term {
                Term::Task => &mut values.task,
                Term::Distillation(_) => &mut values.distillation,
                Term::Usage(_) => &mut values.usage,
            };
            *sum += f64::from(value);
        }
        Ok(values)
    }
}

/// Target probabilities: the label's class, with `smoothing` spread evenly over all classes.
///
/// # Shapes
/// `labels`: `(B,)` u32 -> `(B, K)` f32.
pub(crate) fn smoothed_targets(
    labels: &Tensor,
    num_classes: usize,
    smoothing: f64,
) -> Result<Tensor> {
    let classes = Tensor::arange(0, num_classes as u32, labels.device())?;
    let hot = labels
        .unsqueeze(1)?
        .broadcast_eq(&classes.unsqueeze(0)?)?
        .to_dtype(DType::F32)?;
    Ok(hot.affine(1.0 - smoothing, smoothing / num_classes as f64)?)
}

/// Targets whose cross entropy is the one weighted by class: each probability times the weight of its
/// class, over the mean weight of the labels. Labels that all have weight 0 give targets of 0.
///
/// # Shapes
/// `targets`: `(B, K)`, `labels`: `(B,)` u32, `weights`: `(K,)` -> `(B, K)`.
pub(crate) fn weighted_targets(
    targets: &Tensor,
    labels: &Tensor,
    weights: &Tensor,
) -> Result<Tensor> {
    let of_labels = weights.index_select(labels, 0)?;
    let mean = f64::from(of_labels.mean_all()?.to_scalar::<f32>()?);
    let factor = if mean > 0.0 { 1.0 / mean } else { 0.0 };
    Ok((targets.broadcast_mul(weights)? * factor)?)
}

/// Cross entropy with the teacher's probabilities, both at `temperature`.
fn soft_target_loss(student: &Output, teacher: &Output, temperature: f64) -> Result<Tensor> {
    let soft = adavit_kernels::softmax(&(&teacher.logits / temperature)?)?;
    let logits = (&student.logits / temperature)?;
    Ok(adavit_kernels::cross_entropy(&logits, &soft)?)
}

/// Squared differences of the class token's hidden states, of the blocks whose MLP runs.
fn hidden_loss(student: &Output, teacher: &Output) -> Result<Tensor> {
    let mut loss = zero_like(&student.logits)?;
    let pairs = student.class_hidden.iter().zip(&teacher.class_hidden);
    for (block, (ours, theirs)) in pairs.enumerate() {
        let square = (ours - theirs.detach())?.sqr()?.mean(D::Minus1)?;
        let square = match student.decisions[block].policy.sublayers() {
            Some(gates) => (square * gates.detach().narrow(1, 1, 1)?.squeeze(1)?)?,
            None => square,
        };
        loss = (loss + square.mean_all()?)?;
    }
    Ok(loss)
}

/// Absolute differences of the class token's attention rows.
fn attention_loss(student: &Output, teacher: &Output) -> Result<Tensor> {
    let mut loss = zero_like(&student.logits)?;
    for (ours, theirs) in student.class_attention.iter().zip(&teacher.class_attention) {
        loss = (loss + (ours - theirs.detach())?.abs()?.mean_all()?)?;
    }
    Ok(loss)
}

fn zero_like(xs: &Tensor) -> Result<Tensor> {
    Ok(Tensor::zeros((), xs.dtype(), xs.device())?)
}

#[cfg(test)]
mod tests {
    use adavit_decision::{BlockLogits, BlockPolicy, Decision};
    use candle_core::Device;

    use super::*;

    fn output(logits: [f32; 2], hidden: [f32; 2], mlp_on: f32) -> Output {
        let gates = Tensor::new(&[[1.0, mlp_on]], &Device::Cpu).unwrap();
        Output {
            logits: Tensor::new(&[logits], &Device::Cpu).unwrap(),
            decisions: vec![Decision {
                policy: BlockPolicy::new(None, None, Some(gates)).unwrap(),
                logits: BlockLogits::default(),
            }],
            hidden: Vec::new(),
            class_hidden: vec![Tensor::new(&[hidden], &Device::Cpu).unwrap()],
            class_attention: Vec::new(),
        }
    }

    #[test]
    fn smoothed_targets_sum_to_one_and_keep_the_label_on_top() {
        let labels = Tensor::new(&[2_u32, 0], &Device::Cpu).unwrap();
        let targets = smoothed_targets(&labels, 4, 0.2).unwrap();
        let rows = targets.to_vec2::<f32>().unwrap();
        for (row, label) in rows.iter().zip([2, 0]) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            assert!((row[label] - 0.85).abs() < 1e-6);
        }
    }

    #[test]
    fn weighted_cross_entropy_is_pytorchs() {
        let logits = [[1.0_f32, 0.0, -1.0], [0.5, 2.0, 0.0]];
        let (labels, weights, smoothing) = ([0_usize, 2], [0.5_f64, 1.0, 2.0], 0.3);
        // F.cross_entropy(logits, labels, weight, label_smoothing=0.3), by its definition.
        let (mut sum, mut of_labels) = (0.0, 0.0);
        for (row, label) in logits.iter().zip(labels) {
            let row = row.map(f64::from);
            let log_sum = row.iter().map(|x| x.exp()).sum::<f64>().ln();
            let nll = |k: usize| weights[k] * (log_sum - row[k]);
            let smooth: f64 = (0..3).map(nll).sum();
            sum += (1.0 - smoothing) * nll(label) + smoothing / 3.0 * smooth;
            of_labels += weights[label];
        }
        let expected = sum / of_labels;
        let labels = Tensor::new(&[0_u32, 2], &Device::Cpu).unwrap();
        let loss = |weights: &[f32]| {
            let targets = smoothed_targets(&labels, 3, smoothing).unwrap();
            let weights = Tensor::new(weights, &Device::Cpu).unwrap();
            let targets = weighted_targets(&targets, &labels, &weights).unwrap();
            let mut output = output([0.0; 2], [0.0; 2], 1.0);
            output.logits = Tensor::new(&logits, &Device::Cpu).unwrap();
            let losses = Losses::dense(&output, &targets).unwrap();
            losses.values(0).unwrap().task
        };
        let found = loss(&[0.5, 1.0, 2.0]);
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        // Only the ratios of weights matter, and a batch of weight 0 adds nothing.
        assert!((loss(&[1.0, 2.0, 4.0]) - expected).abs() < 1e-6);
        assert_eq!(loss(&[0.0, 1.0, 0.0]), 0.0);
    }

    #[test]
    fn soft_targets_share_the_weight_with_the_labels() {
        let student = output([1.0, 0.0], [0.0, 0.0], 1.0);
        let teacher = output([4.0, 0.0], [0.0, 0.0], 1.0);
        let labels = Tensor::new(&[[0.0_f32, 1.0]], &Device::Cpu).unwrap();
        let by = Distillation {
            logits: 0.25,
            temperature: 2.0,
            hidden: 0.0,
            attention: 0.0,
        };
        let mut losses = Losses::dense(&student, &labels).unwrap();
        losses.distil(&student, &teacher, &by).unwrap();
        let values = losses.values(0).unwrap();
        let log_z = |z: f64| (1.0 + z.exp()).ln();
        let p = 1.0 / (1.0 + (-2.0_f64).exp());
        assert!((values.task - 0.75 * log_z(1.0)).abs() < 1e-6);
        let soft = p * (log_z(0.5) - 0.5) + (1.0 - p) * log_z(0.5);
        assert!((values.distillation - 0.25 * soft).abs() < 1e-6);
    }

    #[test]
    fn hidden_states_count_only_where_the_mlp_runs() {
        let by = Distillation {
            logits: 0.0,
            temperature: 1.0,
            hidden: 2.0,
            attention: 0.0,
        };
        for (mlp_on, expected) in [(1.0, 2.0 * 2.5), (0.0, 0.0)] {
            let student = output([0.0, 0.0], [1.0, 2.0], mlp_on);
            let teacher = output([0.0, 0.0], [0.0, 0.0], 1.0);
            let labels = Tensor::new(&[[0.0_f32, 1.0]], &Device::Cpu).unwrap();
            let mut losses = Losses::dense(&student, &labels).unwrap();
            losses.distil(&student, &teacher, &by).unwrap();
            assert!((losses.values(0).unwrap().distillation - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn a_term_that_is_not_finite_is_named() {
        let student = output([f32::NAN, 0.0], [0.0, 0.0], 1.0);
        let labels = Tensor::new(&[[0.0_f32, 1.0]], &Device::Cpu).unwrap();
        let error = Losses::dense(&student, &labels)
            .unwrap()
            .values(3)
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("task loss is not finite at step 3")
        );
        assert!(!error.is_input_error());
    }
}
