//! `adavit verify`: recordings of another implementation, replayed.

use std::path::PathBuf;

use adavit_model::{Recording, Replay, Verification};
use anyhow::Result;
use serde_json::json;

use crate::exit::Exit;
use crate::machine::MachineArgs;
use crate::output::{OutputArgs, print, print_json};
use crate::values::Exec;

#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// Recordings: safetensors files with weights, input and expected numbers
    #[arg(value_name = "FILE", required = true)]
    recordings: Vec<PathBuf>,

    /// Checkpoint with the weights to replay [default: those in each recording]
    #[arg(long, value_name = "CKPT")]
    checkpoint: Option<PathBuf>,

    /// How decisions are carried out; recordings of training require masked
    #[arg(long, value_enum, default_value = "masked")]
    exec: Exec,

    #[command(flatten)]
    machine: MachineArgs,

    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: &VerifyArgs) -> Result<Exit> {
    let device = args.machine.open()?.device;
    let replay = match args.exec {
        Exec::Masked => Replay::Masked,
        Exec::Sparse => Replay::Sparse,
    };
    let recordings = args.recordings.iter();
    let verifications = recordings
        .map(|path| {
            let (recording, checkpoint) = (Recording::load(path)?, args.checkpoint.as_deref());
            Ok(adavit_model::verify(
                &recording, checkpoint, replay, &device,
            )?)
        })
        .collect::<Result<Vec<_>>>()?;
    let passed = verifications.iter().all(Verification::passed);
    let files = args.recordings.iter().zip(&verifications);
    if args.output.json {
        let recordings = files.map(|(path, one)| {
            json!({
                "recording": path,
                "passed": one.passed(),
                "comparisons": one.comparisons,
            })
        });
        print_json(&json!({
            "passed": passed,
            "recordings": recordings.collect::<Vec<_>>(),
        }))?;
    } else {
        let tables = files.map(|(path, one)| table(&path.display().to_string(), one));
        print(&tables.collect::<Vec<_>>().join("\n"))?;
    }
    Ok(if passed {
        Exit::Done
    } else {
        Exit::CheckFailed
    })
}

/// Returns the comparisons of one recording, for people.
fn table(name: &str, verification: &Verification) -> String {
    let verdict = |passed: bool| if passed { "pass" } else { "FAIL" };
    let mut lines = vec![
        format!("{name}: {}", verdict(verification.passed())),
        format!(
            "  {:<12}{:>8}{:>10}{:>12}{:>12}{:>14}  worst",
            "kind", "tensors", "elements", "max abs", "max rel", "of tolerance"
        ),
    ];
    for c in &verification.comparisons {
        lines.push(format!(
            "  {:<12}{:>8}{:>10}{:>12.2e}{:>12.2e}{:>14.3}  {} {}",
            c.kind,
            c.tensors,
            c.elements,
            c.max_abs,
            c.max_rel,
            c.of_tolerance,
            c.worst,
            verdict(c.passed),
        ));
    }
    lines.join("\n")
}
