//! The options of `adavit predict`.

use std::path::PathBuf;

use crate::allowance::AllowanceArgs;
use crate::machine::MachineArgs;
use crate::output::OutputArgs;
use crate::source::ReadArgs;
use crate::values::{batch_size, top_k};

#[derive(Debug, clap::Args)]
pub(crate) struct PredictArgs {
    /// Checkpoint: a run folder, a checkpoint folder, a safetensors file, or a file of torch.save
    #[arg(value_name = "CKPT")]
    pub(super) checkpoint: PathBuf,

    /// Pictures (JPEG, PNG, WebP, GIF, BMP, TIFF, PNM, QOI), folders of them, patterns such as "photos/*.jpg", or - for a list
    /// on standard input, one path per line
    #[arg(value_name = "PATH", required = true)]
    pub(super) paths: Vec<PathBuf>,

    /// Number of classes to report, the most likely first
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = top_k)]
    pub(super) top_k: usize,

    #[command(flatten)]
    pub(super) allowance: AllowanceArgs,

    /// Draw which patches each block keeps, one PNG file per picture
    #[arg(long, value_name = "DIR")]
    pub(super) overlay: Option<PathBuf>,

    /// Print one JSON object per line
    #[arg(long, conflicts_with_all = ["csv", "json"])]
    jsonl: bool,

    /// Print comma-separated values
    #[arg(long, conflicts_with_all = ["json"])]
    csv: bool,

    /// Pictures per forward
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = batch_size)]
    pub(super) batch_size: usize,

    #[command(flatten)]
    pub(super) read: ReadArgs,

    #[command(flatten)]
    pub(super) machine: MachineArgs,

    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// How predictions are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Table,
    Json,
    Jsonl,
    Csv,
}

impl PredictArgs {
    pub(super) fn format(&self) -> Format {
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
