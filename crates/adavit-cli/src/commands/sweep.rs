//! `adavit sweep`: accuracy against compute and time, over budgets and rivals.

use std::path::{Path, PathBuf};

use adavit_experiment::sweep::{
    Efficiency, PairedComparison, Point, SweepConfig, measure_speeds, sweep,
};
use adavit_train::Control;
use anyhow::Result;
use serde_json::json;
use toml::Table;

use crate::exit::Exit;
use crate::machine::{MachineArgs, select_device, set_threads};
use crate::output::{OutputArgs, macs, message, print, print_json};
use crate::progress::{ProgressArgs, Reporter};
use crate::stop::StopArgs;
use crate::values::{overridden, setting};

#[derive(Debug, clap::Args)]
pub(crate) struct SweepArgs {
    /// TOML file with the models to train, the recipe, and the rivals to compare with
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// Set any key of the recipe, as in dense.optimizer.lr=1e-3; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<Table>,

    /// Folder with the files of a named data set [default: the Hugging Face hub, in a build with the
    /// feature hub]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Folder of the sweep; an interrupted sweep resumes in it [default: runs/ and the name of FILE]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Train nothing; measure the speed of every trained model again, so that all speeds are of one
    /// machine
    #[arg(long)]
    speeds: bool,

    #[command(flatten)]
    stop: StopArgs,

    #[command(flatten)]
    progress: ProgressArgs,

    #[command(flatten)]
    machine: MachineArgs,

    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: &SweepArgs) -> Result<Exit> {
    let (config, mut recipe) = SweepConfig::read(&args.config)?;
    if !args.set.is_empty() {
        recipe = overridden(&recipe.to_toml()?, &args.set)?;
        config.validate(&recipe)?;
    }
    recipe.threads = Some(set_threads(args.machine.threads.or(recipe.threads))?);
    recipe.data_dir = args.data_dir.clone().or(recipe.data_dir);
    if let Some(device) = &args.machine.device {
        recipe.device.clone_from(device);
    }
    let device = select_device(&recipe.device)?;
    let stop = args.stop.listen()?;
    let mut reporter = Reporter::new(&args.progress);
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
    let efficiency = run(&config, &recipe, &out, control);
    reporter.finish();
    let efficiency = efficiency?;
    if args.output.json {
        print_json(&json!({
            "out": out,
            "complete": efficiency.complete,
            "comparisons": efficiency.comparisons,
        }))?;
    } else {
        print(&table(&efficiency))?;
    }
    if efficiency.complete {
        message(&format!(
            "written: {}",
            out.join("efficiency.{csv,json,md,svg}").display()
        ));
        return Ok(Exit::Done);
    }
    message(if args.speeds {
        "interrupted; the speeds measured so far are saved; the same command starts over"
    } else {
        "interrupted, saved; resume with the same command"
    });
    Ok(Exit::Interrupted)
}

/// Returns `runs/` and the name of the configuration.
fn default_out(config: &Path) -> PathBuf {
    let name = config.file_stem().unwrap_or(config.as_os_str());
    Path::new("runs").join(name)
}

fn table(efficiency: &Efficiency) -> String {
    let width = efficiency
        .points
        .iter()
        .map(|point| point.name.len())
        .max()
        .unwrap_or(0);
    let mut lines = vec![format!(
        "{:<width$}{:>9}{:>16}{:>8}{:>14}{:>9}{:>15}{:>9}",
        "model", "top-1", "MACs/image", "share", "images/s, 1", "saved", "images/s, 32", "saved"
    )];
    lines.extend(efficiency.points.iter().map(|point| row(point, width)));
    if !efficiency.comparisons.is_empty() {
        lines.push("difference of top-1 [95 % interval over test images]:".into());
    }
    lines.extend(efficiency.comparisons.iter().map(compared));
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
        "{} against {} at {}: {:+.4} [{:+.4}, {:+.4}], {}; {:.2} of its MACs, {seeds}",
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
