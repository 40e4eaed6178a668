//! The options of `adavit train`.

use std::path::PathBuf;

use adavit_model::PRESETS;
use clap::builder::PossibleValuesParser;
use toml::Table;

use crate::machine::MachineArgs;
use crate::output::OutputArgs;
use crate::progress::ProgressArgs;
use crate::stop::StopArgs;
use crate::values::{img_size, num_classes, setting};

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TrainArgs {
    /// TOML file with settings; options override it, and a run's config.toml reproduces the run
    /// [default: the settings shown here]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    /// Set any key of the settings file, as in dense.optimizer.lr=1e-3; overrides --config, and other
    /// options override it; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    pub(super) set: Vec<Table>,

    /// Data set: fashion-mnist-subset (ships with the repository), fashion-scenes (built from it),
    /// fashion-mnist, mnist, or a path to folders of pictures, a list (CSV, JSON lines), parquet or tar
    /// shards, CIFAR's or IDX files
    /// [default: fashion-mnist-subset]
    #[arg(value_name = "DATA")]
    pub(super) images: Option<String>,

    /// The same as DATA [default: fashion-mnist-subset]
    #[arg(
        long,
        value_name = "DATA",
        help_heading = "Data",
        conflicts_with = "images"
    )]
    pub(super) data: Option<String>,

    /// File that gives each folder or label its class: lines of FOLDER,CLASS or a JSON object
    /// [default: by names, or by numbers]
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(super) class_map: Option<PathBuf>,

    /// Share of the pictures that is tested on, where the data have one part only [default: 0.2]
    #[arg(
        long,
        value_name = "S",
        allow_negative_numbers = true,
        help_heading = "Data"
    )]
    pub(super) val_split: Option<f64>,

    /// Threads that read, decode and vary pictures ahead of the steps [default: --threads for
    /// pictures, none for images in memory]
    #[arg(long, value_name = "N", help_heading = "Data")]
    pub(super) workers: Option<usize>,

    /// Folder with the files of a named data set [default: the Hugging Face hub, in a build with the
    /// feature hub]. With --resume, --data and --data-dir say where the run's images are now
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    pub(super) data_dir: Option<PathBuf>,

    /// Backbone [default: nano_patch7_28]
    #[arg(long, value_name = "P", value_parser = PossibleValuesParser::new(PRESETS), help_heading = "Model")]
    pub(super) preset: Option<String>,

    /// Image size [default: the preset's]
    #[arg(long, value_name = "H[xW]", value_parser = img_size, help_heading = "Model")]
    pub(super) img_size: Option<(usize, usize)>,

    /// Number of classes [default: the preset's]
    #[arg(long, value_name = "K", value_parser = num_classes, help_heading = "Model")]
    pub(super) num_classes: Option<usize>,

    /// Dense checkpoint to start from, of adavit, timm or Hugging Face: it sets the model. The dense
    /// stage trains it first if its head is new or --epochs is given, and is skipped otherwise
    /// [default: train a dense model]
    #[arg(
        long,
        value_name = "CKPT",
        alias = "dense-checkpoint",
        help_heading = "Model"
    )]
    pub(super) from: Option<PathBuf>,

    /// Mean compute per image, in (0, 1]: exact MACs at inference relative to the dense model
    /// [default: 0.5]
    #[arg(long, value_name = "B", allow_negative_numbers = true, help_heading = "Budget", conflicts_with_all = ["target_tokens", "target_heads", "target_blocks"])]
    pub(super) budget: Option<f64>,

    /// Share of tokens to keep, in (0, 1]; requires the other two targets, and the three replace the
    /// budget [default: set by the budget]
    #[arg(long, value_name = "T", allow_negative_numbers = true, help_heading = "Budget", requires_all = ["target_heads", "target_blocks"])]
    pub(super) target_tokens: Option<f64>,

    /// Share of heads to keep, in (0, 1] [default: set by the budget]
    #[arg(long, value_name = "H", allow_negative_numbers = true, help_heading = "Budget", requires_all = ["target_tokens", "target_blocks"])]
    pub(super) target_heads: Option<f64>,

    /// Share of blocks to keep, in (0, 1] [default: set by the budget]
    #[arg(long, value_name = "S", allow_negative_numbers = true, help_heading = "Budget", requires_all = ["target_tokens", "target_heads"])]
    pub(super) target_blocks: Option<f64>,

    /// Passes over the training images in each of the two stages [default: 50 dense, 20 adaptive]. With
    /// --resume, extends each stage that is not over; in a finished run the adaptive stage, which
    /// resumes under the schedule of N epochs
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(super) epochs: Option<u64>,

    /// Largest number of optimizer steps in each stage [default: no limit]. Within the first epoch this
    /// is a trial run, which tests one random policy of each kind
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(super) max_steps: Option<u64>,

    /// Images per step [default: 64]
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(super) batch_size: Option<usize>,

    /// Learning rate of both stages; that of the decision networks is adaptive.optimizer.decision_lr
    /// [default: 0.002 dense, 0.001 adaptive]
    #[arg(
        long,
        value_name = "LR",
        allow_negative_numbers = true,
        help_heading = "Training"
    )]
    pub(super) lr: Option<f64>,

    /// Seed of everything random: the same seed gives the same weights [default: 0]
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(super) seed: Option<u64>,

    /// End a stage after N epochs without a better checkpoint [default: never]
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(super) patience: Option<u64>,

    #[command(flatten)]
    pub(super) stop: StopArgs,

    /// Keep the checkpoints of the N best epochs of each stage in epochs/ [default: 0]
    #[arg(long, value_name = "N", help_heading = "Run")]
    pub(super) keep: Option<usize>,

    /// Write event files for TensorBoard into the run folder
    #[arg(long, help_heading = "Run")]
    pub(super) tensorboard: bool,

    #[command(flatten)]
    pub(super) progress: ProgressArgs,

    /// Run folder [default: runs/train, then runs/train-2, ...]
    #[arg(long, value_name = "DIR", help_heading = "Run")]
    pub(super) out: Option<PathBuf>,

    /// Resume the run in this folder with its own settings; with --epochs, extend it
    #[arg(long, value_name = "RUN", help_heading = "Run", conflicts_with_all = [
        "config", "set", "preset", "img_size", "num_classes", "from", "images", "class_map",
        "val_split",
        "budget", "target_tokens", "target_heads", "target_blocks", "max_steps", "batch_size",
        "lr", "seed", "out", "force", "device", "patience", "keep", "tensorboard",
    ])]
    pub(super) resume: Option<PathBuf>,

    /// Replace the run in a folder that is not empty
    #[arg(long, help_heading = "Run")]
    pub(super) force: bool,

    #[command(flatten)]
    pub(super) machine: MachineArgs,

    #[command(flatten)]
    pub(super) output: OutputArgs,
}
