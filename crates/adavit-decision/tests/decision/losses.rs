//! The usage losses of hand-made decisions, against numbers worked out by hand.

use adavit_decision::{AxisLoss, BlockLogits, BlockPolicy, Decision, Deviation, UsageLoss};
use candle_core::{DType, Device, Result, Tensor, Var};

use crate::helpers::{Gates, two_blocks};

fn loss(target: f64, deviation: Deviation) -> UsageLoss {
    let axis = AxisLoss::new(target, 2.0, deviation);
    UsageLoss {
        tokens: axis,
        heads: axis,
        blocks: axis,
    }
}

#[test]
fn losses_are_those_worked_out_by_hand() -> Result<()> {
    // Tokens, class token included: (2 + 3 + 1 + 2) / 12; heads over three running pairs:
    // (1 + 2 + 1) / 6; sub-layers: (1 + 2 + 1 + 0) / 8.
    let usages = [8.0 / 12.0, 4.0 / 6.0, 4.0 / 8.0];
    for (deviation, of) in [
        (Deviation::Absolute, (|d: f64| d.abs()) as fn(f64) -> f64),
        (Deviation::Squared, |d| d * d),
    ] {
        let losses = loss(0.3, deviation).compute(&two_blocks())?;
        for (ours, usage) in [&losses.tokens, &losses.heads, &losses.blocks]
            .into_iter()
            .zip(usages)
        {
            let ours = f64::from(ours.to_scalar::<f32>()?);
            assert!(
                (ours - 2.0 * of(usage - 0.3)).abs() < 1e-6,
                "{ours} {usage}"
            );
        }
    }
    Ok(())
}

#[test]
fn gradients_of_the_losses_push_usage_to_its_target() -> Result<()> {
    let gates = Var::new(&[[1.0_f32, 0.0], [1.0, 1.0]], &Device::Cpu)?;
    let ones = Tensor::ones((2, 2), DType::F32, &Device::Cpu)?;
    for (target, sign) in [(0.2, 1.0), (0.9, -1.0)] {
        let policy = BlockPolicy::new(
            Some(gates.as_tensor()),
            Some(gates.as_tensor().clone()),
            Some(ones.clone()),
        )?;
        let decision = Decision {
            policy,
            logits: BlockLogits::default(),
        };
        let total = loss(target, Deviation::Squared)
            .compute(&[decision])?
            .total()?;
        let gradient = total.backward()?.get(&gates).unwrap().to_vec2::<f32>()?;
        assert!(
            gradient.iter().flatten().all(|g| g * sign > 0.0),
            "{gradient:?}"
        );
    }
    Ok(())
}

#[test]
fn a_batch_that_runs_nothing_has_finite_losses() -> Result<()> {
    let off = Gates {
        patches: [[0.0; 2]; 2],
        heads: [[0.0; 2]; 2],
        sublayers: [[0.0; 2]; 2],
    };
    let losses = loss(0.5, Deviation::Squared).compute(&[off.decision()])?;
    assert!(losses.total()?.to_scalar::<f32>()?.is_finite());
    Ok(())
}

#[test]
fn losses_without_any_decision_are_refused() {
    assert!(loss(0.5, Deviation::Squared).compute(&[]).is_err());
}
