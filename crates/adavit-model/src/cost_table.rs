//! The cost of one block for every use of it, as the published tables hold it.

use adavit_decision::{BlockKept, PaperRounding};
use candle_core::{Device, Tensor};

use crate::checkpoint::tensors::Tensors;
use crate::config::ModelConfig;
use crate::error::{Error, Result};

/// Returns the tensor `gmacs`, float32, `(H + 1, N + 1, 2, 2)`: the `paper` MACs of one block, in
/// units of 10^9, by heads kept, tokens kept, attention on and MLP on.
///
/// # Errors
/// If the configuration is invalid.
pub fn paper_cost_table(config: &ModelConfig, rounding: PaperRounding) -> Result<Tensors> {
    config.validate()?;
    let geometry = config.geometry();
    let (heads, tokens) = (geometry.num_heads + 1, geometry.num_tokens + 1);
    let mut gmacs = Vec::with_capacity(heads * tokens * 4);
    for heads in 0..heads {
        for tokens in 0..tokens {
            for (attention, mlp) in [(false, false), (false, true), (true, false), (true, true)] {
                // The tables have a row for no token at all, not even the class token.
                let macs = tokens.checked_sub(1).map_or(0, |patches| {
                    let kept = BlockKept {
                        patches,
                        heads,
                        attention,
                        mlp,
                    };
                    geometry.paper_block_macs(kept, rounding)
                });
                gmacs.push((macs as f64 / 1e9) as f32);
            }
        }
    }
    let gmacs = Tensor::from_vec(gmacs, (heads, tokens, 2, 2), &Device::Cpu)?;
    Ok(Tensors::from([("gmacs".to_string(), gmacs)]))
}

impl ModelConfig {
    /// MACs that the published tables add for everything outside the blocks.
    ///
    /// # Errors
    /// If no such figure was published for the preset.
    pub fn paper_base_macs(&self) -> Result<u64> {
        match self.preset.as_str() {
            "deit_small_patch16_224" => Ok(60_000_000),
            "t2t_vit_19" => Ok(330_000_000),
            other => Err(Error::Config(format!(
                "preset {other}: the paper's accounting is known for deit_small_patch16_224 and \
                 t2t_vit_19 only; choose the accounting `exact`"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(preset: &str, rounding: PaperRounding) -> Tensor {
        let config = ModelConfig::preset(preset).unwrap();
        paper_cost_table(&config, rounding).unwrap()["gmacs"].clone()
    }

    fn gmacs(table: &Tensor, axes: [usize; 4]) -> f32 {
        let entry = axes
            .iter()
            .try_fold(table.clone(), |entry, at| entry.get(*at));
        entry.unwrap().to_scalar::<f32>().unwrap()
    }

    #[test]
    fn the_tables_hold_published_values() {
        // Entries of the tables that come with the published code.
        let deit = [
            ([6, 197, 1, 1], 0.379_147_77),
            ([0, 100, 1, 1], 0.0),
            ([3, 0, 1, 1], 0.0),
            ([3, 99, 1, 0], 0.030_066_82),
            ([6, 119, 1, 1], 0.220_247_8),
            ([6, 120, 1, 1], 0.224_152_33),
            ([1, 1, 0, 1], 0.001_066_37),
            ([5, 53, 0, 0], 0.000_378_24),
            ([4, 150, 0, 1], 0.147_834_24),
            ([2, 26, 1, 1], 0.024_673_28),
        ];
        let t2t = [
            ([7, 197, 1, 1], 0.431_042_3),
            ([0, 100, 1, 1], 0.0),
            ([4, 0, 1, 1], 0.0),
            ([3, 99, 1, 0], 0.033_842_43),
            ([7, 119, 1, 1], 0.250_189_2),
            ([7, 120, 1, 1], 0.254_629_76),
            ([1, 1, 0, 1], 0.001_129_41),
            ([5, 53, 0, 0], 0.000_441_28),
            ([4, 150, 0, 1], 0.142_367_68),
            ([2, 26, 1, 1], 0.025_106_56),
        ];
        for (preset, heads, entries) in
            [("deit_small_patch16_224", 6, deit), ("t2t_vit_19", 7, t2t)]
        {
            let table = table(preset, PaperRounding::Published);
            assert_eq!(table.dims(), [heads + 1, 198, 2, 2]);
            for (axes, expected) in entries {
                let found = gmacs(&table, axes);
                assert!(
                    (found - expected).abs() < 1e-6,
                    "{preset} {axes:?}: {found}"
                );
            }
        }
    }

    #[test]
    fn every_token_counts_where_the_published_rounding_is_not_asked_for() {
        for preset in ["deit_small_patch16_224", "t2t_vit_19"] {
            let published = table(preset, PaperRounding::Published);
            let exact = table(preset, PaperRounding::Exact);
            let differ = |tokens: usize| {
                let axes = [1, tokens, 1, 1];
                gmacs(&published, axes) != gmacs(&exact, axes)
            };
            let lost: Vec<usize> = (0..198).filter(|tokens| differ(*tokens)).collect();
            assert_eq!(lost, [13, 26, 51, 52, 53, 102, 104, 106, 117, 119, 121]);
        }
    }
}
