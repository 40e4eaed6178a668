//! Hard policies: the class token is always kept, and policies of other sizes are refused.

use adavit_decision::{BlockPolicy, Geometry, HardPolicy};
use candle_core::{Device, Result, Tensor};

fn geometry() -> Geometry {
    Geometry {
        num_tokens: 4,
        embed_dim: 8,
        depth: 2,
        num_heads: 2,
        hidden_dim: 16,
        embed_macs: 0,
        head_macs: 0,
    }
}

#[test]
fn a_block_of_some_images_is_copied_alone() -> Result<()> {
    let mut other = HardPolicy::all(&geometry(), 3);
    for (block, image) in (0..2).flat_map(|block| (0..3).map(move |image| (block, image))) {
        other.patches_mut(block, image).fill(false);
    }
    let mut policy = HardPolicy::all(&geometry(), 3);
    policy.copy_block(&other, 1, 1..3)?;
    let tokens = |block, image| policy.block_kept(block, image).tokens();
    assert_eq!([tokens(0, 1), tokens(1, 0)], [4, 4]);
    assert_eq!([tokens(1, 1), tokens(1, 2)], [1, 1]);
    Ok(())
}

#[test]
fn policies_of_other_sizes_are_not_copied() {
    let other = Geometry {
        num_tokens: 5,
        ..geometry()
    };
    let mut policy = HardPolicy::all(&geometry(), 5);
    let refused = |result: Result<()>, part: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    let another = HardPolicy::all(&other, 2);
    refused(policy.copy_images(&another, 0), "blocks, tokens and heads");
    refused(
        policy.copy_block(&another, 0, 0..1),
        "blocks, tokens and heads",
    );
    let same = HardPolicy::all(&geometry(), 2);
    refused(policy.copy_images(&same, 4), "at most 5 images");
    refused(policy.copy_block(&same, 0, 0..1), "in both");
    let same = HardPolicy::all(&geometry(), 5);
    refused(policy.copy_block(&same, 2, 0..1), "block 2");
    refused(policy.copy_block(&same, 0, 4..6), "images 4..6");
}

#[test]
fn the_class_token_is_kept_whatever_is_changed() -> Result<()> {
    let mut policy = HardPolicy::all(&geometry(), 2);
    for (block, image) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        policy.patches_mut(block, image).fill(false);
        policy.heads_mut(block, image).fill(false);
        policy.sublayers_mut(block, image).fill(false);
    }
    let nan = Tensor::full(f32::NAN, (2, 3), &Device::Cpu)?;
    policy.set_block(1, &BlockPolicy::new(Some(&nan), None, None)?)?;
    for (block, image) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        assert_eq!(policy.tokens(block, image), [true, false, false, false]);
        assert_eq!(policy.block_kept(block, image).tokens(), 1);
    }
    Ok(())
}
