//! The tensors that a model consists of: their names and shapes, and their initial values.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use adavit_data::rng::{Stream, rng};
use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::config::{ModelConfig, PosEmbed};
use crate::error::Result;
use crate::stem::Stem;
use crate::vit::VisionTransformer;

/// Tensors by their names, as in published checkpoints.
pub type Tensors = BTreeMap<String, Tensor>;

/// Returns the name and shape of every tensor of the model.
///
/// # Errors
/// If the configuration is invalid.
pub fn tensor_shapes(config: &ModelConfig) -> Result<BTreeMap<String, Shape>> {
    let shapes = Arc::new(Mutex::new(BTreeMap::new()));
    let backend = Box::new(Recorder(Arc::clone(&shapes)));
    let vb = VarBuilder::from_backend(backend, DType::F32, Device::Cpu);
    VisionTransformer::new(config, &vb)?;
    let shapes = shapes.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(shapes.clone())
}

/// A source of tensors that only writes down what is asked for.
struct Recorder(Arc<Mutex<BTreeMap<String, Shape>>>);

impl SimpleBackend for Recorder {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let mut shapes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shapes.insert(name.to_string(), shape.clone());
        // One number, broadcast: the shapes of a large model cost no memory.
        Tensor::zeros((), dtype, device)?.broadcast_as(shape)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        candle_core::bail!("{name}: the shape of a tensor has to be asked for")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

/// Returns initial values, drawn by `seed` and name alone, so that a tensor starts the same
/// whatever else the model has.
///
/// Linear maps are Xavier uniform with zero bias (Dosovitskiy et al.), the patch embedding uniform
/// in ±1/sqrt(fan in) (PyTorch's convolution), a convolutional stem uniform in ±sqrt(6/fan in) (He
/// et al. 2015), class token and positions normal with standard deviation 0.02, norms the identity;
/// a performer's random features are orthogonal. Decision networks are normal with standard
/// deviation 0.02, and every gate's logit starts at `keep_logit`; a budget does not change it. An
/// allocator starts at 0.
///
/// # Errors
/// If the configuration is invalid.
pub fn initial_tensors(config: &ModelConfig, seed: u64, keep_logit: f64) -> Result<Tensors> {
    let mut tensors = Tensors::new();
    for (name, shape) in tensor_shapes(config)? {
        let values = initial_values(config, &name, &shape, seed, keep_logit);
        tensors.insert(name, Tensor::from_vec(values, shape, &Device::Cpu)?);
    }
    Ok(tensors)
}

/// Whether the tensor belongs to a decision network or an allocator.
pub fn is_decision_tensor(name: &str) -> bool {
    ["head_select", "layer_select", "token_select", "norm_policy"]
        .iter()
        .any(|part| name.split('.').any(|piece| piece == *part))
        || is_allocator_tensor(name)
}

/// Whether the tensor belongs to the allocator, which is fitted and not trained.
pub fn is_allocator_tensor(name: &str) -> bool {
    name.starts_with("allocator.")
}

/// Whether the tensor maps a budget to a shift of logits.
pub fn is_budget_tensor(name: &str) -> bool {
    is_decision_tensor(name) && name.ends_with(".budget.weight")
}

/// Whether the tensor holds a performer's random features, which are not trained.
pub fn is_random_features(name: &str) -> bool {
    name.starts_with("tokens_to_token.") && name.rsplit('.').next() == Some("w")
}

fn initial_values(
    config: &ModelConfig,
    name: &str,
    shape: &Shape,
    seed: u64,
    keep_logit: f64,
) -> Vec<f32> {
    let n = shape.elem_count();
    let dims = shape.dims();
    let mut rng = named_rng(seed, name);
    let decision = is_decision_tensor(name) && !name.contains("norm_policy");
    if name == "pos_embed" && config.pos_embed == PosEmbed::Sinusoid {
        return sinusoid(config.num_tokens(), config.embed_dim);
    }
    if let ([m, dim], true) = (dims, is_random_features(name)) {
        return orthogonal(&mut rng, *m, *dim);
    }
    if is_budget_tensor(name) || is_allocator_tensor(name) {
        return vec![0.0; n];
    }
    match (decision, dims) {
        (true, [_]) => vec![keep_logit as f32; n],
        (true, _) => normal(&mut rng, n, 0.02),
        (false, _) if ["pos_embed", "cls_token", "dist_token"].contains(&name) => {
            normal(&mut rng, n, 0.02)
        }
        (false, [_]) if name.ends_with("weight") => vec![1.0; n],
        (false, [_]) => vec![0.0; n],
        (false, [n_out, n_in]) => uniform(&mut rng, n, (6.0 / (n_in + n_out) as f64).sqrt()),
        (false, _) => {
            let fan_in: usize = dims[1..].iter().product();
            // PyTorch's values shrink from convolution to convolution, and a residual stream that
            // begins small is soon all blocks and no image.
            let convolutions = matches!(config.stem, Stem::Convolutions(_));
            let square = if convolutions { 6.0 } else { 1.0 };
            uniform(&mut rng, n, (square / fan_in as f64).sqrt())
        }
    }
}

/// A generator of its own for each (seed, name).
fn named_rng(seed: u64, name: &str) -> ChaCha8Rng {
    // FNV-1a, 64 bits: spreads short names well and stays the same for ever.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    rng(seed, Stream::Weights, hash, 0)
}

/// Normal values of standard deviation `std`, truncated at two standard deviations.
fn normal(rng: &mut ChaCha8Rng, n: usize, std: f64) -> Vec<f32> {
    let mut draw = || loop {
        let value: f64 = StandardNormal.sample(rng);
        if value.abs() <= 2.0 {
            return (value * std) as f32;
        }
    };
    (0..n).map(|_| draw()).collect()
}

fn uniform(rng: &mut ChaCha8Rng, n: usize, bound: f64) -> Vec<f32> {
    (0..n)
        .map(|_| rng.random_range(-bound..bound) as f32)
        .collect()
}

/// `m` random directions of length sqrt(m), orthogonal to each other as long as there are
/// dimensions; Choromanski et al. 2021 (arXiv 2009.14794).
fn orthogonal(rng: &mut ChaCha8Rng, m: usize, dim: usize) -> Vec<f32> {
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(m);
    while rows.len() < m {
        let mut row: Vec<f64> = (0..dim).map(|_| StandardNormal.sample(rng)).collect();
        let before = rows.len() - rows.len() % dim;
        // Twice, so that rounding leaves nothing over.
        for other in rows[before..].iter().chain(&rows[before..]) {
            let along: f64 = row.iter().zip(other).map(|(x, y)| x * y).sum();
            row.iter_mut().zip(other).for_each(|(x, y)| *x -= along * y);
        }
        let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        if length > 1e-6 {
            rows.push(row.into_iter().map(|x| x / length).collect());
        }
    }
    let scale = (m as f64).sqrt();
    rows.concat()
        .into_iter()
        .map(|x| (x * scale) as f32)
        .collect()
}

/// sin(p / 10000^(2i/C)) on even channels 2i, cos on the odd ones; Vaswani et al. 2017.
fn sinusoid(num_tokens: usize, embed_dim: usize) -> Vec<f32> {
    let angle = |p: usize, j: usize| {
        let rate = 10_000_f64.powf((2 * (j / 2)) as f64 / embed_dim as f64);
        p as f64 / rate
    };
    (0..num_tokens)
        .flat_map(|p| (0..embed_dim).map(move |j| (p, j)))
        .map(|(p, j)| {
            let angle = angle(p, j);
            (if j % 2 == 0 { angle.sin() } else { angle.cos() }) as f32
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use adavit_decision::DecisionConfig;

    use super::*;
    use crate::stem::conv_stem::ConvStem;

    #[test]
    fn a_tensor_starts_the_same_with_and_without_decision_networks() {
        let dense = ModelConfig::preset("nano_patch7_28").unwrap();
        let adaptive = dense.clone().with_decisions(DecisionConfig::default());
        let without = initial_tensors(&dense, 3, 0.0).unwrap();
        let with = initial_tensors(&adaptive, 3, 0.0).unwrap();
        let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(with.len() > without.len());
        for (name, tensor) in &without {
            assert_eq!(values(tensor), values(&with[name]), "{name}");
        }
    }

    #[test]
    fn another_seed_or_name_gives_other_values() {
        let config = ModelConfig::preset("nano_patch7_28").unwrap();
        let values = |seed, name: &str| {
            let tensors = initial_tensors(&config, seed, 0.0).unwrap();
            tensors[name]
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()
        };
        let name = "blocks.0.attn.query.weight";
        assert_eq!(values(1, name), values(1, name));
        assert_ne!(values(1, name), values(2, name));
        assert_ne!(values(1, name), values(1, "blocks.0.attn.key.weight"));
    }

    #[test]
    fn shapes_are_those_of_published_checkpoints() {
        // timm's count for DeiT; for T2T-ViT-14 the published 21.5 M, and for the smallest and the
        // largest 4.3 M and 64.1 M.
        for (preset, expected) in [
            ("deit_small_patch16_224", 22_050_664),
            ("t2t_vit_7", 4_310_222),
            ("t2t_vit_14", 21_545_550),
            ("t2t_vit_24", 64_105_934),
        ] {
            let config = ModelConfig::preset(preset).unwrap();
            let shapes = tensor_shapes(&config).unwrap();
            let parameters: usize = shapes.values().map(Shape::elem_count).sum();
            assert_eq!(parameters, expected, "{preset}");
        }
        let config = ModelConfig::preset("deit_small_patch16_224").unwrap();
        let shapes = tensor_shapes(&config).unwrap();
        assert_eq!(shapes["patch_embed.proj.weight"].dims(), [384, 3, 16, 16]);
    }

    #[test]
    fn a_convolutional_stem_starts_with_tokens_as_large_as_the_pixels() {
        let config = ModelConfig::preset("nano_conv_patch4_28").unwrap();
        let tensors = initial_tensors(&config, 5, 0.0).unwrap();
        let dev = Device::Cpu;
        let tensors = tensors.into_iter().collect();
        let vb = VarBuilder::from_tensors(tensors, DType::F32, &dev).pp("patch_embed");
        let Stem::Convolutions(stem) = &config.stem else {
            panic!("no convolutions");
        };
        let stem = ConvStem::new(stem, 1, config.embed_dim, &vb).unwrap();
        let mut rng = named_rng(0, "image");
        let image = normal(&mut rng, 4 * 28 * 28, 1.0);
        let image = Tensor::from_vec(image, (4, 1, 28, 28), &dev).unwrap();
        let size = |xs: &Tensor| -> f32 {
            let square = xs.sqr().unwrap().mean_all().unwrap();
            square.to_scalar::<f32>().unwrap().sqrt()
        };
        let ratio = size(&stem.forward(&image).unwrap()) / size(&image);
        assert!((0.5..2.0).contains(&ratio), "{ratio}");
    }

    #[test]
    fn a_performer_starts_with_orthogonal_features() {
        let config = ModelConfig::preset("t2t_vit_7").unwrap();
        let tensors = initial_tensors(&config, 5, 0.0).unwrap();
        let w = &tensors["tokens_to_token.attention1.w"];
        assert_eq!(w.dims(), [32, 64]);
        let products = w.matmul(&w.t().unwrap()).unwrap();
        for (row, products) in products.to_vec2::<f32>().unwrap().iter().enumerate() {
            for (column, product) in products.iter().enumerate() {
                let expected = if row == column { 32.0 } else { 0.0 };
                assert!(
                    (product - expected).abs() < 1e-4,
                    "{row}, {column}: {product}"
                );
            }
        }
    }
}
