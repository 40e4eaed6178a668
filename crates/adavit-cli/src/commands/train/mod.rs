//! `adavit train`: a dense model, then an adaptive one from it.

pub(crate) mod args;
mod settings;

use std::path::Path;

use adavit_data::Splits;
use adavit_experiment::report::write_report;
use adavit_train::{
    Control, Destination, Event, Outcome, REPORT, Summary, TrainConfig, extend, load_data,
    open_images, resume, train,
};
use anyhow::Result;
use candle_core::Device;

use crate::commands::train::args::TrainArgs;
use crate::commands::train::settings::Settings;
use crate::exit::{Exit, bad_input};
use crate::machine::{select_device, set_threads};
use crate::output::{macs, message, print, print_json, shell_word};
use crate::progress::Reporter;

pub(crate) fn run(args: &TrainArgs) -> Result<Exit> {
    let Settings { mut config, out } = match &args.resume {
        Some(run) => Settings::resumed(run, args)?,
        None => Settings::of(args)?,
    };
    config.threads = Some(set_threads(args.machine.threads.or(config.threads))?);
    config.validate()?;
    let device = select_device(&config.device)?;
    let data = if let Some(run) = &args.resume {
        load_data(run, &config)?
    } else {
        opened(args, &mut config)?
    };
    let stop = args.stop.listen()?;
    let mut reporter = Reporter::new(&args.progress);
    let mut folder = args.resume.clone().unwrap_or_default();
    let control = Control {
        stop: &stop,
        report: &mut |event| {
            if let Event::Started { folder: started } = event {
                folder = started.to_path_buf();
            }
            reporter.event(event);
        },
        device: &device,
        commit: env!("ADAVIT_COMMIT"),
    };
    let outcome = match (&args.resume, args.epochs) {
        (Some(run), Some(epochs)) => extend(run, epochs, &data, control),
        (Some(run), None) => resume(run, &data, control),
        (None, _) => {
            let out = destination(out.as_deref(), args.force);
            train(&config, &data, out, control)
        }
    };
    reporter.finish();
    let outcome = outcome?;
    if matches!(outcome, Outcome::Finished(_)) {
        report(&folder, &data, &device);
    }
    match outcome {
        Outcome::Finished(summary) if args.output.json => {
            print_json(&*summary)?;
            Ok(Exit::Done)
        }
        Outcome::Finished(summary) => {
            print(&results(&summary, &folder))?;
            Ok(Exit::Done)
        }
        // A run that is trained to its end goes through every stage.
        Outcome::Reached { .. } | Outcome::Interrupted => {
            message(&format!(
                "interrupted, saved; resume with: {}",
                resume_command(&folder)
            ));
            Ok(Exit::Interrupted)
        }
    }
}

/// Opens the images of a new run, which complete its settings, and says what was found.
fn opened(args: &TrainArgs, config: &mut TrainConfig) -> Result<Splits> {
    let images = open_images(config)?;
    for note in &images.notes {
        message(&format!("note: {note}"));
    }
    if let (Some(preset), Some(from)) = (&args.preset, &args.from)
        && *preset != config.preset
    {
        return Err(bad_input(format!(
            "{}: expected a checkpoint of {preset}, found {}; leave out --preset, since the checkpoint sets \
             the model",
            from.display(),
            config.preset
        )));
    }
    config.validate()?;
    Ok(images.splits)
}

/// Where a new run is written.
fn destination(out: Option<&Path>, force: bool) -> Destination<'_> {
    match out {
        Some(out) if force => Destination::Replace(out),
        Some(out) => Destination::Folder(out),
        None => Destination::NextIn(Path::new("runs")),
    }
}

/// Draws the report of a finished run, unless it is there; a run is no worse for one that could not
/// be drawn.
fn report(run: &Path, data: &Splits, device: &Device) {
    if run.join(REPORT).exists() {
        return;
    }
    if let Err(error) = write_report(run, data.test.as_ref(), None, device) {
        message(&format!("warning: no report: {error}"));
    }
}

/// Returns the command that resumes a run, to be pasted into a shell.
fn resume_command(folder: &Path) -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "adavit".into());
    format!(
        "{} train --resume {}",
        shell_word(&program),
        shell_word(folder)
    )
}

/// Returns what a run measured, for people.
fn results(summary: &Summary, folder: &Path) -> String {
    let (dense, adaptive) = (&summary.dense, &summary.adaptive);
    let (random, imitated) = (&summary.random_policy, &summary.random_policy_per_block);
    let share = |macs: f64| macs / dense.macs as f64;
    let row = |name: &str, top1: f64, of: f64| {
        format!("{name:<24}{top1:>8.4}{:>16}{:>9.3}", macs(of), share(of))
    };
    let usage = &adaptive.usage;
    format!(
        "{} test images, {}\n\
         {:<24}{:>8}{:>16}{:>9}\n{}\n{}\n{}\n{}\n\
         adaptive keeps {:.3} of tokens, {:.3} of heads, {:.3} of blocks; \
         its MACs vary by {} between images\n\
         {:.0} s; results in {}",
        summary.dataset,
        summary.budget.map_or_else(
            || "targets per axis".into(),
            |budget| format!("budget {budget}")
        ),
        "model",
        "top-1",
        "MACs/image",
        "share",
        row("dense", dense.top1, dense.macs as f64),
        row("adaptive", adaptive.top1, adaptive.macs),
        row("random policy", random.top1, random.macs),
        row("random, usage per block", imitated.top1, imitated.macs),
        usage.tokens,
        usage.heads,
        usage.blocks,
        macs(adaptive.macs_std),
        summary.seconds,
        folder.display(),
    )
}
