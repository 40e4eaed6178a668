//! Gives the program the commit that it is built from, for `summary.json`.

use std::path::Path;
use std::process::Command;

fn main() {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_string())
    };
    let commit = git(&[
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
        "--exclude",
        "*",
    ])
    .filter(|commit| !commit.is_empty());
    println!(
        "cargo::rustc-env=ADAVIT_COMMIT={}",
        commit.as_deref().unwrap_or("unknown")
    );
    // Every commit and checkout adds a line to this log.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"])
        && Path::new(&log).is_file()
    {
        println!("cargo::rerun-if-changed={log}");
        // Sources that are changed after a commit are dirty.
        for source in ["..", "../../Cargo.toml", "../../Cargo.lock"] {
            println!("cargo::rerun-if-changed={source}");
        }
    }
    println!("cargo::rerun-if-changed=build.rs");
}
