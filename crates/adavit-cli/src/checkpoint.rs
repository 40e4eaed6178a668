//! `adavit inspect` and `adavit convert`: what a checkpoint is, and in our format.

use std::path::Path;

use adavit_model::{Imported, import};
use adavit_train::{Error, FolderLock, claim_checkpoint};
use anyhow::Result;
use serde_json::{Value, json};

use crate::Ended;
use crate::args::{ConvertArgs, InspectArgs};
use crate::output::{macs, print, print_json, tell};

pub(crate) fn inspect(args: &InspectArgs) -> Result<Ended> {
    let (imported, fits) = adavit_model::inspect(&args.checkpoint, &args.import.options())?;
    let (misfit, ended) = match &fits {
        Ok(()) => (Misfit::default(), Ended::Done),
        Err(error) => (Misfit::of(error), Ended::Failed),
    };
    if args.json {
        let mut found = description(&args.checkpoint, &imported);
        found["missing"] = json!(misfit.missing);
        found["unused"] = json!(misfit.unused);
        found["misshapen"] = json!(misfit.misshapen);
        print_json(&found)?;
        return Ok(ended);
    }
    print(&told(&args.checkpoint, &imported, &misfit))?;
    Ok(ended)
}

/// Tensors that are not those of the configuration.
#[derive(Debug, Default)]
struct Misfit<'a> {
    missing: &'a [String],
    unused: &'a [String],
    misshapen: &'a [String],
}

impl<'a> Misfit<'a> {
    fn of(error: &'a adavit_model::Error) -> Self {
        match error {
            adavit_model::Error::Tensors {
                missing,
                unused,
                misshapen,
                ..
            } => Self {
                missing,
                unused,
                misshapen,
            },
            _ => Self::default(),
        }
    }

    fn lines(&self) -> Vec<String> {
        let parts = [
            ("missing", self.missing),
            ("unused", self.unused),
            ("of another shape", self.misshapen),
        ];
        let told = parts.iter().filter(|(_, names)| !names.is_empty());
        let lines: Vec<String> = told
            .map(|(what, names)| format!("{} tensors {what}: {}", names.len(), names.join(", ")))
            .collect();
        if lines.is_empty() {
            return vec!["no tensor is missing, none is unused".into()];
        }
        lines
    }
}

/// What a checkpoint is, for people.
fn told(path: &Path, imported: &Imported, misfit: &Misfit) -> String {
    let checkpoint = &imported.checkpoint;
    let config = &checkpoint.config;
    let (height, width) = config.img_size;
    let written = match &imported.wrapper {
        Some(wrapper) => format!("{}, weights under {wrapper}", imported.format),
        None => imported.format.to_string(),
    };
    let tokens = match (&config.tokens_to_token, &config.conv_stem) {
        (Some(_), _) => "the tokens-to-token module".to_string(),
        (None, Some(stem)) => format!("a stem of {} convolutions", stem.channels.len() + 1),
        (None, None) => format!("patches of {}", config.patch_size),
    };
    let kind = match (&config.decisions, config.distilled) {
        (Some(_), _) => "with decision networks",
        (None, true) => "plain, distilled",
        (None, false) => "plain",
    };
    let mut lines = vec![
        format!(
            "{}: {}, written by {} ({written})",
            path.display(),
            config.preset,
            imported.source.name()
        ),
        format!(
            "{height}x{width} pixels of {} channels through {tokens}, {} classes",
            config.in_chans, config.num_classes
        ),
        format!(
            "{} blocks of width {}, {} heads, {kind}",
            config.depth, config.embed_dim, config.num_heads
        ),
        format!(
            "{} tensors, {} parameters, {} per image where nothing is skipped",
            checkpoint.tensors.len(),
            checkpoint.num_parameters(),
            macs(config.geometry().dense_macs() as f64),
        ),
    ];
    lines.extend(misfit.lines());
    lines.extend(imported.notes.iter().map(|note| format!("note: {note}")));
    lines.join("\n")
}

/// What a checkpoint is, for programs.
fn description(path: &Path, imported: &Imported) -> Value {
    let checkpoint = &imported.checkpoint;
    json!({
        "checkpoint": path,
        "source": imported.source.name(),
        "format": imported.format,
        "wrapper": imported.wrapper,
        "tensors": checkpoint.tensors.len(),
        "parameters": checkpoint.num_parameters(),
        "dense_macs": checkpoint.config.geometry().dense_macs(),
        "config": checkpoint.config,
        "notes": imported.notes,
    })
}

/// Claims the folder to write, so that no other process writes into it.
fn claim(folder: &Path, force: bool) -> Result<FolderLock> {
    if force {
        return Ok(claim_checkpoint(folder)?);
    }
    FolderLock::claim_new(folder)?.ok_or_else(|| {
        let message = "is there already; choose another folder, or --force to replace the checkpoint \
                       in it";
        Error::Folder {
            path: folder.to_path_buf(),
            message: message.into(),
        }
        .into()
    })
}

pub(crate) fn convert(args: &ConvertArgs) -> Result<Ended> {
    let imported = import(&args.from, &args.import.options())?;
    let _lock = claim(&args.to, args.force)?;
    for note in &imported.notes {
        tell(&format!("note: {note}"));
    }
    imported.checkpoint.save(&args.to)?;
    if args.json {
        print_json(&description(&args.to, &imported))?;
    } else {
        print(&format!(
            "{}: {}, {} tensors",
            args.to.display(),
            imported.checkpoint.config.preset,
            imported.checkpoint.tensors.len()
        ))?;
    }
    Ok(Ended::Done)
}
