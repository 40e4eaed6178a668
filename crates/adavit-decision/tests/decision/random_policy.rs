//! Random policies: the usage that was asked for, and the cost that the closed form expects.

use adavit_decision::{DecisionConfig, Policy, UsageMeter, random_policy};
use adavit_gumbel::SeededNoise;
use candle_core::Result;

use crate::helpers::{configs, nano, uniform};

const BATCH: usize = 400;

fn draw(config: &DecisionConfig, usage: f64, draw: u64, samples: &[u64]) -> Result<Policy> {
    let mut noise = SeededNoise::new(1, draw, samples);
    let usage = uniform(usage, nano().depth);
    random_policy(config, &nano(), &usage, &mut noise, samples.len())
}

fn meter(config: &DecisionConfig, policy: &Policy, batch: usize) -> Result<UsageMeter> {
    let mut meter = UsageMeter::new(config, &nano());
    for image in policy.kept(&nano(), batch)? {
        meter.add(&image)?;
    }
    Ok(meter)
}

#[test]
fn kept_shares_are_those_asked_for() -> Result<()> {
    let config = DecisionConfig::default();
    let samples: Vec<u64> = (0..BATCH as u64).collect();
    let usage = meter(&config, &draw(&config, 0.7, 0, &samples)?, BATCH)?.usage();
    // Four standard deviations of a mean over the gates of each axis.
    let bound = |gates: usize| 4.0 * (0.21 / (BATCH * gates) as f64).sqrt();
    assert!((usage.tokens - 0.7).abs() < bound(4 * 16));
    assert!((usage.blocks - 0.7).abs() < bound(3 * 2));
    assert!((usage.heads - 0.7).abs() < bound(3 * 3));
    assert_eq!(usage.per_block[0].heads, 1.0);
    Ok(())
}

#[test]
fn shares_of_zero_and_one_are_exact() -> Result<()> {
    let config = DecisionConfig::default();
    for share in [0.0, 1.0] {
        let usage = meter(&config, &draw(&config, share, 0, &[1, 2, 3])?, 3)?.usage();
        assert_eq!((usage.tokens, usage.blocks), (share, share));
    }
    Ok(())
}

#[test]
fn mean_macs_are_what_the_closed_form_expects() -> Result<()> {
    let samples: Vec<u64> = (0..4000).collect();
    for config in configs() {
        let meter = meter(&config, &draw(&config, 0.6, 3, &samples)?, samples.len())?;
        let dense = nano().dense_macs() as f64;
        let share = meter.mean_macs() / dense;
        let error = meter.std_macs() / dense / 4000_f64.sqrt();
        let expected = nano().expected_share(&config, 0.6);
        assert!(
            (share - expected).abs() < 4.0 * error,
            "{config:?} {share} {expected}"
        );
    }
    Ok(())
}

#[test]
fn an_image_gets_the_same_policy_in_any_batch_and_another_in_another_draw() -> Result<()> {
    let config = DecisionConfig::default();
    let tokens = |policy: &Policy, image: usize| -> Result<Vec<f32>> {
        let gates = policy.blocks[2].tokens().unwrap();
        gates.get(image)?.to_vec1()
    };
    let together = draw(&config, 0.5, 0, &[7, 8, 9])?;
    let alone = draw(&config, 0.5, 0, &[9])?;
    assert_eq!(tokens(&together, 2)?, tokens(&alone, 0)?);
    assert_ne!(tokens(&together, 1)?, tokens(&together, 2)?);
    assert_ne!(
        tokens(&alone, 0)?,
        tokens(&draw(&config, 0.5, 1, &[9])?, 0)?
    );
    Ok(())
}

#[test]
fn another_number_of_blocks_is_refused() {
    let mut noise = SeededNoise::new(0, 0, &[0]);
    let usage = &uniform(0.5, 3);
    let config = DecisionConfig::default();
    assert!(random_policy(&config, &nano(), usage, &mut noise, 1).is_err());
}
