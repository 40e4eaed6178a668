//! `adavit eval`: a checkpoint on test images.

use std::path::Path;
use std::thread::available_parallelism;

use adavit_kernels::MOST_THREADS;
use adavit_model::{Checkpoint, ImportOptions, ModelConfig, import, write_file};
use adavit_train::data::{self, Labelled, MeanStd, PictureFolder};
use adavit_train::{
    Error, Evaluation, ImageReport, Images, Mode, check_images, evaluate_each, evaluate_sparse,
    select_device,
};
use anyhow::Result;
use serde_json::json;

use crate::Ended;
use crate::args::{EvalArgs, Exec};
use crate::output::{macs, print, print_json, tell};

pub(crate) fn run(args: &EvalArgs) -> Result<Ended> {
    let threads = set_threads(args.machine.threads)?;
    let device = select_device(args.machine.device.as_deref().unwrap_or("cpu"))?;
    let imported = import(&args.checkpoint, &ImportOptions::default())?;
    for note in &imported.notes {
        tell(&format!("note: {note}"));
    }
    let checkpoint = imported.checkpoint;
    let config = checkpoint.config.clone();
    let (test, stats) = test_images(args, &config)?;
    let test = test.as_ref();
    if !config.class_names.is_empty() && config.class_names != test.class_names() {
        tell("warning: the classes of this data are not those that the checkpoint was trained on");
    }
    let indices: Vec<u32> = (0..test.len() as u32).collect();
    let images = Images {
        dataset: test,
        indices: &indices,
        stats: &stats,
        batch_size: args.batch_size,
        device: &device,
    };
    let exec = match (args.exec, &config.decisions) {
        (_, None) => None,
        (exec, Some(_)) => Some(exec),
    };
    let found = measure(checkpoint, &images, exec, args.per_image.as_deref())?;
    let exec = match exec {
        None => "dense",
        Some(Exec::Masked) => "masked",
        Some(Exec::Sparse) => "sparse",
    };
    if args.machine.json {
        let usage = &found.usage;
        print_json(&json!({
            "checkpoint": args.checkpoint,
            "preset": config.preset,
            "dataset": test.name(),
            "images": found.images,
            "exec": exec,
            "threads": threads,
            "top1": found.top1,
            "top5": found.top5,
            "macs": found.macs,
            "macs_std": found.macs_std,
            "macs_percentiles": {
                "p10": found.macs_percentiles[0],
                "p50": found.macs_percentiles[1],
                "p90": found.macs_percentiles[2],
            },
            "macs_share": found.macs_share,
            "usage": {"tokens": usage.tokens, "heads": usage.heads, "blocks": usage.blocks},
            "images_per_s": found.images_per_s,
        }))?;
    } else {
        let images = format!("{} ({} images, {exec})", test.name(), found.images);
        print(&format!("{} on {images}\n{}", config.preset, table(&found)))?;
    }
    Ok(Ended::Done)
}

/// The test images, and how they are normalised: as the checkpoint says, or by their own statistics
/// where it says nothing.
fn test_images(args: &EvalArgs, config: &ModelConfig) -> Result<(Box<dyn Labelled>, MeanStd)> {
    let stats = config.normalization.as_ref().map(MeanStd::from);
    let path = Path::new(&args.data);
    if args.data_dir.is_none() && PictureFolder::is_one(path) {
        let stats = stats.ok_or_else(|| {
            Error::Input(format!(
                "{}: no normalization in its config.json, and pictures have none of their own; add \
                 mean and std of each channel",
                args.checkpoint.display()
            ))
        })?;
        return Ok((Box::new(PictureFolder::open(path, config)?), stats));
    }
    let test = data::load(&args.data, args.data_dir.as_deref())?.test;
    check_images(config, &test)?;
    let stats = stats.unwrap_or_else(|| test.mean_std());
    Ok((Box::new(test), stats))
}

/// Evaluates the checkpoint, without decisions where `exec` is none, and writes a line per image to
/// `path`.
fn measure(
    checkpoint: Checkpoint,
    images: &Images,
    exec: Option<Exec>,
    path: Option<&Path>,
) -> Result<Evaluation> {
    let mut lines = Vec::new();
    let mut on_image = |image: &ImageReport| {
        if path.is_some() {
            serde_json::to_writer(&mut lines, image)
                .map_err(|error| Error::Input(format!("per-image report: {error}")))?;
            lines.push(b'\n');
        }
        Ok(())
    };
    let found = match exec {
        Some(Exec::Sparse) => {
            let model = checkpoint.prepared(images.device)?;
            // The prepared weights are all that is needed now.
            drop(checkpoint);
            evaluate_sparse(&model, images, &mut on_image)?
        }
        Some(Exec::Masked) | None => {
            let mode = if exec.is_some() {
                Mode::Masked
            } else {
                Mode::Dense
            };
            let model = checkpoint.model(images.device)?;
            evaluate_each(&model, images, mode, &mut on_image)?
        }
    };
    if let Some(path) = path {
        write_file(path, &lines)?;
    }
    Ok(found)
}

/// What was found, for people.
fn table(found: &Evaluation) -> String {
    let usage = &found.usage;
    format!(
        "top-1 {:.4}   top-5 {:.4}\n\
         MACs per image {} (std {}), {:.3} of the plain model\n\
         10 % of the images below {}, half below {}, 90 % below {}\n\
         kept tokens {:.3}, heads {:.3}, blocks {:.3}\n\
         {:.1} images/s",
        found.top1,
        found.top5,
        macs(found.macs),
        macs(found.macs_std),
        found.macs_share,
        macs(found.macs_percentiles[0] as f64),
        macs(found.macs_percentiles[1] as f64),
        macs(found.macs_percentiles[2] as f64),
        usage.tokens,
        usage.heads,
        usage.blocks,
        found.images_per_s,
    )
}

/// Sets the number of threads, all processors where none is given, and checks `ADAVIT_SIMD`. The
/// first thing that a command does.
pub(crate) fn set_threads(threads: Option<usize>) -> Result<usize> {
    let threads = match threads {
        Some(threads) => threads,
        None => available_parallelism().map_or(1, usize::from),
    };
    if !(1..=MOST_THREADS).contains(&threads) {
        let message = format!("threads: expected between 1 and {MOST_THREADS}, found {threads}");
        return Err(Error::Input(message).into());
    }
    adavit_kernels::simd_level().map_err(|error| Error::Input(error.to_string()))?;
    adavit_kernels::set_threads(threads)?;
    Ok(threads)
}
