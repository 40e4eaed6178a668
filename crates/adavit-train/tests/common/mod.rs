//! Runs on a few made images.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use adavit_train::data::{Dataset, Part, write_part};
use adavit_train::{Control, Event, ModelOptions, Outcome, Result, Summary, TrainConfig, train};

pub(crate) const TRAIN_IMAGES: usize = 90;

/// A folder of IDX files with two classes that differ in where the picture is bright.
pub(crate) fn made_images(folder: &Path) -> PathBuf {
    let data = folder.join("images");
    fs::create_dir(&data).unwrap();
    for (part, n) in [(Part::Train, TRAIN_IMAGES), (Part::Test, 40)] {
        let labels: Vec<u8> = (0..n).map(|i| (i % 2) as u8).collect();
        let pixel = |i: usize, p: usize| {
            let bright = (p / 28 < 14) == i.is_multiple_of(2);
            ((p * 7 + i * 13) % 90) as u8 + if bright { 160 } else { 0 }
        };
        let images = (0..n)
            .flat_map(|i| (0..784).map(move |p| pixel(i, p)))
            .collect();
        let names = vec!["up".into(), "down".into()];
        let dataset = Dataset::new("made", [1, 28, 28], images, labels, names).unwrap();
        let all: Vec<u32> = (0..n as u32).collect();
        write_part(&data, part, &dataset, &all).unwrap();
    }
    data
}

pub(crate) fn config(data: &Path) -> TrainConfig {
    let mut config = TrainConfig {
        data: data.display().to_string(),
        batch_size: 32,
        eval_batch_size: 20,
        random_policies: 2,
        model: ModelOptions {
            patch_size: Some(14),
            embed_dim: Some(16),
            depth: Some(3),
            num_heads: Some(2),
            ..ModelOptions::default()
        },
        ..TrainConfig::default()
    };
    config.dense.epochs = 2;
    config.adaptive.epochs = 2;
    config
}

/// Runs to the end, handing every event to `watch`.
pub(crate) fn run(
    config: &TrainConfig,
    out: &Path,
    watch: &mut dyn FnMut(&Event),
) -> Result<Outcome> {
    let stop = AtomicBool::new(false);
    let control = Control {
        stop: &stop,
        report: watch,
        commit: "test",
    };
    train(config, out, false, control)
}

pub(crate) fn summary(outcome: Outcome) -> Summary {
    match outcome {
        Outcome::Finished(summary) => *summary,
        other => panic!("not finished: {other:?}"),
    }
}
