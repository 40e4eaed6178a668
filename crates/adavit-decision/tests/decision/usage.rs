//! What the meter reports, and which images it refuses.

use adavit_decision::{BlockKept, DecisionConfig, Geometry, Policy, UsageMeter};
use candle_core::Result;

use crate::helpers::two_blocks;

/// The sizes of [`two_blocks`].
fn geometry() -> Geometry {
    Geometry {
        num_tokens: 3,
        embed_dim: 4,
        depth: 2,
        num_heads: 2,
        hidden_dim: 8,
        embed_macs: 0,
        head_macs: 0,
    }
}

fn meter() -> UsageMeter {
    let config = DecisionConfig {
        keep_layers: 0,
        ..DecisionConfig::default()
    };
    UsageMeter::new(&config, &geometry())
}

#[test]
fn usage_leaves_the_class_token_out_and_counts_heads_where_something_runs() -> Result<()> {
    let mut meter = meter();
    let policy = Policy {
        blocks: two_blocks().map(|decision| decision.policy).to_vec(),
    };
    for image in policy.kept(&geometry(), 2)? {
        meter.add(&image)?;
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

#[test]
fn an_image_that_keeps_the_class_token_alone_has_a_token_usage_of_zero() -> Result<()> {
    let class_token = BlockKept {
        patches: 0,
        ..geometry().all()
    };
    assert_eq!(class_token.tokens(), 1);
    let mut meter = meter();
    meter.add(&[class_token; 2])?;
    assert_eq!(meter.usage().tokens, 0.0);
    Ok(())
}

#[test]
fn an_image_of_another_depth_or_of_more_than_the_model_has_is_refused() {
    let all = geometry().all();
    let tokens = BlockKept { patches: 3, ..all };
    let heads = BlockKept { heads: 3, ..all };
    let mut meter = meter();
    for (blocks, part) in [
        (vec![all], "2 blocks, found 1"),
        (vec![all; 3], "2 blocks, found 3"),
        (vec![all, tokens], "at most 3 tokens and 2 heads, found 4"),
        (vec![heads, all], "usage of block 0"),
    ] {
        let error = meter.add(&blocks).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    assert!(meter.macs().is_empty(), "a refused image is not counted");
}
