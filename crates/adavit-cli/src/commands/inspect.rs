//! `adavit inspect`: what a checkpoint is.

use std::path::{Path, PathBuf};

use adavit_model::{Imported, Stem};
use anyhow::Result;
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::output::{OutputArgs, macs, print, print_json};
use crate::source::ImportArgs;

#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// Checkpoint: a run folder, a checkpoint folder, a safetensors file, or a file of torch.save
    #[arg(value_name = "CKPT")]
    checkpoint: PathBuf,

    #[command(flatten)]
    import: ImportArgs,

    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: &InspectArgs) -> Result<Exit> {
    let (imported, fits) = adavit_model::inspect(&args.checkpoint, &args.import.options())?;
    let (misfit, exit) = match &fits {
        Ok(()) => (Misfit::default(), Exit::Done),
        Err(error) => (Misfit::of(error), Exit::CheckFailed),
    };
    if args.output.json {
        let mut value = description(&args.checkpoint, &imported);
        value["missing"] = json!(misfit.missing);
        value["unused"] = json!(misfit.unused);
        value["misshapen"] = json!(misfit.misshapen);
        print_json(&value)?;
        return Ok(exit);
    }
    print(&text(&args.checkpoint, &imported, &misfit))?;
    Ok(exit)
}

/// The tensors that the configuration does not fit.
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
        let parts = parts.iter().filter(|(_, names)| !names.is_empty());
        let lines: Vec<String> = parts
            .map(|(what, names)| format!("{} tensors {what}: {}", names.len(), names.join(", ")))
            .collect();
        if lines.is_empty() {
            return vec!["no tensor is missing or unused".into()];
        }
        lines
    }
}

/// Returns what a checkpoint is, for people.
fn text(path: &Path, imported: &Imported, misfit: &Misfit) -> String {
    let checkpoint = &imported.checkpoint;
    let config = &checkpoint.config;
    let (height, width) = config.img_size;
    let written = match &imported.wrapper {
        Some(wrapper) => format!("{}, weights under {wrapper}", imported.format),
        None => imported.format.to_string(),
    };
    let tokens = match &config.stem {
        Stem::TokensToToken(_) => "the tokens-to-token module".to_string(),
        Stem::Convolutions(stem) => format!("a stem of {} convolutions", stem.channels.len() + 1),
        Stem::Patches { patch_size } => format!("patches of {patch_size}"),
    };
    let kind = match (&config.decisions, config.distilled) {
        (Some(_), _) => "with decision networks",
        (None, true) => "dense, distilled",
        (None, false) => "dense",
    };
    let mut lines = vec![
        format!(
            "{}: {}, written by {} ({written})",
            path.display(),
            config.preset,
            imported.origin.name()
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
            "{} tensors, {} parameters, {} per image if nothing is skipped",
            checkpoint.tensors.len(),
            checkpoint.num_parameters(),
            macs(config.geometry().dense_macs() as f64),
        ),
    ];
    lines.extend(misfit.lines());
    lines.extend(imported.notes.iter().map(|note| format!("note: {note}")));
    lines.join("\n")
}

/// Returns what a checkpoint is, for programs.
pub(super) fn description(path: &Path, imported: &Imported) -> Value {
    let checkpoint = &imported.checkpoint;
    json!({
        "checkpoint": path,
        "source": imported.origin.name(),
        "format": imported.format,
        "wrapper": imported.wrapper,
        "tensors": checkpoint.tensors.len(),
        "parameters": checkpoint.num_parameters(),
        "dense_macs": checkpoint.config.geometry().dense_macs(),
        "config": checkpoint.config,
        "notes": imported.notes,
    })
}
