//! `adavit eval`: checkpoints on test images.

pub(crate) mod args;
mod image_line;
mod opened;
mod text;

use adavit_model::{check_writable, write_file};
use adavit_train::{ClassTable, in_turns};
use anyhow::Result;
use candle_core::Device;
use serde_json::json;

use crate::commands::eval::args::EvalArgs;
use crate::commands::eval::image_line::ImageLine;
use crate::commands::eval::opened::{Found, Opened};
use crate::commands::eval::text::{Evaluated, comparison, csv_table};
use crate::exit::{Exit, bad_input};
use crate::output::{message, print, print_json};

pub(crate) fn run(args: &EvalArgs) -> Result<Exit> {
    let machine = args.machine.open()?;
    if args.checkpoints.len() > 1 && args.per_image.is_some() {
        return Err(bad_input(
            "--per-image: expected one checkpoint, since one file is written",
        ));
    }
    for path in args.csv.iter().chain(&args.per_image) {
        check_writable(path)?;
    }
    let checkpoints = args.checkpoints.iter();
    let opened = checkpoints
        .map(|path| Opened::read(args, path, &machine.device))
        .collect::<Result<Vec<_>>>()?;
    let evaluated = evaluate(args, opened, &machine.device)?;
    if let Some(path) = &args.csv {
        write_file(path, &csv_table(&evaluated)?)?;
    }
    let incomplete = evaluated.iter().any(|one| one.skipped + one.left_out > 0);
    let exit = if incomplete {
        Exit::CheckFailed
    } else {
        Exit::Done
    };
    if args.output.json {
        let mut values = evaluated.iter().map(|one| one.value(args, machine.threads));
        if evaluated.len() == 1 {
            // The object of one checkpoint, without a list around it.
            return print_json(&values.next()).map(|()| exit);
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
    Ok(exit)
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
        .map(|one| one.evaluator(args, device))
        .collect::<Result<Vec<_>>>()?;
    let mut lines = Vec::new();
    for turn in in_turns(&mut evaluators) {
        let (index, reports) = turn?;
        for report in &reports {
            classes[index].add(report.label, report.predicted, report.macs);
            if args.per_image.is_some() {
                let line = ImageLine::new(report, opened[index].images());
                serde_json::to_writer(&mut lines, &line)?;
                lines.push(b'\n');
            }
        }
    }
    let mut found = Vec::with_capacity(opened.len());
    for (evaluator, classes) in evaluators.into_iter().zip(classes) {
        for skipped in evaluator.skipped() {
            message(&format!("skipped: {}", skipped.message));
        }
        found.push(Found {
            skipped: evaluator.skipped().len(),
            evaluation: evaluator.finish()?,
            classes,
        });
    }
    if let Some(path) = &args.per_image {
        write_file(path, &lines)?;
    }
    let evaluated = opened.into_iter().zip(found);
    Ok(evaluated.map(|(one, found)| one.evaluated(found)).collect())
}
