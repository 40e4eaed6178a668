//! `adavit verify`: recordings of another implementation, replayed.

use adavit_model::{Recording, Replay, Verification};
use adavit_train::select_device;
use anyhow::Result;
use serde_json::json;

use crate::Ended;
use crate::args::{Exec, VerifyArgs};
use crate::commands::eval::set_threads;
use crate::output::{print, print_json};

pub(crate) fn run(args: &VerifyArgs) -> Result<Ended> {
    set_threads(args.machine.threads)?;
    let device = select_device(args.machine.device.as_deref().unwrap_or("cpu"))?;
    let replay = match args.exec {
        Exec::Masked => Replay::Masked,
        Exec::Sparse => Replay::Sparse,
    };
    let mut found = Vec::new();
    for path in &args.recordings {
        let recording = Recording::load(path)?;
        let checkpoint = args.checkpoint.as_deref();
        found.push(adavit_model::verify(
            &recording, checkpoint, replay, &device,
        )?);
    }
    let passed = found.iter().all(Verification::passed);
    let files = args.recordings.iter().zip(&found);
    if args.machine.json {
        let recordings = files.map(|(path, found)| {
            json!({
                "recording": path,
                "passed": found.passed(),
                "comparisons": found.comparisons,
            })
        });
        print_json(&json!({
            "passed": passed,
            "recordings": recordings.collect::<Vec<_>>(),
        }))?;
    } else {
        let tables = files.map(|(path, found)| table(&path.display().to_string(), found));
        print(&tables.collect::<Vec<_>>().join("\n"))?;
    }
    Ok(if passed { Ended::Done } else { Ended::Failed })
}

/// What a replay found, for people.
fn table(name: &str, found: &Verification) -> String {
    let verdict = |passed: bool| if passed { "pass" } else { "FAIL" };
    let mut lines = vec![
        format!("{name}: {}", verdict(found.passed())),
        format!(
            "  {:<12}{:>8}{:>10}{:>12}{:>12}{:>14}  worst",
            "kind", "tensors", "elements", "max abs", "max rel", "of tolerance"
        ),
    ];
    for c in &found.comparisons {
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
