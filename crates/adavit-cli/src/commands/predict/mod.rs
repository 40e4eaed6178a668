//! `adavit predict`: the classes that a checkpoint gives pictures, and what that costs.

pub(crate) mod args;
mod totals;
mod writer;

use std::time::Instant;

use adavit_data::{find_pictures, read_ahead};
use adavit_decision::Allowance;
use adavit_model::Predictor;
use anyhow::Result;

use crate::commands::predict::args::PredictArgs;
use crate::commands::predict::totals::Totals;
use crate::commands::predict::writer::Writer;
use crate::exit::{Exit, bad_input};
use crate::output::message;
use crate::source::open_checkpoint;

pub(crate) fn run(args: &PredictArgs) -> Result<Exit> {
    let device = args.machine.open()?.device;
    let checkpoint = open_checkpoint(&args.checkpoint, &args.read.options())?;
    let allowance = args.allowance.allowance(&checkpoint.config)?;
    let predictor = Predictor::new(checkpoint.prepared(&device)?, device, args.batch_size)?;
    if let Some(folder) = &args.overlay {
        std::fs::create_dir_all(folder)
            .map_err(|error| bad_input(format!("creating {}: {error}", folder.display())))?;
    }
    let totals = match predict_all(args, &predictor, allowance) {
        // The reader has seen enough, as in `adavit predict ... | head`.
        Err(error) if is_broken_pipe(&error) => return Ok(Exit::Done),
        totals => totals?,
    };
    message(&totals.line());
    Ok(if totals.skipped + totals.unread > 0 {
        Exit::CheckFailed
    } else {
        Exit::Done
    })
}

/// Predicts for every picture, and writes each prediction as it comes.
fn predict_all(args: &PredictArgs, predictor: &Predictor, allowance: Allowance) -> Result<Totals> {
    let start = Instant::now();
    let files = find_pictures(&args.paths);
    let unread = files.unread_files();
    let pictures = read_ahead(files, predictor.config().input_config(), args.batch_size);
    let mut writer = Writer::new(args, predictor);
    let mut totals = Totals::default();
    for prediction in predictor.predict_within(pictures, allowance) {
        let prediction = prediction?;
        totals.add(&prediction);
        writer.write(&prediction)?;
    }
    let unread = unread.get();
    if unread.unread() > 0 {
        message(&format!("not predicted: {unread}"));
    }
    totals.unread = unread.unread();
    if totals.predicted + totals.skipped == 0 {
        return Err(bad_input(
            "no pictures: expected files, folders or patterns of JPEG, PNG, WebP, GIF, BMP, TIFF, PNM or QOI",
        ));
    }
    totals.seconds = start.elapsed().as_secs_f64();
    writer.end(&totals)?;
    Ok(totals)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain();
    causes.any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        let csv = cause.downcast_ref::<csv::Error>().map(csv::Error::kind);
        let io = io.or(match csv {
            Some(csv::ErrorKind::Io(io)) => Some(io),
            _ => None,
        });
        io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
