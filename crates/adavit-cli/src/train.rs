//! `adavit train`: settings from file and options, then the run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use adavit_data::Splits;
use adavit_experiment::report::write_report;
use adavit_train::{
    Control, Destination, Error, Event, Outcome, REPORT, Summary, Targets, TrainConfig, extend,
    load_data, resume, run_config, train,
};
use anyhow::{Context, Result};
use candle_core::Device;

use crate::args::TrainArgs;
use crate::device::select_device;
use crate::eval::set_threads;
use crate::output::{macs, print, print_json, tell};
use crate::progress::Reporter;
use crate::{Ended, INTERRUPTED};

pub(crate) fn run(args: &TrainArgs) -> Result<Ended> {
    let (mut config, out) = match &args.resume {
        Some(run) => (resumed(run, args)?, None),
        None => settings(args)?,
    };
    config.threads = Some(set_threads(args.machine.threads.or(config.threads))?);
    config.validate()?;
    let device = select_device(&config.device)?;
    let data = match &args.resume {
        Some(run) => load_data(run, &config)?,
        None => adavit_data::load(&config.data, config.data_dir.as_deref())?,
    };
    let stop = stop_on_signals()?;
    let mut reporter = Reporter::new(args.log_interval);
    stop_after(args.max_hours, &stop)?;
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
    match outcome? {
        Outcome::Finished(summary) => {
            report(&folder, &data, &device);
            finished(&summary, &folder, args.machine.json)?;
            Ok(Ended::Done)
        }
        // A run that is trained to its end goes through every stage.
        Outcome::Reached { .. } | Outcome::Interrupted => {
            let program = std::env::current_exe().unwrap_or_else(|_| "adavit".into());
            tell(&format!(
                "interrupted, saved; go on with: {} train --resume {}",
                program.display(),
                folder.display()
            ));
            Ok(Ended::Interrupted)
        }
    }
}

/// The settings of a run that is resumed, with the places of its images that are given.
fn resumed(run: &Path, args: &TrainArgs) -> Result<TrainConfig> {
    let mut config = run_config(run)?;
    if let Some(data) = &args.data {
        config.data.clone_from(data);
        config.data_dir = None;
    }
    config.data_dir = args.data_dir.clone().or(config.data_dir);
    Ok(config)
}

/// Where a new run is written.
fn destination(out: Option<&Path>, force: bool) -> Destination<'_> {
    match out {
        Some(out) if force => Destination::Replace(out),
        Some(out) => Destination::Folder(out),
        None => Destination::NextIn(Path::new("runs")),
    }
}

/// The settings, and the run folder if one was given: defaults, then the file, then options.
fn settings(args: &TrainArgs) -> Result<(TrainConfig, Option<PathBuf>)> {
    let mut config = match &args.config {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Error::Input(format!("reading {}: {error}", path.display())))?;
            TrainConfig::from_toml(&text)
                .map_err(|error| Error::Input(format!("{}: {error}", path.display())))?
        }
        None => TrainConfig::default(),
    };
    set(&mut config.data, args.data.as_ref());
    set(&mut config.preset, args.preset.as_ref());
    set(&mut config.budget, args.budget.as_ref());
    set(&mut config.batch_size, args.batch_size.as_ref());
    set(&mut config.seed, args.seed.as_ref());
    set(&mut config.device, args.machine.device.as_ref());
    set(&mut config.dense.epochs, args.epochs.as_ref());
    set(&mut config.adaptive.epochs, args.epochs.as_ref());
    config.data_dir = args.data_dir.clone().or(config.data_dir);
    config.dense_checkpoint = args.dense_checkpoint.clone().or(config.dense_checkpoint);
    config.max_steps = args.max_steps.or(config.max_steps);
    config.patience = args.patience.or(config.patience);
    set(&mut config.keep, args.keep.as_ref());
    config.tensorboard |= args.tensorboard;
    if let (Some(tokens), Some(heads), Some(blocks)) =
        (args.target_tokens, args.target_heads, args.target_blocks)
    {
        config.targets = Some(Targets {
            tokens,
            heads,
            blocks,
        });
    } else if args.budget.is_some() {
        config.targets = None;
    }
    let out = args.out.clone().or(config.out.take());
    config.validate()?;
    Ok((config, out))
}

/// Draws the report of a finished run, unless it is there; a run is no worse for one that could not
/// be drawn.
fn report(run: &Path, data: &Splits, device: &Device) {
    if run.join(REPORT).exists() {
        return;
    }
    if let Err(error) = write_report(run, &data.test, None, device) {
        tell(&format!("warning: no report: {error}"));
    }
}

/// Lets an option that was given win.
fn set<T: Clone>(setting: &mut T, option: Option<&T>) {
    if let Some(value) = option {
        *setting = value.clone();
    }
}

/// A flag that Ctrl-C and termination raise; the second signal ends the process at once.
pub(crate) fn stop_on_signals() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&stop);
    // Not that flag: a time limit raises it too.
    let asked = AtomicBool::new(false);
    ctrlc::set_handler(move || {
        raised.store(true, Ordering::Relaxed);
        if asked.swap(true, Ordering::Relaxed) {
            #[expect(clippy::exit, reason = "the user asked twice")]
            std::process::exit(i32::from(INTERRUPTED));
        }
        tell("stopping after this step; once more to stop at once, unsaved");
    })
    .context("listening for Ctrl-C")?;
    Ok(stop)
}

/// Raises the flag after some hours, if that many are given.
pub(crate) fn stop_after(hours: Option<f64>, stop: &Arc<AtomicBool>) -> Result<()> {
    let Some(hours) = hours else {
        return Ok(());
    };
    let seconds = hours * 3600.0;
    if !(seconds > 0.0 && seconds < 1e9) {
        let message = format!("max-hours: expected a number above 0, found {hours}");
        return Err(Error::Input(message).into());
    }
    let raised = Arc::clone(stop);
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs_f64(seconds));
        tell("the time is up: stopping after this step");
        raised.store(true, Ordering::Relaxed);
    });
    Ok(())
}

fn finished(summary: &Summary, folder: &Path, json: bool) -> Result<()> {
    if json {
        return print_json(summary);
    }
    let (dense, adaptive) = (&summary.dense, &summary.adaptive);
    let (random, imitated) = (&summary.random_policy, &summary.random_policy_per_block);
    let share = |macs: f64| macs / dense.macs as f64;
    let row = |name: &str, top1: f64, of: f64| {
        format!("{name:<24}{top1:>8.4}{:>16}{:>9.3}", macs(of), share(of))
    };
    let usage = &adaptive.usage;
    print(&format!(
        "{} test images, {}\n\
         {:<24}{:>8}{:>16}{:>9}\n{}\n{}\n{}\n{}\n\
         adaptive keeps {:.3} of tokens, {:.3} of heads, {:.3} of sub-layers; \
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
    ))
}
