//! `adavit inspect` and `adavit convert`: what a checkpoint is, and in our format.

use adavit_model::{Imported, import};
use adavit_train::Error;
use anyhow::Result;
use serde_json::json;

use crate::Ended;
use crate::args::{ConvertArgs, InspectArgs};
use crate::output::{print, print_json, tell};

pub(crate) fn inspect(args: &InspectArgs) -> Result<Ended> {
    let imported = import(&args.checkpoint)?;
    let Imported {
        checkpoint,
        source,
        notes,
    } = &imported;
    let config = &checkpoint.config;
    if args.json {
        print_json(&json!({
            "checkpoint": args.checkpoint,
            "source": source.name(),
            "tensors": checkpoint.tensors.len(),
            "parameters": checkpoint.num_parameters(),
            "dense_macs": config.geometry().dense_macs(),
            "config": config,
            "notes": notes,
        }))?;
        return Ok(Ended::Done);
    }
    let (height, width) = config.img_size;
    let mut lines = vec![
        format!(
            "{}: {}, written by {}",
            args.checkpoint.display(),
            config.preset,
            source.name()
        ),
        format!(
            "{height}x{width} pixels of {} channels in patches of {}, {} classes",
            config.in_chans, config.patch_size, config.num_classes
        ),
        format!(
            "{} blocks of width {}, {} heads, {}",
            config.depth,
            config.embed_dim,
            config.num_heads,
            if config.decisions.is_some() {
                "with decision networks"
            } else {
                "plain"
            }
        ),
        format!(
            "{} tensors, {} parameters",
            checkpoint.tensors.len(),
            checkpoint.num_parameters()
        ),
    ];
    lines.extend(notes.iter().map(|note| format!("note: {note}")));
    print(&lines.join("\n"))?;
    Ok(Ended::Done)
}

pub(crate) fn convert(args: &ConvertArgs) -> Result<Ended> {
    let imported = import(&args.from)?;
    if args.to.exists() && !args.force {
        let message = format!(
            "{}: is there already; choose another folder, or --force to replace the checkpoint in it",
            args.to.display()
        );
        return Err(Error::Input(message).into());
    }
    for note in &imported.notes {
        tell(&format!("note: {note}"));
    }
    imported.checkpoint.save(&args.to)?;
    print(&format!(
        "{}: {}, {} tensors",
        args.to.display(),
        imported.checkpoint.config.preset,
        imported.checkpoint.tensors.len()
    ))?;
    Ok(Ended::Done)
}
