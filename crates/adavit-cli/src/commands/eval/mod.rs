//! `adavit eval`: checkpoints on test images.

mod text;

use std::path::{Path, PathBuf};

use adavit_model::{Checkpoint, write_file};
use adavit_train::{
    ClassTable, Error, Evaluation, ImageReport, Images, Mode, evaluate_each, evaluate_sparse,
};
use anyhow::Result;
use candle_core::Device;
use serde_json::json;

use self::text::{comparison, csv_table};
use crate::exit::{Exit, bad_input};
use crate::machine::MachineArgs;
use crate::output::{OutputArgs, message, print, print_json};
use crate::source::{DataArgs, ReadArgs, open_checkpoint};
use crate::values::{Exec, GateThresholds, batch_size, gate_thresholds};

#[derive(Debug, clap::Args)]
pub(crate) struct EvalArgs {
    /// Checkpoint: a run folder, a checkpoint folder, a safetensors file, or a file of torch.save;
    /// several give a table
    #[arg(value_name = "CKPT", required = true)]
    checkpoints: Vec<PathBuf>,

    #[command(flatten)]
    data: DataArgs,

    /// How decisions are carried out; a dense checkpoint makes none
    #[arg(long, value_enum, default_value = "sparse")]
    exec: Exec,

    /// Thresholds above which gates are on: one number in (0, 1), or tokens=T,heads=H,blocks=B
    /// [default: the checkpoint's]
    #[arg(long, value_name = "T", value_parser = gate_thresholds)]
    threshold: Option<GateThresholds>,

    /// Report accuracy and MACs of each class
    #[arg(long)]
    per_class: bool,

    /// Report the confusion matrix: how often each class is predicted for each true class
    #[arg(long)]
    confusion: bool,

    /// Write one line per checkpoint as comma-separated values
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,

    /// Write the result of each image, one JSON object per line
    #[arg(long, value_name = "FILE")]
    per_image: Option<PathBuf>,

    /// Images per forward
    #[arg(long, value_name = "N", default_value_t = 250, value_parser = batch_size)]
    batch_size: usize,

    #[command(flatten)]
    read: ReadArgs,

    #[command(flatten)]
    machine: MachineArgs,

    #[command(flatten)]
    output: OutputArgs,
}

/// The result of one checkpoint.
struct Evaluated {
    checkpoint: PathBuf,
    preset: String,
    dataset: String,
    class_names: Vec<String>,
    exec: &'static str,
    evaluation: Evaluation,
    classes: ClassTable,
}

pub(crate) fn run(args: &EvalArgs) -> Result<Exit> {
    let machine = args.machine.open()?;
    if args.checkpoints.len() > 1 && args.per_image.is_some() {
        return Err(bad_input(
            "--per-image: expected one checkpoint, since one file is written",
        ));
    }
    let checkpoints = args.checkpoints.iter();
    let evaluated = checkpoints
        .map(|path| evaluate(args, path, &machine.device))
        .collect::<Result<Vec<_>>>()?;
    if let Some(path) = &args.csv {
        write_file(path, &csv_table(&evaluated)?)?;
    }
    if args.output.json {
        let mut values = evaluated.iter().map(|one| one.value(args, machine.threads));
        if evaluated.len() == 1 {
            // The object of one checkpoint, without a list around it.
            return print_json(&values.next()).map(|()| Exit::Done);
        }
        print_json(&json!({"checkpoints": values.collect::<Vec<_>>()}))?;
    } else if let [only] = &evaluated[..] {
        print(&only.text(args))?;
    } else {
        print(&comparison(&evaluated))?;
        for one in &evaluated {
            let text = one.class_text(args);
            if !text.is_empty() {
                print(&format!("\n{}{text}", one.checkpoint.display()))?;
            }
        }
    }
    Ok(Exit::Done)
}

/// Evaluates one checkpoint.
fn evaluate(args: &EvalArgs, path: &Path, device: &Device) -> Result<Evaluated> {
    let mut checkpoint = open_checkpoint(path, &args.read.options())?;
    match (args.threshold, &mut checkpoint.config.decisions) {
        (Some(thresholds), Some(decisions)) => {
            decisions.thresholds = thresholds.over(decisions.thresholds);
        }
        (Some(_), None) => message(&format!(
            "warning: {}: --threshold is ignored, since a dense checkpoint has no gates",
            path.display()
        )),
        (None, _) => {}
    }
    let config = checkpoint.config.clone();
    let test = args.data.open(path, &config)?;
    let dataset = test.images.as_ref();
    if !config.class_names.is_empty() && config.class_names != dataset.class_names() {
        message(
            "warning: the classes of this data are not those that the checkpoint was trained on",
        );
    }
    let indices: Vec<u32> = (0..dataset.len() as u32).collect();
    let images = Images {
        dataset,
        indices: &indices,
        stats: &test.stats,
        batch_size: args.batch_size,
        device,
    };
    let exec = config.decisions.is_some().then_some(args.exec);
    let mut classes = ClassTable::new(config.num_classes);
    let per_image = args.per_image.as_deref();
    let evaluation = measure(checkpoint, &images, exec, per_image, &mut classes)?;
    Ok(Evaluated {
        checkpoint: path.to_path_buf(),
        preset: config.preset,
        dataset: dataset.name().into(),
        class_names: dataset.class_names().to_vec(),
        exec: match exec {
            None => "dense",
            Some(Exec::Masked) => "masked",
            Some(Exec::Sparse) => "sparse",
        },
        evaluation,
        classes,
    })
}

/// Evaluates the checkpoint, without decisions where `exec` is none, and writes one line per image to
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
        if let Some(path) = path {
            serde_json::to_writer(&mut lines, image).map_err(|error| Error::Io {
                action: "writing",
                path: path.to_path_buf(),
                source: error.into(),
            })?;
            lines.push(b'\n');
        }
        Ok(())
    };
    let evaluation = match exec {
        Some(Exec::Sparse) => {
            let model = checkpoint.prepared(images.device)?;
            // The prepared weights are all that is needed now.
            drop(checkpoint);
            evaluate_sparse(&model, images, &mut on_image)?
        }
        Some(Exec::Masked) => {
            let model = checkpoint.model(images.device)?;
            evaluate_each(&model, images, Mode::Masked, &mut on_image)?
        }
        None => {
            let model = checkpoint.model(images.device)?;
            evaluate_each(&model, images, Mode::Dense, &mut on_image)?
        }
    };
    if let Some(path) = path {
        write_file(path, &lines)?;
    }
    Ok(evaluation)
}
