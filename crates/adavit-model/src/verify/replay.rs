//! The forwards and backwards that a recording is replayed by.

use std::collections::HashMap;

use adavit_decision::{Decision, DecisionConfig, Gating, HardPolicy};
use adavit_gumbel::ReplayedNoise;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarBuilder;

use super::compare::{Comparer, Quantity};
use super::recording::Recording;
use crate::checkpoint::tensors::Tensors;
use crate::error::Result;
use crate::output::{Capture, Output};
use crate::prepared::{PreparedTransformer, Workspace};
use crate::vit::VisionTransformer;

/// Which path replays an evaluation recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Replay {
    /// Everything is computed, gates are factors.
    #[default]
    Masked,
    /// What is off is skipped.
    Sparse,
    /// As [`Self::Sparse`] by candle's operations, as on GPUs, also on the CPU.
    Gathered,
}

const CAPTURE: Capture = Capture {
    hidden: true,
    class_hidden: false,
    class_attention: false,
};

/// Replays an evaluation by the masked path.
pub(super) fn masked(
    recording: &Recording,
    weights: Tensors,
    device: &Device,
    comparer: &mut Comparer,
) -> Result<()> {
    let vb = variables(weights, device)?;
    let model = VisionTransformer::new(&recording.config, &vb)?;
    let images = recording.input()?.to_device(device)?;
    let output = model.forward_masked(&images, &mut Gating::Inference, CAPTURE)?;
    states(recording, &output, comparer)
}

/// Replays an evaluation by the sparse path, which leaves gates and logits to compare.
pub(super) fn sparse(
    recording: &Recording,
    weights: Tensors,
    device: &Device,
    replay: Replay,
    comparer: &mut Comparer,
) -> Result<()> {
    let vb = variables(weights, device)?;
    let config = &recording.config;
    let model = match replay {
        Replay::Gathered => PreparedTransformer::gathered(config, &vb)?,
        _ => PreparedTransformer::new(config, &vb)?,
    };
    let images = recording.input()?.to_device(device)?;
    let mut workspace = Workspace::default();
    let logits = if config.decisions.is_some() {
        model.forward_sparse(&images, &mut workspace)?
    } else {
        model.forward_dense(&images, &mut workspace)?
    };
    let none = DecisionConfig::none();
    let decisions = config.decisions.as_ref().unwrap_or(&none);
    let policy = workspace.policy();
    let found = [
        gates(
            policy,
            |block| decisions.gates_tokens(block),
            |l, i| policy.tokens(l, i).to_vec(),
        )?,
        gates(
            policy,
            |block| decisions.gates_heads(block).is_some(),
            |l, i| policy.heads(l, i).to_vec(),
        )?,
        gates(
            policy,
            |block| decisions.gates_sublayers(block),
            |l, i| policy.sublayers(l, i).to_vec(),
        )?,
    ];
    for (name, found) in GATES.into_iter().zip(found) {
        comparer.compare_optional(
            Quantity::Gates,
            name,
            found.as_ref(),
            recording.tensor(name),
        )?;
    }
    comparer.compare(
        Quantity::Logits,
        "logits",
        &logits,
        recording.expect("logits")?,
    )
}

const GATES: [&str; 3] = ["token_select", "head_select", "layer_select"];

/// The gates of the blocks that decide, `(B, blocks, ..)`.
fn gates(
    policy: &HardPolicy,
    decides: impl Fn(usize) -> bool,
    bits: impl Fn(usize, usize) -> Vec<bool>,
) -> Result<Option<Tensor>> {
    let blocks: Vec<usize> = (0..policy.depth())
        .filter(|block| decides(*block))
        .collect();
    if blocks.is_empty() {
        return Ok(None);
    }
    let images = 0..policy.batch();
    let bits: Vec<f32> = images
        .flat_map(|image| blocks.iter().map(move |block| (*block, image)))
        .flat_map(|(block, image)| bits(block, image))
        .map(|bit| f32::from(u8::from(bit)))
        .collect();
    let width = bits.len() / (policy.batch() * blocks.len()).max(1);
    let shape = (policy.batch(), blocks.len(), width);
    Ok(Some(Tensor::from_vec(bits, shape, &Device::Cpu)?))
}

/// Replays a training step: forward with the recorded noise, losses, gradients.
pub(super) fn training(
    recording: &Recording,
    weights: Tensors,
    device: &Device,
    comparer: &mut Comparer,
) -> Result<()> {
    let vars = weights
        .into_iter()
        .map(|(name, tensor)| Ok((name, Var::from_tensor(&tensor.to_device(device)?)?)))
        .collect::<candle_core::Result<HashMap<String, Var>>>()?;
    let tensors = vars
        .iter()
        .map(|(name, var)| (name.clone(), var.as_tensor().clone()));
    let vb = VarBuilder::from_tensors(tensors.collect(), DType::F32, device);
    let model = VisionTransformer::new(&recording.config, &vb)?;
    let images = recording.input()?.to_device(device)?;
    let mut noise = ReplayedNoise::new(recording.noises()?);
    let output = model.forward_masked(
        &images,
        &mut Gating::Training {
            noise: &mut noise,
            tau: recording.tau,
        },
        CAPTURE,
    )?;
    if noise.remaining() > 0 {
        return Err(recording.unfit(&format!(
            "{} recorded noises are left over: its config is not that of its numbers",
            noise.remaining()
        )));
    }
    states(recording, &output, comparer)?;
    let loss = losses(recording, &output, device, comparer)?;
    let gradients = loss.backward()?;
    for (name, recorded) in recording.gradients() {
        let var = vars.get(name);
        let var = var.ok_or_else(|| recording.unfit(&format!("grad.{name}: no such weight")))?;
        let found = match gradients.get(var) {
            Some(found) => found.clone(),
            None => var.zeros_like()?,
        };
        comparer.compare(
            Quantity::Gradients,
            &format!("grad.{name}"),
            &found,
            recorded,
        )?;
    }
    Ok(())
}

fn variables(weights: Tensors, device: &Device) -> Result<VarBuilder<'static>> {
    let tensors = weights.into_iter();
    let tensors = tensors
        .map(|(name, tensor)| Ok((name, tensor.to_device(device)?)))
        .collect::<candle_core::Result<HashMap<_, _>>>()?;
    Ok(VarBuilder::from_tensors(tensors, DType::F32, device))
}

/// Compares decisions, hidden states and logits.
fn states(recording: &Recording, output: &Output, comparer: &mut Comparer) -> Result<()> {
    let decisions = &output.decisions;
    for (quantity, name, found) in [
        (
            Quantity::Gates,
            "token_select",
            stacked(decisions, |d| d.policy.tokens())?,
        ),
        (
            Quantity::Gates,
            "head_select",
            stacked(decisions, |d| d.policy.heads())?,
        ),
        (
            Quantity::Gates,
            "layer_select",
            stacked(decisions, |d| d.policy.sublayers())?,
        ),
        (
            Quantity::GateLogits,
            "head_logits",
            stacked(decisions, |d| d.logits.heads.as_ref())?,
        ),
        (
            Quantity::GateLogits,
            "layer_logits",
            stacked(decisions, |d| d.logits.sublayers.as_ref())?,
        ),
    ] {
        let recorded = recording.tensor(name);
        if quantity == Quantity::GateLogits && recorded.is_none() {
            continue;
        }
        comparer.compare_optional(quantity, name, found.as_ref(), recorded)?;
    }
    for (block, found) in output.hidden.iter().enumerate() {
        let name = format!("hidden.{block}");
        if let Some(recorded) = recording.tensor(&name) {
            comparer.compare(Quantity::Hidden, &name, found, recorded)?;
        }
    }
    let recorded = recording.expect("logits")?;
    comparer.compare(Quantity::Logits, "logits", &output.logits, recorded)
}

/// The gates or logits of the blocks that have them, `(B, blocks, ..)` as recorded.
fn stacked<'a>(
    decisions: &'a [Decision],
    part: impl Fn(&'a Decision) -> Option<&'a Tensor>,
) -> Result<Option<Tensor>> {
    let parts: Vec<&Tensor> = decisions.iter().filter_map(part).collect();
    if parts.is_empty() {
        return Ok(None);
    }
    Ok(Some(Tensor::stack(&parts, 1)?))
}

/// Compares the losses, and returns their sum.
fn losses(
    recording: &Recording,
    output: &Output,
    device: &Device,
    comparer: &mut Comparer,
) -> Result<Tensor> {
    let targets = one_hot_targets(recording)?.to_device(device)?;
    let base = adavit_kernels::cross_entropy(&output.logits, &targets)?;
    let mut found = vec![("base_loss", base.clone())];
    let mut total = base;
    if let Some(usage_loss) = recording.usage_loss {
        let losses = usage_loss.compute(&output.decisions)?;
        total = (total + losses.total()?)?;
        for (name, loss, weight) in [
            ("token_loss", &losses.tokens, usage_loss.tokens.weight),
            ("head_loss", &losses.heads, usage_loss.heads.weight),
            ("layer_loss", &losses.blocks, usage_loss.blocks.weight),
        ] {
            // Recorded without their weight.
            if weight > 0.0 {
                found.push((name, (loss / weight)?));
            }
        }
    }
    found.push(("loss", total.clone()));
    for (name, found) in found {
        if let Some(recorded) = recording.tensor(name) {
            comparer.compare(Quantity::Losses, name, &found, recorded)?;
        }
    }
    Ok(total)
}

/// The recorded labels as rows, `(B, K)`.
fn one_hot_targets(recording: &Recording) -> Result<Tensor> {
    let num_classes = recording.config.num_classes;
    let labels = recording
        .expect("target")?
        .to_dtype(DType::I64)?
        .to_vec1::<i64>()?;
    let mut rows = vec![0f32; labels.len() * num_classes];
    for (row, label) in labels.iter().enumerate() {
        let class = usize::try_from(*label)
            .ok()
            .filter(|class| *class < num_classes);
        let class = class.ok_or_else(|| {
            recording.unfit(&format!(
                "target: expected labels below {num_classes}, found {label}"
            ))
        })?;
        rows[row * num_classes + class] = 1.0;
    }
    Ok(Tensor::from_vec(
        rows,
        (labels.len(), num_classes),
        &Device::Cpu,
    )?)
}
