//! `adavit train`: a dense model, then an adaptive one from it.

mod settings;

use std::path::{Path, PathBuf};

use adavit_model::PRESETS;
use adavit_train::{Control, Outcome, Summary, next_run_folder, resume, run_config, train};
use anyhow::Result;
use clap::builder::PossibleValuesParser;
use toml::Table;

use self::settings::Settings;
use crate::exit::Exit;
use crate::machine::{MachineArgs, set_threads};
use crate::output::{OutputArgs, macs, message, print, print_json, shell_word};
use crate::progress::{ProgressArgs, Reporter};
use crate::stop::StopArgs;
use crate::values::{img_size, num_classes, setting};

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TrainArgs {
    /// TOML file with settings; options override it, and a run's config.toml reproduces the run
    /// [default: the settings shown here]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Set any key of the settings file, as in dense.optimizer.lr=1e-3; overrides --config, and other
    /// options override it; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<Table>,

    /// Data set: fashion-mnist-subset (ships with the repository), fashion-mnist, mnist, or a folder of
    /// IDX files [default: fashion-mnist-subset]
    #[arg(long, value_name = "NAME|PATH", help_heading = "Data")]
    data: Option<String>,

    /// Folder with the files of a named data set [default: download from the Hugging Face hub]
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    data_dir: Option<PathBuf>,

    /// Backbone [default: nano_patch7_28]
    #[arg(long, value_name = "P", value_parser = PossibleValuesParser::new(PRESETS), help_heading = "Model")]
    preset: Option<String>,

    /// Image size [default: the preset's]
    #[arg(long, value_name = "H[xW]", value_parser = img_size, help_heading = "Model")]
    img_size: Option<(usize, usize)>,

    /// Number of classes [default: the preset's]
    #[arg(long, value_name = "K", value_parser = num_classes, help_heading = "Model")]
    num_classes: Option<usize>,

    /// Dense checkpoint to adapt, of adavit, timm or Hugging Face; skips the dense stage
    /// [default: train a dense model]
    #[arg(long, value_name = "CKPT", help_heading = "Model")]
    dense_checkpoint: Option<PathBuf>,

    /// Mean compute per image, in (0, 1]: exact MACs at inference relative to the dense model
    /// [default: 0.5]
    #[arg(long, value_name = "B", allow_negative_numbers = true, help_heading = "Budget", conflicts_with_all = ["target_tokens", "target_heads", "target_blocks"])]
    budget: Option<f64>,

    /// Share of tokens to keep, in (0, 1]; the three targets replace the budget [default: set by the
    /// budget]
    #[arg(long, value_name = "T", allow_negative_numbers = true, help_heading = "Budget", requires_all = ["target_heads", "target_blocks"])]
    target_tokens: Option<f64>,

    /// Share of heads to keep, in (0, 1] [default: set by the budget]
    #[arg(long, value_name = "H", allow_negative_numbers = true, help_heading = "Budget", requires_all = ["target_tokens", "target_blocks"])]
    target_heads: Option<f64>,

    /// Share of blocks to keep, in (0, 1] [default: set by the budget]
    #[arg(long, value_name = "S", allow_negative_numbers = true, help_heading = "Budget", requires_all = ["target_tokens", "target_heads"])]
    target_blocks: Option<f64>,

    /// Passes over the training images in each of the two stages [default: 50 dense, 20 adaptive]
    #[arg(long, value_name = "N", help_heading = "Training")]
    epochs: Option<u64>,

    /// Largest number of optimizer steps in each stage [default: no limit]
    #[arg(long, value_name = "N", help_heading = "Training")]
    max_steps: Option<u64>,

    /// Images per step [default: 64]
    #[arg(long, value_name = "N", help_heading = "Training")]
    batch_size: Option<usize>,

    /// Learning rate of both stages; that of the decision networks is adaptive.optimizer.decision_lr
    /// [default: 0.002 dense, 0.001 adaptive]
    #[arg(
        long,
        value_name = "LR",
        allow_negative_numbers = true,
        help_heading = "Training"
    )]
    lr: Option<f64>,

    /// Seed of everything random: the same seed gives the same weights [default: 0]
    #[arg(long, value_name = "N", help_heading = "Training")]
    seed: Option<u64>,

    /// End a stage after N epochs without a better checkpoint [default: never]
    #[arg(long, value_name = "N", help_heading = "Training")]
    patience: Option<u64>,

    #[command(flatten)]
    stop: StopArgs,

    /// Keep the checkpoints of the N best epochs of each stage in epochs/ [default: 0]
    #[arg(long, value_name = "N", help_heading = "Run")]
    keep: Option<usize>,

    /// Write event files for TensorBoard into the run folder
    #[arg(long, help_heading = "Run")]
    tensorboard: bool,

    #[command(flatten)]
    progress: ProgressArgs,

    /// Run folder [default: runs/train, then runs/train-2, ...]
    #[arg(long, value_name = "DIR", help_heading = "Run")]
    out: Option<PathBuf>,

    /// Resume the run in this folder with its own settings
    #[arg(long, value_name = "RUN", help_heading = "Run", conflicts_with_all = [
        "config", "set", "data", "data_dir", "preset", "img_size", "num_classes", "dense_checkpoint",
        "budget", "target_tokens", "target_heads", "target_blocks", "epochs", "max_steps", "batch_size",
        "lr", "seed", "out", "force", "device", "patience", "keep", "tensorboard",
    ])]
    resume: Option<PathBuf>,

    /// Replace the run in a folder that is not empty
    #[arg(long, help_heading = "Run")]
    force: bool,

    #[command(flatten)]
    machine: MachineArgs,

    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: &TrainArgs) -> Result<Exit> {
    let Settings { mut config, out } = match &args.resume {
        Some(folder) => Settings {
            config: run_config(folder)?,
            out: None,
        },
        None => Settings::of(args)?,
    };
    config.threads = Some(set_threads(args.machine.threads.or(config.threads))?);
    let stop = args.stop.listen()?;
    let mut reporter = Reporter::new(&args.progress);
    let control = Control {
        stop: &stop,
        report: &mut |event| reporter.event(event),
        commit: env!("ADAVIT_COMMIT"),
    };
    let folder = match (&args.resume, out) {
        (Some(folder), _) => folder.clone(),
        (None, Some(out)) => out,
        (None, None) => next_run_folder(Path::new("runs")),
    };
    let outcome = match &args.resume {
        Some(folder) => resume(folder, control),
        None => train(&config, &folder, args.force, control),
    };
    reporter.finish();
    match outcome? {
        Outcome::Finished(summary) if args.output.json => {
            print_json(&*summary)?;
            Ok(Exit::Done)
        }
        Outcome::Finished(summary) => {
            print(&results(&summary, &folder))?;
            Ok(Exit::Done)
        }
        // A run that is trained to its end goes through every stage.
        Outcome::Reached { .. } | Outcome::Interrupted => {
            message(&format!(
                "interrupted, saved; resume with: {}",
                resume_command(&folder)
            ));
            Ok(Exit::Interrupted)
        }
    }
}

/// Returns the command that resumes a run, to be pasted into a shell.
fn resume_command(folder: &Path) -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "adavit".into());
    format!(
        "{} train --resume {}",
        shell_word(&program),
        shell_word(folder)
    )
}

/// Returns what a run measured, for people.
fn results(summary: &Summary, folder: &Path) -> String {
    let (dense, adaptive) = (&summary.dense, &summary.adaptive);
    let (random, imitated) = (&summary.random_policy, &summary.random_policy_per_block);
    let share = |macs: f64| macs / dense.macs as f64;
    let row = |name: &str, top1: f64, of: f64| {
        format!("{name:<24}{top1:>8.4}{:>16}{:>9.3}", macs(of), share(of))
    };
    let usage = &adaptive.usage;
    format!(
        "{} test images, {}\n\
         {:<24}{:>8}{:>16}{:>9}\n{}\n{}\n{}\n{}\n\
         adaptive keeps {:.3} of tokens, {:.3} of heads, {:.3} of blocks; \
         its MACs vary by {} between images\n\
         {:.0} s; results in {}",
        summary.dataset,
        summary.budget.map_or_else(
            || "targets per axis".into(),
            |budget| format!("budget {budget}")
        ),
        "model",
        "top-1",
        "MACs/image",
        "share",
        row("dense", dense.top1, dense.macs as f64),
        row("adaptive", adaptive.top1, adaptive.macs),
        row("random policy", random.top1, random.macs),
        row("random, usage per block", imitated.top1, imitated.macs),
        usage.tokens,
        usage.heads,
        usage.blocks,
        macs(adaptive.macs_std),
        summary.seconds,
        folder.display(),
    )
}
