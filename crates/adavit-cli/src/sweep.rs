//! `adavit sweep`: accuracy against compute and time, over budgets and rivals.

use std::path::{Path, PathBuf};

use adavit_experiment::sweep::{
    Efficiency, PairedComparison, Point, SweepConfig, measure_speeds, sweep,
};
use adavit_train::Control;
use anyhow::Result;
use serde_json::json;

use crate::Ended;
use crate::args::SweepArgs;
use crate::device::select_device;
use crate::eval::set_threads;
use crate::output::{macs, print, print_json, tell};
use crate::progress::Reporter;
use crate::train::{stop_after, stop_on_signals};

pub(crate) fn run(args: &SweepArgs) -> Result<Ended> {
    let (config, mut recipe) = SweepConfig::read(&args.config)?;
    recipe.threads = Some(set_threads(args.machine.threads.or(recipe.threads))?);
    recipe.data_dir = args.data_dir.clone().or(recipe.data_dir);
    if let Some(device) = &args.machine.device {
        recipe.device.clone_from(device);
    }
    let device = select_device(&recipe.device)?;
    let stop = stop_on_signals()?;
    stop_after(args.max_hours, &stop)?;
    let mut reporter = Reporter::new(args.log_interval);
    let control = Control {
        stop: &stop,
        report: &mut |event| reporter.event(event),
        device: &device,
        commit: env!("ADAVIT_COMMIT"),
    };
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| default_out(&args.config));
    let run = if args.speeds { measure_speeds } else { sweep };
    let found = run(&config, &recipe, &out, control);
    reporter.finish();
    let found = found?;
    if args.machine.json {
        print_json(&json!({
            "out": out,
            "complete": found.complete,
            "comparisons": found.comparisons,
        }))?;
    } else {
        print(&table(&found))?;
    }
    if found.complete {
        tell(&format!(
            "written: {}",
            out.join("efficiency.{csv,json,md,svg}").display()
        ));
        return Ok(Ended::Done);
    }
    tell(if args.speeds {
        "interrupted; speeds measured so far are saved, the same command begins again"
    } else {
        "interrupted, saved; the same command goes on"
    });
    Ok(Ended::Interrupted)
}

/// `runs/` and the name of the configuration.
fn default_out(config: &Path) -> PathBuf {
    let name = config.file_stem().unwrap_or(config.as_os_str());
    Path::new("runs").join(name)
}

fn table(found: &Efficiency) -> String {
    let width = found
        .points
        .iter()
        .map(|point| point.name.len())
        .max()
        .unwrap_or(0);
    let mut lines = vec![format!(
        "{:<width$}{:>9}{:>16}{:>8}{:>14}{:>9}{:>15}{:>9}",
        "model", "top-1", "MACs/image", "share", "images/s, 1", "saved", "images/s, 32", "saved"
    )];
    lines.extend(found.points.iter().map(|point| row(point, width)));
    if !found.comparisons.is_empty() {
        lines.push("difference of top-1, with the 95 % interval over test images:".into());
    }
    lines.extend(found.comparisons.iter().map(compared));
    lines.join("\n")
}

fn row(point: &Point, width: usize) -> String {
    // Token reduction has no speeds.
    let speeds = [14, 15].into_iter().enumerate().map(|(index, wide)| {
        point.speeds.get(index).map_or_else(
            || format!("{:>wide$}{:>9}", "-", "-"),
            |speed| format!("{:>wide$.0}{:>9.2}", speed.images_per_s, speed.time_saved),
        )
    });
    let speeds: Vec<String> = speeds.collect();
    format!(
        "{:<width$}{:>9.4}{:>16}{:>8.3}{}",
        point.name,
        point.top1,
        macs(point.macs),
        point.macs_share,
        speeds.concat()
    )
}

fn compared(comparison: &PairedComparison) -> String {
    let seeds = match comparison.seeds {
        1 => "1 seed".to_string(),
        n => format!("{n} seeds"),
    };
    format!(
        "{} and {} at {}: {:+.4} [{:+.4}, {:+.4}], {}; {:.2} of its MACs, {seeds}",
        comparison.model,
        comparison.against,
        comparison.budget,
        comparison.difference,
        comparison.low,
        comparison.high,
        comparison.verdict.name(),
        comparison.macs_ratio,
    )
}
