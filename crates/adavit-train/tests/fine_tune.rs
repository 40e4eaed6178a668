//! Contracts of the settings that fine-tuning needs, in whole runs.
#![expect(
    clippy::unwrap_used,
    reason = "the helpers here are test code, which clippy does not see"
)]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use adavit_model::{Tensors, is_decision_tensor, read_tensors};
use adavit_testing::{config, control, loaded, made_images, resumed, run, summary};
use adavit_train::{ClassWeights, Destination, Event, MetricsRow, Outcome, TrainConfig, train};
use candle_core::Tensor;

fn bits(tensor: &Tensor) -> Vec<u32> {
    let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

/// The names of the tensors that differ.
fn changed(before: &Tensors, after: &Tensors) -> Vec<String> {
    let changed = before
        .iter()
        .filter(|(name, tensor)| bits(tensor) != bits(&after[*name]));
    changed.map(|(name, _)| name.clone()).collect()
}

fn weights(out: &Path, folder: &str) -> Tensors {
    read_tensors(&out.join(folder).join("model.safetensors")).unwrap()
}

#[test]
fn a_frozen_backbone_keeps_every_bit_and_has_no_moments() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&made_images(folder.path()));
    (config.dense.freeze, config.adaptive.freeze) = (true, true);
    let out = folder.path().join("run");
    let mut parameters = Vec::new();
    summary(
        run(&config, &out, &mut |event| {
            if let Event::StageStarted { parameters: n, .. } = event {
                parameters.push(*n);
            }
        })
        .unwrap(),
    );
    let initial =
        adavit_model::initial_tensors(&config.dense_model().unwrap(), config.seed, 0.0).unwrap();
    let (dense, last) = (weights(&out, "dense"), weights(&out, "last"));
    assert_eq!(changed(&initial, &dense), ["head.bias", "head.weight"]);
    assert_eq!(changed(&dense, &last), ["head.bias", "head.weight"]);
    let model = config.adaptive_model().unwrap();
    let start =
        adavit_model::initial_tensors(&model, config.seed, config.gates.keep_logit).unwrap();
    let learnt = changed(&start, &last);
    assert!(
        learnt.iter().any(|name| is_decision_tensor(name)),
        "{learnt:?}"
    );
    let trained = |name: &&String| name.starts_with("head.") || is_decision_tensor(name);
    let elements = |tensors: &Tensors| -> usize {
        let trained = tensors.iter().filter(|(name, _)| trained(name));
        trained.map(|(_, tensor)| tensor.elem_count()).sum()
    };
    assert_eq!(parameters, [elements(&dense), elements(&last)]);
    // Two moments and an average of each.
    let state = read_tensors(&out.join("last/state.safetensors")).unwrap();
    assert_eq!(state.len(), 3 * last.keys().filter(trained).count());
    let of_state: usize = state.values().map(Tensor::elem_count).sum();
    assert_eq!(of_state, 3 * elements(&last));
}

/// The rows of a run's epochs.
fn rows(config: &TrainConfig, out: &Path) -> Vec<MetricsRow> {
    let mut rows = Vec::new();
    let outcome = run(config, out, &mut |event| {
        if let Event::EpochFinished(row) = event {
            rows.push((*row).clone());
        }
    });
    summary(outcome.unwrap());
    rows
}

#[test]
fn steps_of_two_batches_are_steps_of_one_batch_of_twice_the_size() {
    let folder = tempfile::tempdir().unwrap();
    let mut large = config(&made_images(folder.path()));
    large.max_steps = Some(5);
    let mut halves = large.clone();
    halves.batch_size = large.batch_size / 2;
    (halves.dense.accum_steps, halves.adaptive.accum_steps) = (2, 2);
    let large = rows(&large, &folder.path().join("large"));
    let halves = rows(&halves, &folder.path().join("halves"));
    assert_eq!(large.len(), halves.len());
    for (large, halves) in large.iter().zip(&halves) {
        assert_eq!((large.stage, large.steps), (halves.stage, halves.steps));
        assert_eq!(large.lr, halves.lr);
        // Budget losses are of the batch, and AdamW enlarges rounding where gradients are tiny.
        let tolerance = if large.usage_loss == 0.0 { 1e-3 } else { 0.05 };
        let difference = (large.task_loss - halves.task_loss).abs();
        assert!(difference < tolerance, "{large:?} {halves:?}");
    }
}

/// Every setting of fine-tuning, with groups that an epoch does not divide into evenly.
fn fine_tuning(data: &Path) -> TrainConfig {
    let mut config = config(data);
    config.batch_size = 16;
    config.class_weights = Some(ClassWeights::Balanced);
    for stage in [&mut config.dense, &mut config.adaptive] {
        stage.drop_path = 0.3;
        stage.accum_steps = 4;
        stage.optimizer.layer_decay = 0.8;
    }
    config.adaptive.freeze = true;
    config
}

#[test]
fn a_run_stopped_anywhere_resumes_to_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    let config = fine_tuning(&made_images(folder.path()));
    let out = |name: &str| folder.path().join(name);
    let whole = rows(&config, &out("whole"));
    // 81 images are 6 batches, and those are 2 steps.
    let steps: Vec<u64> = whole.iter().map(|row| row.steps).collect();
    assert_eq!(steps, [2, 4, 2, 4]);
    let expected = ["best", "last"].map(|name| weights(&out("whole"), name));
    for stop_after in 1..8 {
        let name = format!("stopped-{stop_after}");
        let stop = AtomicBool::new(false);
        let mut steps = 0;
        let mut watch = |event: &Event| {
            if matches!(event, Event::Step { .. }) {
                steps += 1;
                stop.store(steps >= stop_after, Ordering::Relaxed);
            }
        };
        let path = out(&name);
        let outcome = train(
            &config,
            &loaded(&config),
            Destination::Folder(&path),
            control(&stop, &mut watch),
        );
        assert!(matches!(outcome.unwrap(), Outcome::Interrupted), "{name}");
        summary(resumed(&path, &mut |_| ()).unwrap());
        for (folder, expected) in ["best", "last"].iter().zip(&expected) {
            let found = weights(&path, folder);
            assert_eq!(changed(expected, &found), [""; 0], "{name}, {folder}");
        }
        let metrics = |path: &Path| {
            let text = fs::read_to_string(path.join("metrics.csv")).unwrap();
            let rows = text.lines().map(|line| {
                let columns: Vec<&str> = line.split(',').collect();
                columns[..columns.len() - 2].join(",")
            });
            rows.collect::<Vec<_>>()
        };
        assert_eq!(metrics(&path), metrics(&out("whole")), "{name}");
    }
}
