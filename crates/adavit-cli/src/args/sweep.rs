//! The options of `adavit sweep`.

use std::path::PathBuf;

use super::MachineArgs;

#[derive(Debug, clap::Args)]
pub(crate) struct SweepArgs {
    /// A TOML file that says which models to train, from which recipe, and what to compare them with
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,

    /// Folder of a named data set's files; without it they come from the Hugging Face hub
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,

    /// Folder of the sweep; one that was stopped goes on there [default: runs/ and the name of FILE]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,

    /// Train nothing; measure the speed of every model that is there again, so that all are of one
    /// machine
    #[arg(long)]
    pub(crate) speeds: bool,

    /// Stop after this many hours, saved, as Ctrl-C does
    #[arg(long, value_name = "H", allow_negative_numbers = true)]
    pub(crate) max_hours: Option<f64>,

    /// Steps between two lines of progress [default: one every ten seconds, none on a terminal]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) log_interval: Option<u64>,

    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}
