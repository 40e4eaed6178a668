//! `adavit eval`: checkpoints on test images.

pub(crate) mod args;
mod text;

use std::path::Path;

use adavit_model::{Checkpoint, write_file};
use adavit_train::{
    ClassTable, Error, Evaluation, ImageReport, Images, Mode, evaluate_each, evaluate_sparse,
};
use anyhow::Result;
use candle_core::Device;
use serde_json::json;

use crate::commands::eval::args::EvalArgs;
use crate::commands::eval::text::{Evaluated, comparison, csv_table};
use crate::exit::{Exit, bad_input};
use crate::output::{message, print, print_json};
use crate::source::open_checkpoint;
use crate::values::Exec;

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
        normalization: &test.normalization,
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
