//! `adavit calibrate`: thresholds of a checkpoint for a budget.

use std::path::{Path, PathBuf};

use adavit_data::held_out;
use adavit_model::{Checkpoint, ImportOptions, import};
use adavit_train::{
    Error, Evaluation, Images, TrainConfig, calibrate_best, check_images, claim_checkpoint,
    evaluate_sparse, off_budget,
};
use anyhow::Result;
use serde_json::json;

use crate::Ended;
use crate::args::CalibrateArgs;
use crate::device::select_device;
use crate::eval::{normalization_for, set_threads};
use crate::output::{macs, print, print_json, tell};
use crate::recorded::{GivenImages, Recorded};

pub(crate) fn run(args: &CalibrateArgs) -> Result<Ended> {
    set_threads(args.machine.threads)?;
    let device = select_device(args.machine.device.as_deref().unwrap_or("cpu"))?;
    if !(args.budget > 0.0 && args.budget <= 1.0) {
        let message = format!("budget: expected a number in (0, 1], found {}", args.budget);
        return Err(Error::Input(message).into());
    }
    let target = target(args)?;
    let checkpoint = import(&args.checkpoint, &ImportOptions::default())?.checkpoint;
    let recorded = Recorded::of(&args.checkpoint, &checkpoint.config)?;
    let given = given_images(args);
    let trained = recorded.settings(&given)?;
    let data = recorded.load(&trained)?;
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
    tell(&images_line(split.held_out.len(), &trained));
    if let Some(warning) = recorded.warning(&given, &trained, &data.train) {
        tell(&format!("warning: {warning}"));
    }
    // A run that is trained meanwhile, or another calibration, would write the same files.
    let _lock = claim_checkpoint(&target)?;
    let mut checkpoint = import(&args.checkpoint, &ImportOptions::default())?.checkpoint;
    let mut model = checkpoint.model(&device)?;
    let held_out = calibrate_best(&mut model, &images, args.budget)?;
    checkpoint.config = model.config().clone();
    let all = data.test.indices();
    (images.dataset, images.indices) = (&data.test, &all);
    let test = evaluate_sparse(&checkpoint.prepared(&device)?, &images, &mut |_| Ok(()))?;
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

/// The images that options choose.
fn given_images(args: &CalibrateArgs) -> GivenImages<'_> {
    GivenImages {
        data: args.data.as_deref(),
        data_dir: args.data_dir.as_deref(),
        held_out: args.held_out,
        seed: args.seed,
    }
}

/// Says which images thresholds are chosen on.
fn images_line(images: usize, trained: &TrainConfig) -> String {
    format!(
        "calibrating on {images} held-out images of {} (held_out {}, seed {}), which must be images that \
         the model was not trained on",
        trained.data, trained.held_out, trained.seed
    )
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
