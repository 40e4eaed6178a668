//! `adavit calibrate`: thresholds of a checkpoint for a budget, or the allocator of an elastic one.

mod allocator;
mod recorded;

use std::path::{Path, PathBuf};

use adavit_data::{Labelled, Splits, all_indices, held_out};
use adavit_decision::{Allowance, Thresholds};
use adavit_model::{Checkpoint, ImportOptions, import};
use adavit_train::{
    Evaluation, Images, TrainConfig, calibrate_best, check_images, claim_checkpoint,
    evaluate_prepared, off_budget,
};
use anyhow::Result;
use serde_json::{Value, json};

use crate::commands::calibrate::recorded::{GivenImages, Recorded};
use crate::exit::{Exit, bad_input};
use crate::machine::MachineArgs;
use crate::output::{OutputArgs, macs, message, print, print_json};
use crate::values::batch_size;

#[derive(Debug, clap::Args)]
pub(crate) struct CalibrateArgs {
    /// Adaptive checkpoint: a run folder (its best/), a checkpoint folder, or a file
    #[arg(value_name = "CKPT")]
    checkpoint: PathBuf,

    /// Mean compute per image, in (0, 1]: exact MACs relative to the dense model; with --allocator,
    /// of a call that asks for no budget [default: with --allocator, what the checkpoint spends]
    #[arg(
        long,
        value_name = "B",
        allow_negative_numbers = true,
        required_unless_present = "allocator"
    )]
    budget: Option<f64>,

    /// Fit the allocator of an elastic checkpoint, which gives each image a budget of its own
    #[arg(long)]
    allocator: bool,

    /// Data set whose held-out training images are used: fashion-mnist-subset, fashion-scenes,
    /// fashion-mnist, mnist, or a path in any format that training takes [default: what the
    /// checkpoint records, or fashion-mnist-subset]
    #[arg(long, value_name = "NAME|PATH")]
    data: Option<String>,

    /// Folder with the files of a named data set [default: the run's, or the Hugging Face hub, in
    /// a build with the feature hub]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// File that gives each folder or label its class: lines of FOLDER,CLASS or a JSON object
    /// [default: by names, or by numbers]
    #[arg(long, value_name = "FILE")]
    class_map: Option<PathBuf>,

    /// Share of the training images that is held out; must match training, otherwise calibration sees
    /// training images [default: what the checkpoint records, or 0.1]
    #[arg(long, value_name = "H", allow_negative_numbers = true)]
    held_out: Option<f64>,

    /// Seed that chose the held-out images; must match training [default: what the checkpoint records, or 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Folder to write; a checkpoint in it is replaced [default: the checkpoint's own]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Images per forward
    #[arg(long, value_name = "N", default_value_t = 250, value_parser = batch_size)]
    batch_size: usize,

    #[command(flatten)]
    machine: MachineArgs,

    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: &CalibrateArgs) -> Result<Exit> {
    let device = args.machine.open()?.device;
    args.budget.map_or(Ok(()), check_budget)?;
    let target = target(args)?;
    let checkpoint = import(&args.checkpoint, &ImportOptions::default())?.checkpoint;
    if checkpoint.config.decisions.is_none() {
        return Err(bad_input(format!(
            "{}: expected an adaptive model, found a dense one, which has no thresholds",
            args.checkpoint.display()
        )));
    }
    if args.allocator {
        // Only an elastic model takes any budget.
        checkpoint
            .config
            .check_allowance(&Allowance::of_budget(1.0))?;
    }
    let recorded = Recorded::of(&args.checkpoint, &checkpoint.config)?;
    let given = args.images();
    let trained = recorded.settings(&given)?;
    let (data, left_out) = recorded.load(&given, &trained, &checkpoint.config)?;
    check_images(&checkpoint.config, data.train.as_ref())?;
    let normalization = checkpoint.config.normalization_for(data.train.as_ref())?;
    let (chosen_by, indices) = chosen_by(&data, &trained)?;
    let images = Images {
        dataset: chosen_by,
        indices: &indices,
        normalization: &normalization,
        batch_size: args.batch_size,
        device: &device,
    };
    // A run that is trained meanwhile, or another calibration, would write the same files.
    let _lock = claim_checkpoint(&target)?;
    message(&images_line(images.indices.len(), &trained));
    if let Some(warning) = recorded.warning(&given, &trained, data.train.as_ref())? {
        message(&format!("warning: {warning}"));
    }
    let ready = Ready {
        target,
        checkpoint,
        images,
        test: data.test.as_ref(),
        left_out,
    };
    match args.budget {
        Some(budget) if !args.allocator => ready.calibrate(args, budget),
        budget => ready.allocate(args, budget),
    }
}

/// A checkpoint, and the images that it is calibrated on.
struct Ready<'a> {
    /// The folder to write.
    target: PathBuf,
    checkpoint: Checkpoint,
    images: Images<'a>,
    test: &'a dyn Labelled,
    left_out: usize,
}

impl Ready<'_> {
    /// Moves the thresholds.
    fn calibrate(self, args: &CalibrateArgs, budget: f64) -> Result<Exit> {
        let Self {
            target,
            mut checkpoint,
            images,
            ..
        } = self;
        let mut model = checkpoint.model(images.device)?;
        let held_out = calibrate_best(&mut model, &images, budget)?;
        checkpoint.config = model.config().clone();
        let all = all_indices(self.test);
        let tested = Images {
            dataset: self.test,
            indices: &all,
            ..images
        };
        let test = evaluate_prepared(&checkpoint.prepared(images.device)?, &tested)?;
        let warning = off_budget(held_out.macs_share, budget);
        // Thresholds that miss the budget do not replace those of the checkpoint.
        let written = warning.is_none() || args.out.is_some();
        if written {
            checkpoint.save(&target)?;
        }
        let result = Calibrated {
            target: written.then_some(target),
            thresholds: checkpoint.config.decisions.as_ref().map(|d| d.thresholds),
            held_out,
            test,
        };
        result.print(args, budget)?;
        if let Some(warning) = &warning {
            message(&format!("warning: {warning}"));
        }
        // As in an evaluation, pictures that were left out are told by the status.
        Ok(exit(warning.is_some() || self.left_out > 0))
    }
}

fn exit(failed: bool) -> Exit {
    if failed {
        Exit::CheckFailed
    } else {
        Exit::Done
    }
}

fn check_budget(budget: f64) -> Result<()> {
    if budget > 0.0 && budget <= 1.0 {
        return Ok(());
    }
    let message = format!("budget: expected a number in (0, 1], found {budget}");
    Err(bad_input(message))
}

/// The images that choose: a part of its own, or held-out images of the part that was trained on.
fn chosen_by<'d>(data: &'d Splits, trained: &TrainConfig) -> Result<(&'d dyn Labelled, Vec<u32>)> {
    if let Some(val) = &data.val {
        return Ok((val.as_ref(), all_indices(val.as_ref())));
    }
    let split = held_out(data.train.len(), trained.held_out, trained.seed)?;
    Ok((data.train.as_ref(), split.held_out))
}

/// Says which images thresholds are chosen on.
fn images_line(images: usize, trained: &TrainConfig) -> String {
    format!(
        "calibrating on {images} held-out images of {} (held_out {}, seed {}), which must be images that \
         the model was not trained on",
        trained.data, trained.held_out, trained.seed
    )
}

impl CalibrateArgs {
    /// The images that options choose.
    fn images(&self) -> GivenImages<'_> {
        GivenImages {
            data: self.data.as_deref(),
            data_dir: self.data_dir.as_deref(),
            class_map: self.class_map.as_deref(),
            held_out: self.held_out,
            seed: self.seed,
        }
    }
}

/// Returns the folder to write: by default the checkpoint's own.
fn target(args: &CalibrateArgs) -> Result<PathBuf> {
    if let Some(out) = &args.out {
        return Ok(out.clone());
    }
    let given = &args.checkpoint;
    let is_checkpoint = |folder: &Path| folder.join("config.json").is_file();
    let candidates = [given.clone(), given.join("best")];
    let found = candidates.into_iter().find(|folder| is_checkpoint(folder));
    found.ok_or_else(|| {
        bad_input(format!(
            "{}: not a checkpoint folder, so the thresholds cannot be written to it; give a folder by \
             --out",
            given.display()
        ))
    })
}

/// The thresholds that were found, and what they give.
struct Calibrated {
    /// Where they were written, if they were.
    target: Option<PathBuf>,
    thresholds: Option<Thresholds>,
    held_out: Evaluation,
    test: Evaluation,
}

impl Calibrated {
    fn print(&self, args: &CalibrateArgs, budget: f64) -> Result<()> {
        if args.output.json {
            print_json(&self.value(budget))
        } else {
            print(&self.text())
        }
    }

    fn value(&self, budget: f64) -> Value {
        json!({
            "checkpoint": self.target,
            "budget": budget,
            "thresholds": self.thresholds,
            "held_out": measured(&self.held_out),
            "test": measured(&self.test),
        })
    }

    fn text(&self) -> String {
        let written = self.target.as_ref().map_or_else(
            || "thresholds not written; give a folder by --out to write them anyway".into(),
            |target| format!("thresholds written to {}", target.display()),
        );
        format!(
            "{}\n{}\n{written}",
            line("held out  ", &self.held_out),
            line("test      ", &self.test),
        )
    }
}

/// What is told of an evaluation, as JSON.
fn measured(e: &Evaluation) -> Value {
    json!({
        "images": e.images,
        "top1": e.top1,
        "macs": e.macs,
        "macs_share": e.macs_share,
    })
}

/// What is told of an evaluation behind its name, which is as long as those of the lines beside it.
fn line(name: &str, e: &Evaluation) -> String {
    format!(
        "{name}{:>8} images{:>9.4} top-1{:>16} per image, {:.4} of the dense model",
        e.images,
        e.top1,
        macs(e.macs),
        e.macs_share
    )
}
