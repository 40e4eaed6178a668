//! Models and decisions that several files use.

use adavit_decision::{
    BlockLogits, BlockPolicy, BlockUsage, Decision, DecisionConfig, Geometry, HeadDeactivation,
};
use candle_core::{Device, Tensor};

pub(crate) const HEAD_MODES: [Option<HeadDeactivation>; 4] = [
    None,
    Some(HeadDeactivation::Full),
    Some(HeadDeactivation::Partial),
    Some(HeadDeactivation::HeadV2),
];

pub(crate) fn deit_small() -> Geometry {
    Geometry {
        num_tokens: 197,
        embed_dim: 384,
        depth: 12,
        num_heads: 6,
        hidden_dim: 1536,
        embed_macs: 196 * 768 * 384,
        head_macs: 384 * 1000,
    }
}

/// 17 tokens of 64 channels in 4 heads, 4 blocks.
pub(crate) fn nano() -> Geometry {
    Geometry {
        num_tokens: 17,
        embed_dim: 64,
        depth: 4,
        num_heads: 4,
        hidden_dim: 256,
        embed_macs: 16 * 49 * 64,
        head_macs: 640,
    }
}

/// Every kind of head gates, with tokens that gate the MLP and without.
pub(crate) fn configs() -> impl Iterator<Item = DecisionConfig> {
    HEAD_MODES.into_iter().flat_map(|ada_head| {
        [true, false].map(|ada_token_with_mlp| DecisionConfig {
            ada_head,
            ada_token_with_mlp,
            ..DecisionConfig::default()
        })
    })
}

pub(crate) fn uniform(usage: f64, depth: usize) -> Vec<BlockUsage> {
    let block = BlockUsage {
        tokens: usage,
        heads: usage,
        attention: usage,
        mlp: usage,
    };
    vec![block; depth]
}

/// The gates of one block for two images: two patches, two heads, attention and MLP.
pub(crate) struct Gates {
    pub(crate) patches: [[f32; 2]; 2],
    pub(crate) heads: [[f32; 2]; 2],
    pub(crate) sublayers: [[f32; 2]; 2],
}

impl Gates {
    pub(crate) fn decision(&self) -> Decision {
        let tensor = |rows: &[[f32; 2]; 2]| Tensor::new(rows, &Device::Cpu).unwrap();
        let policy = BlockPolicy::new(
            Some(&tensor(&self.patches)),
            Some(tensor(&self.heads)),
            Some(tensor(&self.sublayers)),
        );
        Decision {
            policy: policy.unwrap(),
            logits: BlockLogits::default(),
        }
    }
}

/// Two images, two blocks: the second image's second block runs nothing.
pub(crate) fn two_blocks() -> [Decision; 2] {
    let first = Gates {
        patches: [[1., 0.], [1., 1.]],
        heads: [[1., 0.], [1., 1.]],
        sublayers: [[1., 0.], [1., 1.]],
    };
    let second = Gates {
        patches: [[0., 0.], [1., 0.]],
        heads: [[0., 1.], [1., 1.]],
        sublayers: [[0., 1.], [0., 0.]],
    };
    [first.decision(), second.decision()]
}
