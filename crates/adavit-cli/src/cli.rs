//! The command line: the commands, and where a checkpoint may stand.

use std::ffi::OsString;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};

use crate::commands::calibrate::CalibrateArgs;
use crate::commands::completions::CompletionsArgs;
use crate::commands::convert::ConvertArgs;
use crate::commands::data::DataArgs;
use crate::commands::eval::args::EvalArgs;
use crate::commands::inspect::InspectArgs;
use crate::commands::macs::MacsArgs;
use crate::commands::predict::args::PredictArgs;
use crate::commands::report::ReportArgs;
use crate::commands::sweep::SweepArgs;
use crate::commands::throughput::ThroughputArgs;
use crate::commands::train::args::TrainArgs;
use crate::commands::verify::VerifyArgs;
use crate::commands::{
    calibrate, completions, convert, data, eval, inspect, macs, man, predict, report, sweep,
    throughput, train, verify,
};
use crate::exit::Exit;

/// The help of the program; the examples take seconds on the checkpoints of the repository.
const TEMPLATE: &str = "\
{about-with-newline}
Start with the checkpoints in the repository; each command takes seconds:
  adavit eval data/fashion-mnist-nano/dense data/fashion-mnist-nano/adaptive-0.4545
  adavit macs data/fashion-mnist-nano/adaptive-0.4545
  adavit throughput data/fashion-mnist-nano/adaptive-0.4545 --usage tokens=0.5,heads=0.5

{usage-heading} {usage}

{all-args}{after-help}";

/// Adaptive vision transformers: for each image, compute only the patches, heads and blocks that it
/// needs.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100, help_template = TEMPLATE)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a dense model, then an adaptive one from it under a compute budget
    Train(Box<TrainArgs>),
    /// Measure accuracy and compute of checkpoints on test images
    Eval(EvalArgs),
    /// Count the multiply-adds of a checkpoint or a preset, part by part
    Macs(MacsArgs),
    /// Measure images per second of a checkpoint or a preset: dense, training, masked and sparse
    Throughput(ThroughputArgs),
    /// Report what a checkpoint is: one of adavit, timm, Hugging Face or PyTorch code
    Inspect(InspectArgs),
    /// Convert any supported checkpoint to model.safetensors and config.json
    Convert(ConvertArgs),
    /// Replay recordings of another implementation and compare every number
    Verify(VerifyArgs),
    /// Classify pictures and report the compute of each
    Predict(PredictArgs),
    /// Move a checkpoint's thresholds to another budget, on held-out training images
    Calibrate(CalibrateArgs),
    /// Train and compare models over budgets, seeds and rivals: accuracy, MACs and time
    Sweep(SweepArgs),
    /// Report what a data set holds, draw a sheet of it, or pack it in another format
    Data(DataArgs),
    /// Draw a run in one HTML file: curves, usage, confusions, cheap and costly images
    Report(ReportArgs),
    /// Print a script that completes commands and options in a shell
    Completions(CompletionsArgs),
    /// Print the manual page
    Man,
}

impl Command {
    /// Runs the command.
    pub(crate) fn run(&self) -> Result<Exit> {
        match self {
            Self::Train(args) => train::run(args),
            Self::Eval(args) => eval::run(args),
            Self::Macs(args) => macs::run(args),
            Self::Throughput(args) => throughput::run(args),
            Self::Inspect(args) => inspect::run(args),
            Self::Convert(args) => convert::run(args),
            Self::Verify(args) => verify::run(args),
            Self::Predict(args) => predict::run(args),
            Self::Calibrate(args) => calibrate::run(args),
            Self::Sweep(args) => sweep::run(args),
            Self::Data(args) => data::run(args),
            Self::Report(args) => report::run(args),
            Self::Completions(args) => completions::run(args, Cli::command()),
            Self::Man => man::run(Cli::command()),
        }
    }
}

/// The commands whose first argument is a checkpoint.
const OF_A_CHECKPOINT: [&str; 7] = [
    "eval",
    "macs",
    "throughput",
    "inspect",
    "convert",
    "predict",
    "calibrate",
];

/// Puts the value of `--checkpoint` where [`OF_A_CHECKPOINT`] expect their checkpoint: the option is
/// an alias of the first argument.
pub(crate) fn checkpoint_first(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments = arguments.into_iter();
    let mut found: Vec<OsString> = arguments.by_ref().take(2).collect();
    let command = found.get(1).and_then(|command| command.to_str());
    if !command.is_some_and(|command| OF_A_CHECKPOINT.contains(&command)) {
        found.extend(arguments);
        return found;
    }
    let (mut checkpoints, mut others) = (Vec::new(), Vec::new());
    while let Some(argument) = arguments.next() {
        let text = argument.to_str();
        if text == Some("--") {
            others.push(argument);
            break;
        } else if text == Some("--checkpoint") {
            checkpoints.extend(arguments.next());
        } else if let Some(path) = text.and_then(|text| text.strip_prefix("--checkpoint=")) {
            checkpoints.push(path.into());
        } else {
            others.push(argument);
        }
    }
    found.extend(checkpoints);
    found.extend(others);
    found.extend(arguments);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_of_a_checkpoint_is_its_first_argument() {
        let first = |line: &str| {
            let words = line.split(' ').map(OsString::from);
            checkpoint_first(words)
                .iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect::<Vec<_>>()
                .join(" ")
        };
        for (given, expected) in [
            (
                "adavit eval --checkpoint a b --json",
                "adavit eval a b --json",
            ),
            (
                "adavit eval --json --checkpoint a b",
                "adavit eval a --json b",
            ),
            (
                "adavit predict p.png --checkpoint=m",
                "adavit predict m p.png",
            ),
            ("adavit macs -- --checkpoint", "adavit macs -- --checkpoint"),
            ("adavit eval --checkpoint", "adavit eval"),
            (
                "adavit verify r --checkpoint m",
                "adavit verify r --checkpoint m",
            ),
            ("adavit", "adavit"),
        ] {
            assert_eq!(first(given), expected);
        }
    }

    #[test]
    fn the_definition_of_the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_option_with_a_value_shows_its_default() {
        // Nothing is written, changed or resumed without these.
        let off = [
            "analysis",
            "csv",
            "overlay",
            "per_image",
            "resume",
            "set",
            "sheet",
            "table",
            "to",
        ];
        for command in Cli::command().get_subcommands() {
            for option in command.get_opts() {
                let help = option.get_help().map(ToString::to_string);
                let shown = help.unwrap_or_default().contains("[default: ");
                let known = shown || !option.get_default_values().is_empty();
                let name = option.get_id().as_str();
                let exempt = option.is_required_set() || off.contains(&name) || name == "preset";
                let flag = !option.get_action().takes_values();
                assert!(known || exempt || flag, "{} --{name}", command.get_name());
            }
        }
    }
}
