//! Layer-wise decay of the learning rate: the further a parameter is from the head, the slower it learns.
//!
//! ```text
//! scale = decay^(L + 1 - id)     id  0      stem, class token, position embedding
//!                                    i + 1  block i of L
//!                                    L + 1  final norm and head
//! ```
//!
//! Decision networks have scale 1, since they start untrained. The ids are those of BEiT (Bao et al. 2022,
//! arXiv 2106.08254) and MAE; timm's `param_groups_layer_decay` puts the final norm with the last block.

/// The number of blocks that parameters are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Depth {
    blocks: i32,
}

impl Depth {
    /// Returns the depth of the model that has parameters with these names.
    pub(crate) fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let blocks = names.filter_map(block).map(|block| block + 1).max();
        Self {
            blocks: blocks.unwrap_or(0),
        }
    }

    /// Returns the factor of a parameter's learning rate.
    pub(crate) fn lr_scale(self, name: &str, decay: f64) -> f64 {
        if adavit_model::is_decision_tensor(name) {
            return 1.0;
        }
        decay.powi(self.blocks + 1 - self.id(name))
    }

    fn id(self, name: &str) -> i32 {
        let last = ["norm", "head", "head_dist"];
        let first_part = name.split('.').next().unwrap_or(name);
        match block(name) {
            Some(block) => block + 1,
            None if last.contains(&first_part) => self.blocks + 1,
            None => 0,
        }
    }
}

/// The block that a parameter is of.
fn block(name: &str) -> Option<i32> {
    let rest = name.strip_prefix("blocks.")?;
    rest.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use adavit_decision::DecisionConfig;
    use adavit_model::{ModelConfig, tensor_shapes};

    use super::*;

    fn scale(preset: &str, name: &str) -> f64 {
        let config = ModelConfig::preset(preset).unwrap();
        let config = config.with_decisions(DecisionConfig::default());
        let shapes = tensor_shapes(&config).unwrap();
        assert!(shapes.contains_key(name), "{name}");
        Depth::of(shapes.keys().map(String::as_str)).lr_scale(name, 0.5)
    }

    #[test]
    fn rates_halve_from_the_head_to_the_stem() {
        for (name, power) in [
            ("head.weight", 0),
            ("norm.weight", 0),
            ("blocks.11.norm1.weight", 1),
            ("blocks.10.attn.query.weight", 2),
            ("blocks.0.mlp.fc1.bias", 12),
            ("cls_token", 13),
            ("pos_embed", 13),
            ("patch_embed.proj.weight", 13),
            ("blocks.1.head_select.mlp_head.weight", 0),
            ("blocks.0.attn.token_select.mlp_head.bias", 0),
        ] {
            let found = scale("deit_small_patch16_224", name);
            assert_eq!(found, 0.5_f64.powi(power), "{name}");
        }
    }

    #[test]
    fn every_stem_is_the_slowest() {
        let t2t = scale("t2t_vit_7", "tokens_to_token.attention1.norm1.weight");
        assert_eq!(t2t, 0.5_f64.powi(8));
        let convolutions = scale("nano_conv_patch4_28", "patch_embed.convs.0.weight");
        let depth = ModelConfig::preset("nano_conv_patch4_28").unwrap().depth;
        let depth = i32::try_from(depth).unwrap();
        assert_eq!(convolutions, 0.5_f64.powi(depth + 1));
    }

    #[test]
    fn without_decay_every_scale_is_one() {
        let depth = Depth::of(["blocks.2.norm1.weight"].into_iter());
        for name in ["pos_embed", "blocks.0.norm1.weight", "head.bias"] {
            assert_eq!(depth.lr_scale(name, 1.0), 1.0);
        }
    }
}
