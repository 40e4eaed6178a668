//! `adavit convert`: any supported checkpoint in adavit's format.

use std::path::{Path, PathBuf};

use adavit_model::import;
use adavit_train::{FolderLock, claim_checkpoint};
use anyhow::Result;

use crate::commands::inspect::description;
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

/// Claims the folder to write, so that no other process writes into it.
fn claim(folder: &Path, force: bool) -> Result<FolderLock> {
    if force {
        return Ok(claim_checkpoint(folder)?);
    }
    FolderLock::claim_new(folder)?.ok_or_else(|| {
        bad_input(format!(
            "{}: exists already; give another folder, or add --force to replace the checkpoint in it",
            folder.display()
        ))
    })
}

pub(crate) fn run(args: &ConvertArgs) -> Result<Exit> {
    let imported = import(&args.checkpoint, &args.import.options())?;
    let _lock = claim(&args.out, args.force)?;
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
