//! Usage and budget losses of hand-made policies, against numbers worked out by hand.
#![expect(
    clippy::unwrap_used,
    reason = "the helpers here are test code, which clippy does not see"
)]

use adavit_decision::{
    AxisLoss, BlockLogits, BlockPolicy, BlockUse, Decision, DecisionConfig, Deviation, Geometry,
    UsageLoss, UsageMeter,
};
use candle_core::{Device, Result, Tensor, Var};

fn decision(patches: &[[f32; 2]; 2], heads: &[[f32; 2]; 2], gates: &[[f32; 2]; 2]) -> Decision {
    let tensor = |rows: &[[f32; 2]; 2]| Tensor::new(rows, &Device::Cpu).unwrap();
    let policy = BlockPolicy::new(
        Some(&tensor(patches)),
        Some(tensor(heads)),
        Some(tensor(gates)),
    );
    Decision {
        policy: policy.unwrap(),
        logits: BlockLogits::default(),
    }
}

/// Two images, two blocks: the second image's second block runs nothing.
fn decisions() -> [Decision; 2] {
    [
        decision(
            &[[1., 0.], [1., 1.]],
            &[[1., 0.], [1., 1.]],
            &[[1., 0.], [1., 1.]],
        ),
        decision(
            &[[0., 0.], [1., 0.]],
            &[[0., 1.], [1., 1.]],
            &[[0., 1.], [0., 0.]],
        ),
    ]
}

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
        let losses = loss(0.3, deviation).compute(&decisions())?;
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
    let ones = Tensor::ones((2, 2), candle_core::DType::F32, &Device::Cpu)?;
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
    let off = [[0.0; 2]; 2];
    let losses = loss(0.5, Deviation::Squared).compute(&[decision(&off, &off, &off)])?;
    assert!(losses.total()?.to_scalar::<f32>()?.is_finite());
    Ok(())
}

#[test]
fn losses_without_any_decision_are_refused() {
    assert!(loss(0.5, Deviation::Squared).compute(&[]).is_err());
}

#[test]
fn usage_leaves_the_class_token_out_and_counts_heads_where_something_runs() -> Result<()> {
    let geometry = Geometry {
        num_tokens: 3,
        embed_dim: 4,
        depth: 2,
        num_heads: 2,
        hidden_dim: 8,
        embed_macs: 0,
        head_macs: 0,
    };
    let config = DecisionConfig {
        keep_layers: 0,
        ..DecisionConfig::default()
    };
    let mut meter = UsageMeter::new(&config, &geometry);
    let blocks = decisions();
    let used: Vec<Vec<BlockUse>> = blocks
        .iter()
        .map(|d| d.policy.usage(2, 3, 2))
        .collect::<Result<_>>()?;
    for (&first, &second) in used[0].iter().zip(&used[1]) {
        meter.add(&[first, second]);
    }
    let usage = meter.usage();
    assert!((usage.tokens - 4.0 / 8.0).abs() < 1e-12);
    assert!((usage.heads - 4.0 / 6.0).abs() < 1e-12);
    assert!((usage.blocks - 4.0 / 8.0).abs() < 1e-12);
    assert_eq!(usage.per_block[1].attention, 0.0);
    assert_eq!(usage.per_block[1].mlp, 0.5);
    assert!(meter.std_macs() > 0.0);
    Ok(())
}
