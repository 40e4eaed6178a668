//! The options of `adavit eval`.

use std::path::PathBuf;

use crate::allowance::AllowanceArgs;
use crate::machine::MachineArgs;
use crate::output::OutputArgs;
use crate::source::{DataArgs, ReadArgs};
use crate::values::{Exec, GateThresholds, batch_size, gate_thresholds};

#[derive(Debug, clap::Args)]
pub(crate) struct EvalArgs {
    /// Checkpoint: a run folder, a checkpoint folder, a safetensors file, or a file of torch.save;
    /// several give a table
    #[arg(value_name = "CKPT", required = true)]
    pub(super) checkpoints: Vec<PathBuf>,

    #[command(flatten)]
    pub(super) data: DataArgs,

    /// How decisions are carried out; a dense checkpoint makes none
    #[arg(long, value_enum, default_value = "sparse")]
    pub(super) exec: Exec,

    /// Thresholds above which gates are on: one number in (0, 1), or tokens=T,heads=H,blocks=B
    /// [default: the checkpoint's]
    #[arg(long, value_name = "T", value_parser = gate_thresholds)]
    pub(super) threshold: Option<GateThresholds>,

    #[command(flatten)]
    pub(super) allowance: AllowanceArgs,

    /// Report accuracy and MACs of each class
    #[arg(long)]
    pub(super) per_class: bool,

    /// Report the confusion matrix: how often each class is predicted for each true class
    #[arg(long)]
    pub(super) confusion: bool,

    /// Write one line per checkpoint as comma-separated values
    #[arg(long, value_name = "FILE")]
    pub(super) csv: Option<PathBuf>,

    /// Write the result of each image, one JSON object per line; for fashion-scenes also how many garments
    /// it holds, how many pixels these cover, and where they are
    #[arg(long, value_name = "FILE")]
    pub(super) per_image: Option<PathBuf>,

    /// Leave out pictures that cannot be read, and count them [default: stop at the first]
    #[arg(long)]
    pub(super) skip_broken: bool,

    /// Images per forward
    #[arg(long, value_name = "N", default_value_t = 250, value_parser = batch_size)]
    pub(super) batch_size: usize,

    #[command(flatten)]
    pub(super) read: ReadArgs,

    #[command(flatten)]
    pub(super) machine: MachineArgs,

    #[command(flatten)]
    pub(super) output: OutputArgs,
}
