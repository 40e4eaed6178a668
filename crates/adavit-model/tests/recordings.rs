//! The masked path against recordings of the published implementation.
#![expect(
    clippy::unwrap_used,
    reason = "the helpers here are test code, which clippy does not see"
)]

mod common;

use adavit_decision::{
    AxisLoss, Decision, DecisionConfig, Deviation, Gating, HardPolicy, UsageLoss,
};
use adavit_gumbel::ReplayedNoise;
use adavit_model::{Capture, PreparedTransformer, VisionTransformer, Workspace};
use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_nn::VarBuilder;
use common::{Recording, largest_difference};
use serde_json::Value;

/// Float32 rounding through four blocks: an f64 transcription of the same model differs from the
/// recordings by up to 1.4e-6.
const STATE_TOLERANCE: f64 = 4e-6;
/// Of each gradient's largest value, for the same reason.
const GRADIENT_TOLERANCE: f64 = 1e-5;

const CAPTURE: Capture = Capture {
    hidden: true,
    class_hidden: false,
    class_attention: false,
};

fn model(recording: &Recording) -> VisionTransformer {
    let vb = VarBuilder::from_tensors(recording.weights(), DType::F32, &Device::Cpu);
    VisionTransformer::new(&recording.config, &vb).unwrap()
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
    Tensor::stack(&parts, 1).map(Some)
}

fn assert_decisions(recording: &Recording, decisions: &[Decision]) -> Result<()> {
    let gates = [
        ("token_select", stacked(decisions, |d| d.policy.tokens())?),
        ("head_select", stacked(decisions, |d| d.policy.heads())?),
        (
            "layer_select",
            stacked(decisions, |d| d.policy.sublayers())?,
        ),
    ];
    for (name, ours) in gates {
        let recorded = recording.tensors.get(name);
        assert_eq!(ours.is_some(), recorded.is_some(), "{name}");
        if let (Some(ours), Some(recorded)) = (ours, recorded) {
            assert_eq!(largest_difference(&ours, recorded)?, 0.0, "{name}");
        }
    }
    let logits = [
        (
            "head_logits",
            stacked(decisions, |d| d.logits.heads.as_ref())?,
        ),
        (
            "layer_logits",
            stacked(decisions, |d| d.logits.sublayers.as_ref())?,
        ),
    ];
    for (name, ours) in logits {
        if let (Some(ours), Some(recorded)) = (ours, recording.tensors.get(name)) {
            // Decision weights are drawn wide: logits reach 100.
            let scale: f32 = recorded.abs()?.flatten_all()?.max(0)?.to_scalar()?;
            let difference = largest_difference(&ours, recorded)? / f64::from(scale.max(1.0));
            assert!(difference < STATE_TOLERANCE, "{name}: {difference}");
        }
    }
    Ok(())
}

fn assert_states(recording: &Recording, logits: &Tensor, hidden: &[Tensor]) -> Result<()> {
    for (block, ours) in hidden.iter().enumerate() {
        let difference = largest_difference(ours, &recording.tensors[&format!("hidden.{block}")])?;
        assert!(difference < STATE_TOLERANCE, "hidden.{block}: {difference}");
    }
    let difference = largest_difference(logits, &recording.tensors["logits"])?;
    assert!(difference < STATE_TOLERANCE, "logits: {difference}");
    Ok(())
}

const EVALUATIONS: [&str; 9] = [
    "deit_ada_eval",
    "deit_ada_norm_policy_eval",
    "deit_dense_eval",
    "deit_extreme_all_eval",
    "deit_extreme_none_eval",
    "deit_head_v2_eval",
    "deit_layer_only_eval",
    "deit_partial_head_eval",
    "deit_token_only_eval",
];

/// The gates of the blocks that decide, `(B, blocks, ..)` as recorded.
fn recorded_gates(
    policy: &HardPolicy,
    decides: &dyn Fn(usize) -> bool,
    gates: &dyn Fn(usize, usize) -> Vec<bool>,
) -> Result<Tensor> {
    let blocks: Vec<usize> = (0..policy.depth())
        .filter(|block| decides(*block))
        .collect();
    let images = 0..policy.batch();
    let each = images.flat_map(|image| blocks.iter().map(move |block| (*block, image)));
    let bits: Vec<f32> = each
        .flat_map(|(block, image)| gates(block, image))
        .map(|bit| f32::from(u8::from(bit)))
        .collect();
    let len = bits.len();
    Tensor::from_vec(bits, len, &Device::Cpu)
}

#[test]
fn the_sparse_path_equals_every_recording() -> Result<()> {
    for name in EVALUATIONS {
        let recording = Recording::load(name);
        let vb = VarBuilder::from_tensors(recording.weights(), DType::F32, &Device::Cpu);
        let config = &recording.config;
        let none = DecisionConfig::none();
        let decisions = config.decisions.as_ref().unwrap_or(&none);
        for model in [
            PreparedTransformer::new(config, &vb).unwrap(),
            PreparedTransformer::gathered(config, &vb).unwrap(),
        ] {
            let mut workspace = Workspace::default();
            let logits = model.forward_sparse(&recording.tensors["input"], &mut workspace);
            let difference = largest_difference(&logits.unwrap(), &recording.tensors["logits"])?;
            assert!(difference < STATE_TOLERANCE, "{name}: {difference}");
            let policy = workspace.policy();
            let found = [
                recorded_gates(policy, &|block| decisions.gates_tokens(block), &|l, i| {
                    policy.tokens(l, i).to_vec()
                })?,
                recorded_gates(
                    policy,
                    &|block| decisions.gates_heads(block).is_some(),
                    &|l, i| policy.heads(l, i).to_vec(),
                )?,
                recorded_gates(
                    policy,
                    &|block| decisions.gates_sublayers(block),
                    &|l, i| policy.sublayers(l, i).to_vec(),
                )?,
            ];
            for (gates, found) in ["token_select", "head_select", "layer_select"]
                .into_iter()
                .zip(found)
            {
                if let Some(recorded) = recording.tensors.get(gates) {
                    let recorded = recorded.flatten_all()?;
                    assert_eq!(
                        largest_difference(&found, &recorded)?,
                        0.0,
                        "{name}: {gates}"
                    );
                }
            }
        }
    }
    Ok(())
}

#[test]
fn inference_equals_every_recording() -> Result<()> {
    for name in EVALUATIONS {
        let recording = Recording::load(name);
        let images = &recording.tensors["input"];
        let output = model(&recording)
            .forward_masked(images, &mut Gating::Inference, CAPTURE)
            .unwrap();
        println!("{name}");
        assert_decisions(&recording, &output.decisions)?;
        assert_states(&recording, &output.logits, &output.hidden)?;
    }
    Ok(())
}

#[test]
fn a_given_policy_equals_the_decisions_that_it_was_taken_from() -> Result<()> {
    let recording = Recording::load("deit_ada_eval");
    let model = model(&recording);
    let images = &recording.tensors["input"];
    let decided = model
        .forward_masked(images, &mut Gating::Inference, CAPTURE)
        .unwrap();
    let given = model
        .forward_policy(images, &decided.policy(), CAPTURE)
        .unwrap();
    assert_eq!(largest_difference(&given.logits, &decided.logits)?, 0.0);
    Ok(())
}

/// The loss of a training recording, from the published argument names.
fn usage_loss(json: &Value) -> UsageLoss {
    let number = |key: String| json[&key].as_f64().unwrap_or(0.0);
    let axis = |name: &str, deviation| AxisLoss {
        target: number(format!("{name}_target_ratio")),
        weight: number(format!("{name}_loss_ratio")),
        deviation,
        diverse_weight: number(format!("{name}_diverse_ratio")),
        entropy_weight: number(format!("{name}_entropy_weight")),
        minimum: number(format!("{name}_minimal")),
        minimum_weight: number(format!("{name}_minimal_weight")),
    };
    UsageLoss {
        tokens: axis("token", Deviation::Squared),
        heads: axis("head", Deviation::Absolute),
        blocks: axis("layer", Deviation::Absolute),
    }
}

#[test]
fn training_losses_and_gradients_equal_every_recording() -> Result<()> {
    for name in [
        "deit_ada_train",
        "deit_ada_train_extras",
        "deit_token_only_train",
    ] {
        println!("{name}");
        let recording = Recording::load(name);
        let vars: Vec<(String, Var)> = recording
            .weights()
            .into_iter()
            .map(|(name, tensor)| Ok((name, Var::from_tensor(&tensor)?)))
            .collect::<Result<_>>()?;
        let tensors = vars
            .iter()
            .map(|(name, var)| (name.clone(), var.as_tensor().clone()))
            .collect();
        let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        let mut config = recording.config.clone();
        // The recording has a gradient for the position embedding too.
        config.pos_embed = adavit_model::PosEmbed::Learned;
        let model = VisionTransformer::new(&config, &vb).unwrap();

        let mut noise = ReplayedNoise::new(recording.noises());
        let mut gating = Gating::Training {
            noise: &mut noise,
            tau: 5.0,
        };
        let output = model
            .forward_masked(&recording.tensors["input"], &mut gating, CAPTURE)
            .unwrap();
        assert_eq!(noise.remaining(), 0);
        assert_decisions(&recording, &output.decisions)?;
        assert_states(&recording, &output.logits, &output.hidden)?;

        let usage = usage_loss(recording.loss.as_ref().unwrap()).compute(&output.decisions)?;
        let targets = one_hot(&recording.tensors["target"], config.num_classes)?;
        let base = adavit_kernels::cross_entropy(&output.logits, &targets)?;
        let loss = (&base + usage.total()?)?;
        for (name, ours) in [
            ("base_loss", &base),
            ("token_loss", &unweighted(&usage.tokens)?),
            ("head_loss", &unweighted(&usage.heads)?),
            ("layer_loss", &unweighted(&usage.blocks)?),
            ("loss", &loss),
        ] {
            if let Some(recorded) = recording.tensors.get(name) {
                let difference = largest_difference(ours, recorded)?;
                // The same sums in another order.
                assert!(difference < 1e-6, "{name}: {difference}");
            }
        }
        assert_gradients(&recording, &vars, &loss)?;
    }
    Ok(())
}

/// The losses of each axis are recorded without their weight, 2 in every recording.
fn unweighted(loss: &Tensor) -> Result<Tensor> {
    loss / 2.0
}

fn assert_gradients(recording: &Recording, vars: &[(String, Var)], loss: &Tensor) -> Result<()> {
    let gradients = loss.backward()?;
    let mut compared = 0;
    for (name, var) in vars {
        let Some(recorded) = recording.tensors.get(&format!("grad.{name}")) else {
            continue;
        };
        // Softmax does not depend on key biases: their gradient is rounding only.
        if name.ends_with("key.bias") {
            continue;
        }
        let ours = gradients
            .get(var)
            .unwrap_or_else(|| panic!("{name}: no gradient"));
        let scale: f32 = recorded.abs()?.flatten_all()?.max(D::Minus1)?.to_scalar()?;
        let difference = largest_difference(ours, recorded)? / f64::from(scale.max(1e-8));
        assert!(difference < GRADIENT_TOLERANCE, "grad.{name}: {difference}");
        compared += 1;
    }
    assert!(compared > 60, "{compared}");
    Ok(())
}

fn one_hot(labels: &Tensor, num_classes: usize) -> Result<Tensor> {
    let classes = Tensor::arange(0, num_classes as u32, &Device::Cpu)?.to_dtype(DType::I64)?;
    labels
        .unsqueeze(1)?
        .broadcast_eq(&classes.unsqueeze(0)?)?
        .to_dtype(DType::F32)
}
