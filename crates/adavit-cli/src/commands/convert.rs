//! `adavit convert`: any supported checkpoint in adavit's format.

use std::path::PathBuf;

use adavit_model::import;
use anyhow::Result;

use super::inspect::description;
use crate::exit::{Exit, bad_input};
use crate::output::{OutputArgs, message, print, print_json};
use crate::source::ImportArgs;

#[derive(Debug, clap::Args)]
pub(crate) struct ConvertArgs {
    /// Checkpoint: a run folder, a checkpoint folder, a safetensors file, or a file of torch.save
    #[arg(value_name = "CKPT")]
    checkpoint: PathBuf,

    /// Folder to write
    #[arg(value_name = "OUT")]
    out: PathBuf,

    #[command(flatten)]
    import: ImportArgs,

    /// Replace the checkpoint in a folder that exists
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: &ConvertArgs) -> Result<Exit> {
    let imported = import(&args.checkpoint, &args.import.options())?;
    if args.out.exists() && !args.force {
        return Err(bad_input(format!(
            "{}: exists already; give another folder, or add --force to replace the checkpoint in it",
            args.out.display()
        )));
    }
    for note in &imported.notes {
        message(&format!("note: {note}"));
    }
    imported.checkpoint.save(&args.out)?;
    if args.output.json {
        print_json(&description(&args.out, &imported))?;
    } else {
        print(&format!(
            "{}: {}, {} tensors",
            args.out.display(),
            imported.checkpoint.config.preset,
            imported.checkpoint.tensors.len()
        ))?;
    }
    Ok(Exit::Done)
}
