//! The options of `adavit report`.

use std::path::PathBuf;

use super::MachineArgs;

#[derive(Debug, clap::Args)]
pub(crate) struct ReportArgs {
    /// A run folder
    #[arg(value_name = "RUN")]
    pub(crate) run: PathBuf,

    /// The file to write [default: report.html in the run folder]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,

    /// Also write into a folder what the compute is spent on, for documents: analysis.json, usage.svg,
    /// least.png and most.png (by compute), easiest.png and hardest.png (by the plain model's loss)
    #[arg(long, value_name = "DIR")]
    pub(crate) analysis: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}
