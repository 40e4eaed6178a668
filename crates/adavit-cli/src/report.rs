//! `adavit report`: a run with pictures.

use std::iter;

use adavit_experiment::report::{write_analysis, write_report};
use adavit_train::{load_data, run_config};
use anyhow::Result;
use serde_json::json;

use crate::Ended;
use crate::args::ReportArgs;
use crate::device::select_device;
use crate::eval::set_threads;
use crate::output::{print, print_json};

pub(crate) fn run(args: &ReportArgs) -> Result<Ended> {
    set_threads(args.machine.threads)?;
    let device = select_device(args.machine.device.as_deref().unwrap_or("cpu"))?;
    let config = run_config(&args.run)?;
    let test = load_data(&args.run, &config)?.test;
    // Images that cannot be drawn are refused before anything is written.
    let analysis = args.analysis.as_ref();
    let analysis = analysis
        .map(|folder| write_analysis(&args.run, &test, folder, &device))
        .transpose()?;
    let path = write_report(&args.run, &test, args.out.as_deref(), &device)?;
    if args.machine.json {
        print_json(&json!({"report": path, "analysis": analysis}))?;
    } else {
        for written in iter::once(&path).chain(&args.analysis) {
            print(&written.display().to_string())?;
        }
    }
    Ok(Ended::Done)
}
