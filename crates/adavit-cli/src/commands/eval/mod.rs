//! `adavit eval`: a checkpoint on test images.

use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use adavit_kernels::MOST_THREADS;
use adavit_model::{Checkpoint, ImportOptions, ModelConfig, import, write_file};
use adavit_train::data::{self, Labelled, MeanStd, PictureFolder};
use adavit_train::{
    ClassTable, Error, Evaluation, ImageReport, Images, Mode, TrainConfig, check_images,
    evaluate_each, evaluate_sparse, run_config_of, select_device,
};
use anyhow::Result;
use candle_core::Device;
use serde_json::{Value, json};

use crate::Ended;
use crate::args::{EvalArgs, Exec};
use crate::output::{macs, print, print_json, tell};

pub(crate) fn run(args: &EvalArgs) -> Result<Ended> {
    let threads = set_threads(args.machine.threads)?;
    let device = select_device(args.machine.device.as_deref().unwrap_or("cpu"))?;
    if args.checkpoint.len() > 1 && args.per_image.is_some() {
        let message = "per-image: expected one checkpoint, since one file is written";
        return Err(Error::Input(message.into()).into());
    }
    let mut found = Vec::new();
    for path in &args.checkpoint {
        found.push(one(args, path, &device)?);
    }
    if let Some(path) = &args.csv {
        write_file(path, &csv_table(&found)?)?;
    }
    if args.machine.json {
        let mut values = found.iter().map(|found| found.value(args, threads));
        if found.len() == 1 {
            // The object of one checkpoint, without a list around it.
            return print_json(&values.next()).map(|()| Ended::Done);
        }
        print_json(&json!({"checkpoints": values.collect::<Vec<_>>()}))?;
    } else if let [only] = &found[..] {
        print(&only.text(args))?;
    } else {
        print(&comparison(&found))?;
        for found in &found {
            let text = found.class_text(args);
            if !text.is_empty() {
                print(&format!("\n{}{text}", found.checkpoint.display()))?;
            }
        }
    }
    Ok(Ended::Done)
}

/// What was found of one checkpoint.
struct Evaluated {
    checkpoint: PathBuf,
    preset: String,
    dataset: String,
    class_names: Vec<String>,
    exec: &'static str,
    evaluation: Evaluation,
    classes: ClassTable,
}

/// The settings of the run that a checkpoint is of, if it is of one.
///
/// # Errors
/// If the run's model does not make its own decisions: its checkpoint alone is another model.
pub(crate) fn run_of(checkpoint: &Path) -> Result<Option<TrainConfig>> {
    let config = run_config_of(checkpoint)?;
    if let Some(config) = &config {
        config.method.expect_learned()?;
    }
    Ok(config)
}

/// Evaluates one checkpoint.
fn one(args: &EvalArgs, path: &Path, device: &Device) -> Result<Evaluated> {
    run_of(path)?;
    let imported = import(path, &ImportOptions::default())?;
    for note in &imported.notes {
        tell(&format!("note: {note}"));
    }
    let mut checkpoint = imported.checkpoint;
    if args.threshold.is_some() && checkpoint.config.decisions.is_none() {
        tell(&format!(
            "warning: {} makes no decisions, so there is no threshold to move",
            path.display()
        ));
    }
    if let (Some(thresholds), Some(decisions)) = (args.threshold, &mut checkpoint.config.decisions)
    {
        decisions.thresholds = thresholds.over(decisions.thresholds);
    }
    let config = checkpoint.config.clone();
    let (test, stats) = test_images(args, path, &config)?;
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
        device,
    };
    let exec = match (args.exec, &config.decisions) {
        (_, None) => None,
        (exec, Some(_)) => Some(exec),
    };
    let mut classes = ClassTable::new(config.num_classes);
    let per_image = args.per_image.as_deref();
    let evaluation = measure(checkpoint, &images, exec, per_image, &mut classes)?;
    Ok(Evaluated {
        checkpoint: path.to_path_buf(),
        preset: config.preset,
        dataset: test.name().into(),
        class_names: test.class_names().to_vec(),
        exec: match exec {
            None => "dense",
            Some(Exec::Masked) => "masked",
            Some(Exec::Sparse) => "sparse",
        },
        evaluation,
        classes,
    })
}

impl Evaluated {
    fn value(&self, args: &EvalArgs, threads: usize) -> Value {
        let found = &self.evaluation;
        let usage = &found.usage;
        let mut value = json!({
            "checkpoint": self.checkpoint,
            "preset": self.preset,
            "dataset": self.dataset,
            "images": found.images,
            "exec": self.exec,
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
        });
        if args.per_class {
            let classes = self.class_names.iter().enumerate();
            let classes = classes.map(|(class, name)| {
                json!({
                    "class": class,
                    "name": name,
                    "images": self.classes.images(class),
                    "top1": self.classes.top1(class),
                    "macs": self.classes.mean_macs(class),
                })
            });
            value["per_class"] = classes.collect();
        }
        if args.confusion {
            value["confusion"] = json!(self.classes.confusion());
        }
        value
    }

    fn text(&self, args: &EvalArgs) -> String {
        let images = format!(
            "{} ({} images, {})",
            self.dataset, self.evaluation.images, self.exec
        );
        let table = table(&self.evaluation);
        format!(
            "{} on {images}\n{table}{}",
            self.preset,
            self.class_text(args)
        )
    }

    /// Class by class, as far as asked for, each line behind a line break.
    fn class_text(&self, args: &EvalArgs) -> String {
        let mut lines = Vec::new();
        let width = self
            .class_names
            .iter()
            .map(|name| name.chars().count())
            .max()
            .unwrap_or(0)
            .max(5);
        if args.per_class {
            lines.push(format!(
                "{:<width$}{:>8}{:>8}{:>16}",
                "class", "images", "top-1", "MACs/image"
            ));
            for (class, name) in self.class_names.iter().enumerate() {
                let top1 = self
                    .classes
                    .top1(class)
                    .map_or_else(|| "-".into(), |top1| format!("{top1:.4}"));
                let macs = self
                    .classes
                    .mean_macs(class)
                    .map_or_else(|| "-".into(), macs);
                let images = self.classes.images(class);
                lines.push(format!("{name:<width$}{images:>8}{top1:>8}{macs:>16}"));
            }
        }
        if args.confusion {
            lines.push("rows are classes, columns what the model says".into());
            for (name, row) in self.class_names.iter().zip(self.classes.confusion()) {
                let counts: Vec<String> = row.iter().map(|count| format!("{count:>6}")).collect();
                lines.push(format!("{name:<width$}{}", counts.concat()));
            }
        }
        lines.iter().flat_map(|line| ["\n", line]).collect()
    }
}

/// A line for each checkpoint.
fn comparison(found: &[Evaluated]) -> String {
    let mut lines = vec![format!(
        "{:>8}{:>8}{:>16}{:>9}{:>12}  checkpoint",
        "top-1", "top-5", "MACs/image", "share", "images/s"
    )];
    for one in found {
        let e = &one.evaluation;
        lines.push(format!(
            "{:>8.4}{:>8.4}{:>16}{:>9.3}{:>12.1}  {}",
            e.top1,
            e.top5,
            macs(e.macs),
            e.macs_share,
            e.images_per_s,
            one.checkpoint.display()
        ));
    }
    lines.join("\n")
}

/// The same as comma-separated values.
fn csv_table(found: &[Evaluated]) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([
        "checkpoint",
        "preset",
        "dataset",
        "images",
        "exec",
        "top1",
        "top5",
        "macs",
        "macs_std",
        "macs_share",
        "tokens",
        "heads",
        "blocks",
        "images_per_s",
    ])?;
    for one in found {
        let e = &one.evaluation;
        let mut row = vec![
            one.checkpoint.display().to_string(),
            one.preset.clone(),
            one.dataset.clone(),
            e.images.to_string(),
            one.exec.to_string(),
        ];
        let numbers = [
            e.top1,
            e.top5,
            e.macs,
            e.macs_std,
            e.macs_share,
            e.usage.tokens,
            e.usage.heads,
            e.usage.blocks,
            e.images_per_s,
        ];
        row.extend(numbers.map(|number| number.to_string()));
        writer.write_record(row)?;
    }
    Ok(writer
        .into_inner()
        .map_err(csv::IntoInnerError::into_error)?)
}

/// The test images, and how they are normalised: as the checkpoint says, or by their own statistics
/// where it says nothing.
fn test_images(
    args: &EvalArgs,
    checkpoint: &Path,
    config: &ModelConfig,
) -> Result<(Box<dyn Labelled>, MeanStd)> {
    let stats = config.normalization.as_ref().map(MeanStd::from);
    let path = Path::new(&args.data);
    if args.data_dir.is_none() && PictureFolder::is_one(path) {
        let stats = stats.ok_or_else(|| {
            Error::Input(format!(
                "{}: no normalization in its config.json, and pictures have none of their own; add \
                 mean and std of each channel",
                checkpoint.display()
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
    classes: &mut ClassTable,
) -> Result<Evaluation> {
    let mut lines = Vec::new();
    let mut on_image = |image: &ImageReport| {
        classes.add(image.label, image.predicted, image.macs);
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
