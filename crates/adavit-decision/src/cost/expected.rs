//! The mean cost of random gates, and the usage that a budget in MACs asks for.
//!
//! Gates are on independently with probability u. Of N tokens, t = 1 + Binomial(N - 1, u) are
//! kept, so E[t²] = E[t]² + (N - 1) u (1 - u); some head is kept with probability 1 - (1 - u)^H.

use crate::config::DecisionConfig;
use crate::cost::formula::{Kept, Moments};
use crate::cost::macs::Geometry;

impl Geometry {
    /// Returns the mean `exact` MACs of an image whose every gate is on with probability `usage`,
    /// independently of the others, over those of the dense model.
    pub fn expected_share(&self, config: &DecisionConfig, usage: f64) -> f64 {
        let dense = self.dense_macs() as f64;
        let fixed = (self.embed_macs + self.head_macs) as f64;
        let blocks: f64 = (0..self.depth)
            .map(|block| self.expected_block(config, block, usage))
            .sum();
        (fixed + blocks) / dense
    }

    fn expected_block(&self, config: &DecisionConfig, block: usize, usage: f64) -> f64 {
        let (n, c) = (self.num_tokens as f64, self.embed_dim as f64);
        let formula = self.formula(config, block);
        let on = |gated: bool| if gated { usage } else { 1.0 };
        let patch = on(config.gates_tokens(block));
        let head = on(formula.heads.is_some());
        let gate = on(config.gates_sublayers(block));
        let t = 1.0 + (n - 1.0) * patch;
        let t_squared = t * t + (n - 1.0) * patch * (1.0 - patch);
        let kept = Kept {
            tokens: t,
            channels: head * c,
            rows: if config.ada_token_with_mlp { t } else { n },
            any_head: 1.0 - (1.0 - head).powf(self.num_heads as f64),
        };
        let moments = Moments {
            tw: t * kept.channels,
            ttw: t_squared * kept.channels,
        };
        let Ok(attention) = formula.attention(&kept, &moments);
        let Ok(mlp) = formula.mlp(&kept);
        self.decision_macs(config, block) as f64 + gate * (attention + mlp)
    }

    /// Returns the usage, the same on every axis, at which [`Self::expected_share`] is `budget`:
    /// the target of each axis for a budget in MACs. It is 0 or 1 where the budget is out of
    /// reach.
    pub fn usage_for_budget(&self, config: &DecisionConfig, budget: f64) -> f64 {
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if self.expected_share(config, middle) < budget {
                low = middle;
            } else {
                high = middle;
            }
        }
        0.5 * (low + high)
    }
}
