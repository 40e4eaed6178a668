//! Token reduction of a whole model.

use std::collections::HashMap;

use adavit_model::{
    Capture, Checkpoint, ModelConfig, ReductionMethod, TokenReduction, VisionTransformer,
    initial_tensors,
};
use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::VarBuilder;

const METHODS: [ReductionMethod; 2] = [ReductionMethod::Evit, ReductionMethod::Tome];

fn config() -> ModelConfig {
    ModelConfig {
        depth: 3,
        embed_dim: 16,
        num_heads: 2,
        ..ModelConfig::preset("nano_patch7_28").unwrap()
    }
}

fn images(b: usize, dtype: DType) -> Tensor {
    let values: Vec<f64> = (0..b * 784)
        .map(|i| ((i * i) as f64 * 0.37).sin())
        .collect();
    let images = Tensor::from_vec(values, (b, 1, 28, 28), &Device::Cpu).unwrap();
    images.to_dtype(dtype).unwrap()
}

fn reduction(method: ReductionMethod, tokens: [usize; 3]) -> TokenReduction {
    TokenReduction {
        method,
        tokens: tokens.to_vec(),
    }
}

fn largest(xs: &Tensor) -> f32 {
    let values = xs.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.iter().fold(0.0, |most, x| most.max(x.abs()))
}

#[test]
fn no_reduction_is_the_dense_model_and_some_is_not() -> Result<()> {
    let config = config();
    let tensors = initial_tensors(&config, 3, 0.0).unwrap();
    let model = Checkpoint { config, tensors }.model(&Device::Cpu).unwrap();
    let images = images(4, DType::F32);
    let dense = model.forward(&images, Capture::default()).unwrap().logits;
    for method in METHODS {
        let all = reduction(method, [17; 3]);
        let found = model.forward_reduced(&images, &all).unwrap();
        // Another order of the same sums.
        assert!(largest(&(found - &dense)?) < 1e-5);
        let less = reduction(method, [12, 9, 7]);
        let found = model.forward_reduced(&images, &less).unwrap();
        assert_eq!(found.dims(), dense.dims());
        assert!(largest(&(&found - &dense)?) > 1e-3, "{method:?}");
        // An image does not depend on its mates.
        let alone = model
            .forward_reduced(&images.narrow(0, 2, 1)?, &less)
            .unwrap();
        assert!(largest(&(alone - found.narrow(0, 2, 1)?)?) < 1e-5);
    }
    let wrong = reduction(ReductionMethod::Tome, [17, 17, 1]);
    assert!(
        model
            .forward_reduced(&images, &wrong)
            .unwrap_err()
            .is_input_error()
    );
    Ok(())
}

#[test]
fn gradients_are_those_of_finite_differences() -> Result<()> {
    let config = config();
    let tensors = initial_tensors(&config, 5, 0.0).unwrap();
    let images = images(2, DType::F64);
    let loss = |vars: &HashMap<String, Tensor>, reduction: &TokenReduction| {
        let vb = VarBuilder::from_tensors(vars.clone(), DType::F64, &Device::Cpu);
        let model = VisionTransformer::new(&config, &vb).unwrap();
        let logits = model.forward_reduced(&images, reduction).unwrap();
        logits.sqr()?.sum_all()
    };
    for method in METHODS {
        let reduction = reduction(method, [12, 9, 7]);
        for name in [
            "blocks.0.attn.key.weight",
            "blocks.1.mlp.fc1.weight",
            "cls_token",
        ] {
            let mut named = HashMap::new();
            let mut var = None;
            for (found, tensor) in &tensors {
                let tensor = Var::from_tensor(&tensor.to_dtype(DType::F64)?)?;
                named.insert(found.clone(), tensor.as_tensor().clone());
                if found == name {
                    var = Some(tensor);
                }
            }
            let var = var.unwrap();
            let gradients = loss(&named, &reduction)?.backward()?;
            let gradient = gradients
                .get(&var)
                .unwrap()
                .flatten_all()?
                .to_vec1::<f64>()?;
            let values = var.flatten_all()?.to_vec1::<f64>()?;
            for at in [0, values.len() / 2, values.len() - 1] {
                // Small enough that no choice of tokens changes.
                let moved = |by: f64| {
                    let mut values = values.clone();
                    values[at] += by;
                    let mut named = named.clone();
                    let tensor = Tensor::from_vec(values, var.shape(), &Device::Cpu)?;
                    named.insert(name.to_string(), tensor);
                    loss(&named, &reduction)?.to_scalar::<f64>()
                };
                let expected = (moved(1e-6)? - moved(-1e-6)?) / 2e-6;
                let size = gradient.iter().fold(1e-3f64, |size, x| size.max(x.abs()));
                assert!(
                    (gradient[at] - expected).abs() < 1e-6 * size,
                    "{method:?} {name} {at}: {}, expected {expected}",
                    gradient[at]
                );
            }
        }
    }
    Ok(())
}
