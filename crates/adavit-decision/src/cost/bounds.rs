//! The least and the most that an image can cost.

use crate::config::DecisionConfig;
use crate::cost::macs::Geometry;
use crate::policy::kept::BlockKept;

impl Geometry {
    /// Returns what an image keeps of block `block` when every gate of it is off.
    pub fn least(&self, config: &DecisionConfig, block: usize) -> BlockKept {
        let all = self.all();
        let unless = |gated: bool, kept: usize| if gated { 0 } else { kept };
        let sublayers = config.gates_sublayers(block);
        BlockKept {
            patches: unless(config.gates_tokens(block), all.patches),
            heads: unless(config.gates_heads(block).is_some(), all.heads),
            attention: !sublayers,
            mlp: !sublayers,
        }
    }

    /// Returns the floor: the MACs of an image with every gate off. They are the embedding, the
    /// head, the decisions, and what has no gate. No image costs less.
    pub fn floor_macs(&self, config: &DecisionConfig) -> u64 {
        let least: Vec<BlockKept> = (0..self.depth)
            .map(|block| self.least(config, block))
            .collect();
        self.image_macs(config, &least)
    }

    /// Returns the MACs of an image with every gate on: the dense model's and the decisions'. No
    /// image costs more.
    pub fn most_macs(&self, config: &DecisionConfig) -> u64 {
        self.image_macs(config, &vec![self.all(); self.depth])
    }
}
