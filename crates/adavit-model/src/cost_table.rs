//! The cost of one block for every use of it, as the published tables hold it.

use adavit_decision::BlockUse;
use candle_core::{Device, Tensor};

use crate::{ModelConfig, Result, Tensors};

/// Returns the tensor `gmacs`, float32, `(H + 1, N + 1, 2, 2)`: the `paper` MACs of one block, in
/// units of 10^9, by heads kept, tokens kept, attention on and MLP on.
///
/// # Errors
/// If the configuration is invalid.
pub fn paper_cost_table(config: &ModelConfig) -> Result<Tensors> {
    config.validate()?;
    let geometry = config.geometry();
    let (heads, tokens) = (geometry.num_heads + 1, geometry.num_tokens + 1);
    let mut gmacs = Vec::with_capacity(heads * tokens * 4);
    for heads in 0..heads {
        for tokens in 0..tokens {
            for (attention, mlp) in [(false, false), (false, true), (true, false), (true, true)] {
                let used = BlockUse {
                    tokens,
                    heads,
                    attention,
                    mlp,
                };
                gmacs.push((geometry.paper_block_macs(used) as f64 / 1e9) as f32);
            }
        }
    }
    let gmacs = Tensor::from_vec(gmacs, (heads, tokens, 2, 2), &Device::Cpu)?;
    Ok(Tensors::from([("gmacs".to_string(), gmacs)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_deit_small_holds_published_values() {
        let config = ModelConfig::preset("deit_small_patch16_224").unwrap();
        let table = &paper_cost_table(&config).unwrap()["gmacs"];
        assert_eq!(table.dims(), [7, 198, 2, 2]);
        let gmacs = |heads: usize, tokens: usize, attention: usize, mlp: usize| {
            let axes = [heads, tokens, attention, mlp];
            let entry = axes
                .iter()
                .try_fold(table.clone(), |entry, at| entry.get(*at));
            entry.unwrap().to_scalar::<f32>().unwrap()
        };
        // Entries of the table that comes with the published code.
        for ((heads, tokens, attention, mlp), expected) in [
            ((6, 197, 1, 1), 0.379_147_77),
            ((0, 100, 1, 1), 0.0),
            ((3, 0, 1, 1), 0.0),
            ((3, 99, 1, 0), 0.030_066_82),
            ((6, 119, 1, 1), 0.220_247_8),
            ((6, 120, 1, 1), 0.224_152_33),
            ((1, 1, 0, 1), 0.001_066_37),
            ((5, 53, 0, 0), 0.000_378_24),
            ((4, 150, 0, 1), 0.147_834_24),
            ((2, 26, 1, 1), 0.024_673_28),
        ] {
            let found = gmacs(heads, tokens, attention, mlp);
            assert!((found - expected).abs() < 1e-6, "{found}, {expected}");
        }
    }
}
