//! `adavit eval`: a checkpoint on test images.

use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use adavit_data::{Dataset, FolderClasses, ImageFolder, Labelled, Normalization};
use adavit_kernels::MOST_THREADS;
use adavit_model::{
    Checkpoint, ImportOptions, ModelConfig, PreparedTransformer, VisionTransformer, import,
    write_file,
};
use adavit_train::{
    ClassTable, Error, Evaluation, Evaluator, ImageReport, Images, Mode, TrainConfig, check_images,
    in_turns, run_config_of,
};
use anyhow::Result;
use candle_core::Device;
use serde_json::{Value, json};

use crate::Ended;
use crate::args::{EvalArgs, Exec};
use crate::device::select_device;
use crate::output::{macs, print, print_json, tell};

pub(crate) fn run(args: &EvalArgs) -> Result<Ended> {
    let threads = set_threads(args.machine.threads)?;
    let device = select_device(args.machine.device.as_deref().unwrap_or("cpu"))?;
    if args.checkpoint.len() > 1 && args.per_image.is_some() {
        let message = "per-image: expected one checkpoint, since one file is written";
        return Err(Error::Input(message.into()).into());
    }
    let opened = args.checkpoint.iter();
    let opened = opened
        .map(|path| open(args, path, &device))
        .collect::<Result<Vec<_>>>()?;
    let found = evaluate(args, opened, &device)?;
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

/// A checkpoint and its test images.
struct Opened {
    checkpoint: PathBuf,
    config: ModelConfig,
    model: Model,
    test: Box<dyn Labelled>,
    normalization: Normalization,
    indices: Vec<u32>,
}

/// The model of a checkpoint, for the path that its images take.
enum Model {
    Dense(PreparedTransformer),
    Sparse(PreparedTransformer),
    Masked(VisionTransformer),
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

/// Opens one checkpoint.
fn open(args: &EvalArgs, path: &Path, device: &Device) -> Result<Opened> {
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
    let (test, normalization) = test_images(args, path, &config)?;
    if !config.class_names.is_empty() && config.class_names != test.class_names() {
        tell("warning: the classes of this data are not those that the checkpoint was trained on");
    }
    Ok(Opened {
        checkpoint: path.to_path_buf(),
        model: Model::of(&checkpoint, args.exec, device)?,
        indices: (0..test.len() as u32).collect(),
        config,
        test,
        normalization,
    })
}

impl Model {
    fn of(checkpoint: &Checkpoint, exec: Exec, device: &Device) -> Result<Self> {
        Ok(match (&checkpoint.config.decisions, exec) {
            (None, _) => Self::Dense(checkpoint.prepared(device)?),
            (Some(_), Exec::Sparse) => Self::Sparse(checkpoint.prepared(device)?),
            (Some(_), Exec::Masked) => Self::Masked(checkpoint.model(device)?),
        })
    }

    fn exec(&self) -> &'static str {
        match self {
            Self::Dense(_) => "dense",
            Self::Sparse(_) => "sparse",
            Self::Masked(_) => "masked",
        }
    }
}

impl Opened {
    fn evaluator<'a>(&'a self, batch_size: usize, device: &'a Device) -> Result<Evaluator<'a>> {
        let images = Images {
            dataset: self.test.as_ref(),
            indices: &self.indices,
            normalization: &self.normalization,
            batch_size,
            device,
        };
        Ok(match &self.model {
            Model::Dense(model) | Model::Sparse(model) => Evaluator::prepared(model, &images)?,
            Model::Masked(model) => Evaluator::new(model, &images, Mode::Masked)?,
        })
    }

    fn evaluated(self, evaluation: Evaluation, classes: ClassTable) -> Evaluated {
        Evaluated {
            checkpoint: self.checkpoint,
            preset: self.config.preset,
            dataset: self.test.name().into(),
            class_names: self.test.class_names().to_vec(),
            exec: self.model.exec(),
            evaluation,
            classes,
        }
    }
}

/// Evaluates the checkpoints in turn, batch by batch, so that their speeds compare, and writes one
/// line per image if asked for.
fn evaluate(args: &EvalArgs, opened: Vec<Opened>, device: &Device) -> Result<Vec<Evaluated>> {
    let classes = opened.iter();
    let mut classes: Vec<ClassTable> = classes
        .map(|one| ClassTable::new(one.config.num_classes))
        .collect();
    let evaluators = opened.iter();
    let mut evaluators = evaluators
        .map(|one| one.evaluator(args.batch_size, device))
        .collect::<Result<Vec<_>>>()?;
    let mut lines = Vec::new();
    for turn in in_turns(&mut evaluators) {
        let (index, reports) = turn?;
        for report in &reports {
            classes[index].add(report.label, report.predicted, report.macs);
            if args.per_image.is_some() {
                add_line(&mut lines, report)?;
            }
        }
    }
    let evaluations = evaluators.into_iter().map(Evaluator::finish);
    let evaluations = evaluations.collect::<Result<Vec<_>, _>>()?;
    if let Some(path) = &args.per_image {
        write_file(path, &lines)?;
    }
    let results = evaluations.into_iter().zip(classes);
    let found = opened.into_iter().zip(results);
    Ok(found
        .map(|(one, (evaluation, classes))| one.evaluated(evaluation, classes))
        .collect())
}

fn add_line(lines: &mut Vec<u8>, report: &ImageReport) -> Result<()> {
    serde_json::to_writer(&mut *lines, report).map_err(|error| Error::Encode {
        what: "the results of each image",
        message: error.to_string(),
    })?;
    lines.push(b'\n');
    Ok(())
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
) -> Result<(Box<dyn Labelled>, Normalization)> {
    let path = Path::new(&args.data);
    if args.data_dir.is_none() && ImageFolder::is_one(path) {
        let normalization = config.normalization.clone().ok_or_else(|| {
            Error::Input(format!(
                "{}: no normalization in its config.json, and pictures have none of their own; add \
                 mean and std of each channel",
                checkpoint.display()
            ))
        })?;
        let classes = FolderClasses {
            num_classes: config.num_classes,
            class_names: &config.class_names,
        };
        let folder = ImageFolder::open(path, &config.input_config(), classes)?;
        return Ok((Box::new(folder), normalization));
    }
    let test = adavit_data::load(&args.data, args.data_dir.as_deref())?.test;
    check_images(config, &test)?;
    let normalization = normalization_for(config, &test);
    Ok((Box::new(test), normalization))
}

/// How images become inputs: as the model's configuration says, or by their own mean and deviation.
pub(crate) fn normalization_for(model: &ModelConfig, images: &Dataset) -> Normalization {
    let of_model = model.normalization.clone();
    of_model.unwrap_or_else(|| images.normalization())
}

/// What was found, for people.
fn table(found: &Evaluation) -> String {
    let usage = &found.usage;
    format!(
        "top-1 {:.4}   top-5 {:.4}\n\
         MACs per image {} (std {}), {:.3} of the dense model\n\
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
