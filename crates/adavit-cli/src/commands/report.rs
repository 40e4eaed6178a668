//! `adavit report`: a run with pictures.

use std::iter;
use std::path::PathBuf;

use adavit_experiment::report::{write_analysis, write_report};
use adavit_model::check_writable;
use adavit_train::{load_data, run_config};
use anyhow::Result;
use serde_json::json;

use crate::exit::Exit;
use crate::machine::MachineArgs;
use crate::output::{OutputArgs, print, print_json};

#[derive(Debug, clap::Args)]
pub(crate) struct ReportArgs {
    /// Run folder
    #[arg(value_name = "RUN")]
    run: PathBuf,

    /// File to write [default: report.html in the run folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Also write into DIR what the compute is spent on, for documents: analysis.json, usage.svg,
    /// least.png and most.png (by compute), easiest.png and hardest.png (by the dense model's loss)
    #[arg(long, value_name = "DIR")]
    analysis: Option<PathBuf>,

    #[command(flatten)]
    machine: MachineArgs,

    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: &ReportArgs) -> Result<Exit> {
    if let Some(path) = &args.out {
        check_writable(path)?;
    }
    let device = args.machine.open()?.device;
    let config = run_config(&args.run)?;
    let test = load_data(&args.run, &config)?.test;
    // Images that cannot be drawn are refused before anything is written.
    let analysis = args.analysis.as_ref();
    let analysis = analysis
        .map(|folder| write_analysis(&args.run, test.as_ref(), folder, &device))
        .transpose()?;
    let path = write_report(&args.run, test.as_ref(), args.out.as_deref(), &device)?;
    if args.output.json {
        print_json(&json!({"report": path, "analysis": analysis}))?;
    } else {
        for written in iter::once(&path).chain(&args.analysis) {
            print(&written.display().to_string())?;
        }
    }
    Ok(Exit::Done)
}
