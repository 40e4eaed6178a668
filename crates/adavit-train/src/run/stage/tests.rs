//! What a step learns from its batches.

use adavit_model::initial_tensors;

use super::*;
use crate::config::class_weights::ClassWeights;
use crate::config::model::ModelOptions;

fn config() -> TrainConfig {
    let mut config = TrainConfig {
        model: ModelOptions {
            embed_dim: Some(16),
            depth: Some(2),
            num_heads: Some(2),
            ..ModelOptions::default()
        },
        ..TrainConfig::default()
    };
    config.dense.optimizer.lr = 1.0;
    // Far above the roots of the moments, so that a step is nearly linear in the gradient.
    config.dense.optimizer.eps = 1.0;
    config.dense.ema_decay = 0.0;
    config
}

fn trainer(config: &TrainConfig) -> StageTrainer {
    let model = config.dense_model().unwrap();
    let start = Checkpoint {
        tensors: initial_tensors(&model, 1, 0.0).unwrap(),
        config: model,
    };
    let schedule = LrSchedule {
        warmup_steps: 0,
        total_steps: 10,
        min_factor: 0.0,
        warmup_factor: 0.0,
    };
    let weights = config.class_weights.as_ref();
    let parts = StageParts {
        schedule,
        adaptive: None,
        class_weights: weights.map(|weights| weights.of(0..10, 10)),
    };
    StageTrainer::new(config, &start, parts, &Device::Cpu).unwrap()
}

/// Made images with these numbers.
fn batch(samples: std::ops::Range<u64>) -> Batch {
    let samples: Vec<u64> = samples.collect();
    let (n, device) = (samples.len(), &Device::Cpu);
    let pixel = |sample: u64, p: u64| ((p * 7 + sample * 131) as f32 * 0.1).sin();
    let pixels: Vec<f32> = samples
        .iter()
        .flat_map(|sample| (0..784).map(|p| pixel(*sample, p)))
        .collect();
    let labels: Vec<u32> = samples.iter().map(|sample| (sample % 10) as u32).collect();
    Batch {
        images: Tensor::from_vec(pixels, (n, 1, 28, 28), device).unwrap(),
        labels: Tensor::new(labels, device).unwrap(),
        samples,
        targets: None,
        skipped: Vec::new(),
    }
}

/// The weights and the measures after one step on these batches.
fn stepped(config: &TrainConfig, batches: &[Batch]) -> (Vec<f32>, StepOutput) {
    let mut trainer = trainer(config);
    let place = Place { epoch: 0, step: 0 };
    let mut group = StepGroup::default();
    for batch in batches {
        trainer.accumulate(&mut group, batch, place).unwrap();
    }
    let output = trainer.step(group, place).unwrap();
    let tensors = trainer.checkpoint().unwrap().tensors;
    let values = tensors.values().flat_map(|tensor| {
        let tensor = tensor.flatten_all().unwrap();
        tensor.to_vec1::<f32>().unwrap()
    });
    (values.collect(), output)
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max)
}

#[test]
fn batches_of_one_step_are_one_large_batch() {
    let config = config();
    let (whole, of_whole) = stepped(&config, &[batch(0..12)]);
    let parts = [batch(0..2), batch(2..7), batch(7..12)];
    let (parted, of_parts) = stepped(&config, &parts);
    assert!(largest_difference(&whole, &parted) < 1e-5);
    for (a, b) in [
        (of_whole.losses.task, of_parts.losses.task),
        (of_whole.grad_norm, of_parts.grad_norm),
        (of_whole.top1, of_parts.top1),
    ] {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
    // The step is large enough to tell, and another weighting of the parts is another step.
    let (first, _) = stepped(&config, &[batch(0..2)]);
    assert!(largest_difference(&whole, &first) > 1e-3);
}

#[test]
fn drawn_branches_do_not_depend_on_how_a_step_is_divided() {
    let mut config = config();
    config.dense.drop_path = 0.5;
    let (whole, _) = stepped(&config, &[batch(0..12)]);
    let (parted, _) = stepped(&config, &[batch(0..5), batch(5..12)]);
    assert!(largest_difference(&whole, &parted) < 1e-5);
    config.dense.drop_path = 0.0;
    let (without, _) = stepped(&config, &[batch(0..12)]);
    assert!(largest_difference(&whole, &without) > 1e-3);
}

#[test]
fn an_image_of_a_class_of_weight_zero_teaches_nothing() {
    let mut config = config();
    config.dense.label_smoothing = 0.0;
    // Images have the class of their number: 10 and 11 are of the classes 0 and 1.
    let (without, _) = stepped(&config, &[batch(2..10)]);
    let mut weights = vec![1.0; 10];
    (weights[0], weights[1]) = (0.0, 0.0);
    config.class_weights = Some(ClassWeights::Given(weights));
    let (weighted, _) = stepped(&config, &[batch(2..12)]);
    assert!(largest_difference(&without, &weighted) < 1e-5);
    config.class_weights = None;
    let (all, _) = stepped(&config, &[batch(2..12)]);
    assert!(largest_difference(&all, &weighted) > 1e-3);
}
