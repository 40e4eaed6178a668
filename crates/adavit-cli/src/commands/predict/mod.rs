//! `adavit predict`: the classes that a checkpoint gives pictures, and what that costs.

mod files;
mod writer;

use std::path::PathBuf;

use adavit_train::{Error, Predictions, Predictor};
use anyhow::Result;

use self::files::files;
use self::writer::Writer;
use crate::exit::{Exit, bad_input};
use crate::machine::MachineArgs;
use crate::output::{OutputArgs, macs, message};
use crate::source::{ReadArgs, open_checkpoint};
use crate::values::{batch_size, top_k};

#[derive(Debug, clap::Args)]
pub(crate) struct PredictArgs {
    /// Checkpoint: a run folder, a checkpoint folder, a safetensors file, or a file of torch.save
    #[arg(value_name = "CKPT")]
    checkpoint: PathBuf,

    /// Pictures (JPEG, PNG, WebP), folders of them, patterns such as "photos/*.jpg", or - for a list
    /// on standard input, one path per line
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,

    /// Number of classes to report, the most likely first
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = top_k)]
    top_k: usize,

    /// Draw which patches each block keeps, one PNG file per picture
    #[arg(long, value_name = "DIR")]
    overlay: Option<PathBuf>,

    /// Print one JSON object per line
    #[arg(long, conflicts_with_all = ["csv", "json"])]
    jsonl: bool,

    /// Print comma-separated values
    #[arg(long, conflicts_with_all = ["json"])]
    csv: bool,

    /// Pictures per forward
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = batch_size)]
    batch_size: usize,

    #[command(flatten)]
    read: ReadArgs,

    #[command(flatten)]
    machine: MachineArgs,

    #[command(flatten)]
    output: OutputArgs,
}

/// How predictions are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Table,
    Json,
    Jsonl,
    Csv,
}

impl PredictArgs {
    fn format(&self) -> Format {
        if self.output.json {
            Format::Json
        } else if self.jsonl {
            Format::Jsonl
        } else if self.csv {
            Format::Csv
        } else {
            Format::Table
        }
    }
}

pub(crate) fn run(args: &PredictArgs) -> Result<Exit> {
    let device = args.machine.open()?.device;
    let model = open_checkpoint(&args.checkpoint, &args.read.options())?.prepared(&device)?;
    let predictor = Predictor::new(model, device, args.batch_size)?;
    if let Some(folder) = &args.overlay {
        std::fs::create_dir_all(folder)
            .map_err(|error| bad_input(format!("creating {}: {error}", folder.display())))?;
    }
    let totals = match predict_all(args, &predictor) {
        // The reader has seen enough, as in `adavit predict ... | head`.
        Err(error) if is_broken_pipe(&error) => return Ok(Exit::Done),
        totals => totals?,
    };
    message(&totals_line(&totals));
    Ok(if totals.skipped > 0 {
        Exit::CheckFailed
    } else {
        Exit::Done
    })
}

/// Predicts every file and writes each prediction as it comes.
fn predict_all(args: &PredictArgs, predictor: &Predictor) -> Result<Predictions> {
    let mut writer = Writer::new(args, predictor);
    let mut failed = None;
    let totals = predictor.predict(files(&args.paths), &mut |prediction| {
        writer.write(prediction).map_err(|error| {
            // The library has no variant for errors of this program, so they bypass it.
            let message = format!("{error:#}");
            failed = Some(error);
            Error::Input(message)
        })
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let totals = totals?;
    if totals.predicted + totals.skipped == 0 {
        return Err(bad_input(
            "no pictures: expected files, folders or patterns of JPEG, PNG or WebP",
        ));
    }
    writer.end(&totals)?;
    Ok(totals)
}

fn totals_line(totals: &Predictions) -> String {
    format!(
        "{} picture{} in {:.1} s, {:.1} images/s, mean {}; {} skipped",
        totals.predicted,
        if totals.predicted == 1 { "" } else { "s" },
        totals.seconds,
        totals.predicted as f64 / totals.seconds.max(1e-9),
        macs(totals.macs as f64 / totals.predicted.max(1) as f64),
        totals.skipped,
    )
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
