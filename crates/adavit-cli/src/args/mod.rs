//! Everything that can be given on the command line.

mod report;
mod sweep;
mod values;

use std::path::PathBuf;

use adavit_experiment::measure::Keep;
use adavit_model::{ImportOptions, PRESETS};
use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand};

pub(crate) use self::report::ReportArgs;
pub(crate) use self::sweep::SweepArgs;
pub(crate) use self::values::{Accounting, Exec, GateThresholds, Rounding, StrategyArg};
use self::values::{gate_thresholds, img_size, keep, top_k};

/// Adaptive vision transformers: for each image, compute only the patches, heads and sub-layers
/// that it needs.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a plain model, then an adaptive one from it under a budget of compute
    Train(Box<TrainArgs>),
    /// Measure a checkpoint's accuracy and compute on test images
    Eval(EvalArgs),
    /// Count the multiply-adds of a preset, part by part
    Macs(MacsArgs),
    /// Measure images per second of a preset: plain, training, masked and sparse
    Throughput(ThroughputArgs),
    /// Tell what a checkpoint is: adavit's, or one of timm, Hugging Face or PyTorch code
    Inspect(InspectArgs),
    /// Write any checkpoint that is understood as model.safetensors and config.json
    Convert(ConvertArgs),
    /// Replay recordings of another implementation, and compare every number
    Verify(VerifyArgs),
    /// Say what pictures show, and what that costs
    Predict(PredictArgs),
    /// Move a checkpoint's thresholds to another budget, on held-out training images
    Calibrate(CalibrateArgs),
    /// Measure accuracy against compute and time, over budgets and rivals; trains what it needs
    Sweep(SweepArgs),
    /// Draw a run: curves, usage, confusions, cheap and costly images, in one HTML file
    Report(ReportArgs),
    /// Print a script that completes commands and options in a shell
    Completions(CompletionsArgs),
    /// Print the manual page
    Man,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TrainArgs {
    /// A TOML file with settings; options given here win over it. A run's config.toml reproduces
    /// the run
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Data set: fashion-mnist-subset (ships with the repository), fashion-mnist, mnist, or a
    /// folder of IDX files
    #[arg(long, value_name = "NAME|PATH", help_heading = "Data")]
    pub(crate) data: Option<String>,

    /// Folder of a named data set's files; without it they come from the Hugging Face hub. With --resume,
    /// --data and --data-dir say where the run's images are now
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    pub(crate) data_dir: Option<PathBuf>,

    /// Backbone
    #[arg(long, value_name = "P", value_parser = PossibleValuesParser::new(PRESETS), help_heading = "Model")]
    pub(crate) preset: Option<String>,

    /// Plain checkpoint to adapt, in place of the first stage: adavit's, timm's or Hugging Face's
    #[arg(long, value_name = "CKPT", help_heading = "Model")]
    pub(crate) dense_checkpoint: Option<PathBuf>,

    /// Mean compute of an image, in (0, 1]: exact MACs at inference over those of the plain model
    #[arg(long, value_name = "B", allow_negative_numbers = true, help_heading = "Budget", conflicts_with_all = ["target_tokens", "target_heads", "target_blocks"])]
    pub(crate) budget: Option<f64>,

    /// Share of tokens to keep, in (0, 1]; the three targets stand in place of the budget
    #[arg(long, value_name = "T", allow_negative_numbers = true, help_heading = "Budget", requires_all = ["target_heads", "target_blocks"])]
    pub(crate) target_tokens: Option<f64>,

    /// Share of heads to keep, in (0, 1]
    #[arg(long, value_name = "H", allow_negative_numbers = true, help_heading = "Budget", requires_all = ["target_tokens", "target_blocks"])]
    pub(crate) target_heads: Option<f64>,

    /// Share of sub-layers to keep, in (0, 1]
    #[arg(long, value_name = "S", allow_negative_numbers = true, help_heading = "Budget", requires_all = ["target_tokens", "target_heads"])]
    pub(crate) target_blocks: Option<f64>,

    /// Passes over the training images in each of the two stages; with --resume, in each stage that is
    /// not over: in a finished run the adaptive stage, which resumes under the schedule of N epochs
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(crate) epochs: Option<u64>,

    /// At most N optimizer steps in each stage; within the first epoch this is a trial run, which tests
    /// one random policy of each kind
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(crate) max_steps: Option<u64>,

    /// Images per step
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(crate) batch_size: Option<usize>,

    /// Of everything random: the same seed and threads give the same weights
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(crate) seed: Option<u64>,

    /// End a stage after N epochs without a better checkpoint
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(crate) patience: Option<u64>,

    /// Stop after this many hours, saved, as Ctrl-C does
    #[arg(
        long,
        value_name = "H",
        allow_negative_numbers = true,
        help_heading = "Run"
    )]
    pub(crate) max_hours: Option<f64>,

    /// Keep the checkpoints of the N best epochs of each stage in epochs/
    #[arg(long, value_name = "N", help_heading = "Run")]
    pub(crate) keep: Option<usize>,

    /// Write event files for TensorBoard into the run folder
    #[arg(long, help_heading = "Run")]
    pub(crate) tensorboard: bool,

    /// Steps between two lines of progress [default: one every ten seconds, none on a terminal]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Run")]
    pub(crate) log_interval: Option<u64>,

    /// Run folder [default: runs/train, then runs/train-2, ...]
    #[arg(long, value_name = "DIR", help_heading = "Run")]
    pub(crate) out: Option<PathBuf>,

    /// Resume the run in this folder with its own settings; with --epochs, extend it
    #[arg(long, value_name = "RUN", help_heading = "Run", conflicts_with_all = [
        "config", "preset", "dense_checkpoint", "budget", "target_tokens", "target_heads",
        "target_blocks", "max_steps", "batch_size", "seed", "out", "force", "device", "patience",
        "keep", "tensorboard",
    ])]
    pub(crate) resume: Option<PathBuf>,

    /// Replace the run in a folder that is not empty
    #[arg(long, help_heading = "Run")]
    pub(crate) force: bool,

    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct EvalArgs {
    /// A run folder, a checkpoint folder, a safetensors file, or a file of torch.save; several give a
    /// table
    #[arg(long, value_name = "CKPT", required = true, num_args = 1..)]
    pub(crate) checkpoint: Vec<PathBuf>,

    /// Data set: fashion-mnist-subset (ships with the repository), fashion-mnist, mnist, a folder of
    /// IDX files, or a folder with a folder of pictures (JPEG, PNG, WebP) for each class
    #[arg(long, value_name = "NAME|PATH", default_value = "fashion-mnist-subset")]
    pub(crate) data: String,

    /// Folder of a named data set's files; without it they come from the Hugging Face hub
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,

    /// How decisions are carried out; a plain checkpoint makes none
    #[arg(long, value_enum, default_value = "sparse")]
    pub(crate) exec: Exec,

    /// Where gates turn on, in place of the checkpoint's: one number in (0, 1), or tokens=T,heads=H,
    /// blocks=B
    #[arg(long, value_name = "T", value_parser = gate_thresholds)]
    pub(crate) threshold: Option<GateThresholds>,

    /// Tell accuracy and MACs of each class
    #[arg(long)]
    pub(crate) per_class: bool,

    /// Tell which classes are taken for which
    #[arg(long)]
    pub(crate) confusion: bool,

    /// Write a line for each checkpoint as comma-separated values
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,

    /// Write what was found of each image, a JSON object per line
    #[arg(long, value_name = "FILE")]
    pub(crate) per_image: Option<PathBuf>,

    /// Images per forward
    #[arg(long, value_name = "N", default_value_t = 250)]
    pub(crate) batch_size: usize,

    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct MacsArgs {
    /// Backbone
    #[arg(long, value_name = "P", value_parser = PossibleValuesParser::new(PRESETS))]
    pub(crate) preset: String,

    /// exact: what is multiplied; paper: as the published tables count
    #[arg(long, value_enum, default_value = "exact")]
    pub(crate) accounting: Accounting,

    /// Also write the cost of a block for every use of it, as the published tables hold it: tensor
    /// gmacs by heads kept, tokens kept, attention on, MLP on; with --accounting paper
    #[arg(long, value_name = "OUT")]
    pub(crate) table: Option<PathBuf>,

    /// How the paper's accounting counts tokens
    #[arg(long, value_enum, default_value = "published")]
    pub(crate) rounding: Rounding,

    /// Print one JSON object on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// A run folder, a checkpoint folder, a safetensors file, or a file of torch.save
    #[arg(value_name = "CKPT")]
    pub(crate) checkpoint: PathBuf,

    #[command(flatten)]
    pub(crate) import: ImportArgs,

    /// Print one JSON object on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ConvertArgs {
    /// A run folder, a checkpoint folder, a safetensors file, or a file of torch.save
    #[arg(value_name = "IN")]
    pub(crate) from: PathBuf,

    /// The folder to write
    #[arg(value_name = "OUT")]
    pub(crate) to: PathBuf,

    #[command(flatten)]
    pub(crate) import: ImportArgs,

    /// Replace the checkpoint that is there
    #[arg(long)]
    pub(crate) force: bool,

    /// Print one JSON object on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to make of a checkpoint where it is not taken as it is.
#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// Heads, where nothing in the checkpoint tells how many
    #[arg(long, value_name = "N")]
    pub(crate) num_heads: Option<usize>,

    /// Resample the position embedding for images of this size, bicubic and antialiased
    #[arg(long, value_name = "H[xW]", value_parser = img_size)]
    pub(crate) img_size: Option<(usize, usize)>,

    /// Drop the head, and make a new one for this many classes, untrained
    #[arg(long, value_name = "K")]
    pub(crate) num_classes: Option<usize>,

    /// Of the new head
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,

    /// Leave out the distillation token and its head
    #[arg(long)]
    pub(crate) drop_distillation: bool,
}

impl ImportArgs {
    pub(crate) fn options(&self) -> ImportOptions {
        ImportOptions {
            num_heads: self.num_heads,
            img_size: self.img_size,
            num_classes: self.num_classes,
            seed: self.seed,
            drop_distillation: self.drop_distillation,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// Recordings: safetensors files with weights, input, and the numbers that came out
    #[arg(value_name = "FILE", required = true)]
    pub(crate) recordings: Vec<PathBuf>,

    /// Take the weights from this checkpoint, not from the recordings
    #[arg(long, value_name = "CKPT")]
    pub(crate) checkpoint: Option<PathBuf>,

    /// How decisions are carried out; recordings of training are replayed masked
    #[arg(long, value_enum, default_value = "masked")]
    pub(crate) exec: Exec,

    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ThroughputArgs {
    /// Backbone
    #[arg(long, value_name = "P", value_parser = PossibleValuesParser::new(PRESETS))]
    pub(crate) preset: String,

    /// Images per forward or step
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub(crate) batch: usize,

    /// Measure training steps first: cross entropy and AdamW
    #[arg(long)]
    pub(crate) train: bool,

    /// Compare plain model, masked and sparse path, keeping these shares: tokens=T,heads=H,blocks=B,
    /// each in (0, 1] and 1 where it is left out
    #[arg(long, value_name = "SHARES", value_parser = keep)]
    pub(crate) usage: Option<Keep>,

    /// How the sparse path leaves out heads: for tests of speed, since logits are the same
    #[arg(long, value_enum, default_value = "auto", requires = "usage")]
    pub(crate) strategy: StrategyArg,

    /// Also tell milliseconds and GFLOP/s of each operation
    #[arg(long)]
    pub(crate) profile: bool,

    /// Duration of the measured rounds
    #[arg(
        long,
        value_name = "S",
        default_value_t = 5.0,
        allow_negative_numbers = true
    )]
    pub(crate) seconds: f64,

    /// Of weights and images
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,

    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PredictArgs {
    /// A run folder, a checkpoint folder, a safetensors file, or a file of torch.save
    #[arg(value_name = "CKPT")]
    pub(crate) checkpoint: PathBuf,

    /// Pictures (JPEG, PNG, WebP), folders of them, patterns such as "photos/*.jpg", or - for a list
    /// on standard input, a path on each line
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,

    /// How many of the likeliest classes to tell
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = top_k)]
    pub(crate) top_k: usize,

    /// Draw which patches each block keeps, a PNG file for each picture
    #[arg(long, value_name = "DIR")]
    pub(crate) overlay: Option<PathBuf>,

    /// Print an object on each line
    #[arg(long, conflicts_with_all = ["csv", "json"])]
    pub(crate) jsonl: bool,

    /// Print comma-separated values
    #[arg(long, conflicts_with_all = ["json"])]
    pub(crate) csv: bool,

    /// Pictures per forward
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub(crate) batch_size: usize,

    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

/// How predictions are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PredictFormat {
    Table,
    Json,
    Jsonl,
    Csv,
}

impl PredictArgs {
    pub(crate) fn format(&self) -> PredictFormat {
        if self.machine.json {
            PredictFormat::Json
        } else if self.jsonl {
            PredictFormat::Jsonl
        } else if self.csv {
            PredictFormat::Csv
        } else {
            PredictFormat::Table
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct CalibrateArgs {
    /// An adaptive checkpoint: a run folder (its best/), a checkpoint folder, or a file
    #[arg(value_name = "CKPT")]
    pub(crate) checkpoint: PathBuf,

    /// Mean compute of an image, in (0, 1]: exact MACs over those of the plain model
    #[arg(long, value_name = "B", allow_negative_numbers = true)]
    pub(crate) budget: f64,

    /// Data set whose held-out training images are used: fashion-mnist-subset, fashion-mnist, mnist,
    /// or a folder of IDX files [default: those it was trained on, or fashion-mnist-subset]
    #[arg(long, value_name = "NAME|PATH")]
    pub(crate) data: Option<String>,

    /// Folder of a named data set's files; without it they come from the Hugging Face hub [default: the
    /// run's]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,

    /// Share of the training images that is held out: that of the training, or images are seen that
    /// it has learnt [default: the one that it records, or 0.1]
    #[arg(long, value_name = "H", allow_negative_numbers = true)]
    pub(crate) held_out: Option<f64>,

    /// Of that choice: the training's [default: the one that it records, or 0]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,

    /// The folder to write [default: the checkpoint's own]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,

    /// Images per forward
    #[arg(long, value_name = "N", default_value_t = 250)]
    pub(crate) batch_size: usize,

    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

/// Where to compute, and how to tell.
#[derive(Debug, clap::Args)]
pub(crate) struct MachineArgs {
    /// cpu, cuda, cuda:N or metal [default: cpu]
    #[arg(long, value_name = "D", help_heading = "Machine")]
    pub(crate) device: Option<String>,

    /// Threads [default: all processors]
    #[arg(long, value_name = "N", help_heading = "Machine")]
    pub(crate) threads: Option<usize>,

    /// Print one JSON object on standard output, everything else on standard error
    #[arg(long, help_heading = "Machine")]
    pub(crate) json: bool,
}
