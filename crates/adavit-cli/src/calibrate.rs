//! `adavit calibrate`: thresholds of a checkpoint for a budget.

use std::path::{Path, PathBuf};

use adavit_data::held_out;
use adavit_model::{Checkpoint, ImportOptions, import};
use adavit_train::{
    Error, Evaluation, Images, TrainConfig, calibrate_best, check_images, evaluate_prepared,
    off_budget,
};
use anyhow::Result;
use serde_json::json;

use crate::Ended;
use crate::args::CalibrateArgs;
use crate::device::select_device;
use crate::eval::{normalization_for, run_of, set_threads};
use crate::output::{macs, print, print_json, tell};

pub(crate) fn run(args: &CalibrateArgs) -> Result<Ended> {
    set_threads(args.machine.threads)?;
    let device = select_device(args.machine.device.as_deref().unwrap_or("cpu"))?;
    if !(args.budget > 0.0 && args.budget <= 1.0) {
        let message = format!("budget: expected a number in (0, 1], found {}", args.budget);
        return Err(Error::Input(message).into());
    }
    let target = target(args)?;
    let mut checkpoint = import(&args.checkpoint, &ImportOptions::default())?.checkpoint;
    let trained = trained(args)?;
    let data = adavit_data::load(&trained.data, trained.data_dir.as_deref())?;
    check_images(&checkpoint.config, &data.train)?;
    let normalization = normalization_for(&checkpoint.config, &data.train);
    let split = held_out(data.train.len(), trained.held_out, trained.seed)?;
    let mut images = Images {
        dataset: &data.train,
        indices: &split.held_out,
        normalization: &normalization,
        batch_size: args.batch_size,
        device: &device,
    };
    tell(&format!(
        "thresholds for {} held-out images of {} (held_out {}, seed {}), which have to be images that \
         the model was not trained on",
        split.held_out.len(),
        trained.data,
        trained.held_out,
        trained.seed
    ));
    let mut model = checkpoint.model(&device)?;
    let held_out = calibrate_best(&mut model, &images, args.budget)?;
    checkpoint.config = model.config().clone();
    let all = data.test.indices();
    (images.dataset, images.indices) = (&data.test, &all);
    let test = evaluate_prepared(&checkpoint.prepared(&device)?, &images)?;
    let warning = off_budget(held_out.macs_share, args.budget);
    // A checkpoint keeps the thresholds that it has rather than get some that miss the budget.
    let written = warning.is_none() || args.out.is_some();
    if written {
        checkpoint.save(&target)?;
    }
    let target = written.then_some(target);
    tell_result(args, target.as_deref(), &checkpoint, (&held_out, &test))?;
    let Some(warning) = warning else {
        return Ok(Ended::Done);
    };
    tell(&format!("warning: {warning}"));
    Ok(Ended::Failed)
}

/// The settings of the run that the checkpoint is of, under the options that are given.
fn trained(args: &CalibrateArgs) -> Result<TrainConfig> {
    let mut trained = run_of(&args.checkpoint)?.unwrap_or_default();
    if let Some(data) = &args.data {
        trained.data.clone_from(data);
        trained.data_dir = None;
    }
    trained.data_dir = args.data_dir.clone().or(trained.data_dir);
    trained.held_out = args.held_out.unwrap_or(trained.held_out);
    trained.seed = args.seed.unwrap_or(trained.seed);
    Ok(trained)
}

/// The folder to write: the checkpoint's own, if no other is given.
fn target(args: &CalibrateArgs) -> Result<PathBuf> {
    if let Some(out) = &args.out {
        return Ok(out.clone());
    }
    let given = &args.checkpoint;
    let is_checkpoint = |folder: &Path| folder.join("config.json").is_file();
    let candidates = [given.clone(), given.join("best")];
    let found = candidates.into_iter().find(|folder| is_checkpoint(folder));
    if let Some(snapshot) = found
        .as_ref()
        .filter(|folder| folder.join("state.json").exists())
    {
        let message = format!(
            "{}: a run goes on from this snapshot, which must not change; give a folder by --out",
            snapshot.display()
        );
        return Err(Error::Input(message).into());
    }
    found.ok_or_else(|| {
        let message = format!(
            "{}: no folder of a checkpoint to write the thresholds to; give one by --out",
            given.display()
        );
        Error::Input(message).into()
    })
}

fn tell_result(
    args: &CalibrateArgs,
    target: Option<&Path>,
    checkpoint: &Checkpoint,
    (held_out, test): (&Evaluation, &Evaluation),
) -> Result<()> {
    let thresholds = checkpoint.config.decisions.as_ref().map(|d| d.thresholds);
    if args.machine.json {
        let found = |e: &Evaluation| {
            json!({
                "images": e.images,
                "top1": e.top1,
                "macs": e.macs,
                "macs_share": e.macs_share,
            })
        };
        return print_json(&json!({
            "checkpoint": target,
            "budget": args.budget,
            "thresholds": thresholds,
            "held_out": found(held_out),
            "test": found(test),
        }));
    }
    let line = |name: &str, e: &Evaluation| {
        format!(
            "{name:<10}{:>8} images{:>9.4} top-1{:>16} per image, {:.4} of the plain model",
            e.images,
            e.top1,
            macs(e.macs),
            e.macs_share
        )
    };
    let written = target.map_or_else(
        || "thresholds not written; --out writes them all the same".into(),
        |target| format!("thresholds written to {}", target.display()),
    );
    print(&format!(
        "{}\n{}\n{written}",
        line("held out", held_out),
        line("test", test),
    ))
}
