//! What the tests of several crates share: a small made data set, settings of a run that takes seconds,
//! and the calls that start, resume and unpack it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "the helpers here are test code, which clippy does not see"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use adavit_data::{Dataset, Part, Splits, load_splits, write_part};
use adavit_train::{
    Control, Destination, Event, ModelOptions, Outcome, Result, Summary, TrainConfig, resume,
    run_config, train,
};
use candle_core::Device;

/// The number of training images that [`made_images`] writes.
pub const TRAIN_IMAGES: usize = 90;

/// Writes a folder of IDX files with two classes, which differ in the half of the image that is bright.
pub fn made_images(folder: &Path) -> PathBuf {
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

/// The settings of a run on the images of `data` that takes seconds.
pub fn config(data: &Path) -> TrainConfig {
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

/// The images that the settings name.
pub fn loaded(config: &TrainConfig) -> Splits {
    load_splits(&config.data, config.data_dir.as_deref()).unwrap()
}

/// Runs on the CPU until `stop` is set, and passes every event to `report`.
pub fn control<'a>(stop: &'a AtomicBool, report: &'a mut dyn FnMut(&Event)) -> Control<'a> {
    Control {
        stop,
        report,
        device: &Device::Cpu,
        commit: "test",
    }
}

/// Runs to the end, and passes every event to `watch`.
pub fn run(config: &TrainConfig, out: &Path, watch: &mut dyn FnMut(&Event)) -> Result<Outcome> {
    let stop = AtomicBool::new(false);
    let control = control(&stop, watch);
    train(config, &loaded(config), Destination::Folder(out), control)
}

/// Resumes the run in a folder to its end, and passes every event to `watch`.
pub fn resumed(out: &Path, watch: &mut dyn FnMut(&Event)) -> Result<Outcome> {
    let stop = AtomicBool::new(false);
    resume(out, &loaded(&run_config(out)?), control(&stop, watch))
}

/// The summary of a run that was not stopped.
pub fn summary(outcome: Outcome) -> Summary {
    match outcome {
        Outcome::Finished(summary) => *summary,
        other => panic!("not finished: {other:?}"),
    }
}

/// Copies a folder with everything in it.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
