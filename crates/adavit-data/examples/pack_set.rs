//! Packs labelled pictures of any format as tar or parquet shards.
//!
//! ```text
//! cargo run --release -p adavit-data --features parquet,tar --example pack_set -- PATH OUT_DIR tar|parquet [SHARD_SIZE]
//! ```
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal"
)]

use std::path::Path;
use std::process::ExitCode;

use adavit_data::{Error, OpenOptions, Result, open, write_parquet, write_tar};

const SHARD_SIZE: usize = 10_000;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pack_set: {error}");
            ExitCode::from(if error.is_input_error() { 2 } else { 3 })
        }
    }
}

fn run() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (path, out, format, size) = match &args[..] {
        [path, out, format] => (path, out, format, SHARD_SIZE),
        [path, out, format, size] => {
            let size = size.parse().map_err(|_| {
                Error::Setting(format!(
                    "the size of a shard must be a whole number, found {size:?}"
                ))
            })?;
            (path, out, format, size)
        }
        _ => {
            let usage = "usage: pack_set PATH OUT_DIR tar|parquet [SHARD_SIZE]";
            return Err(Error::Setting(usage.into()));
        }
    };
    let found = open(Path::new(path), &OpenOptions::default())?;
    let parts = [
        ("train", &found.train),
        ("val", &found.val),
        ("test", &found.test),
        ("data", &found.whole),
    ];
    for (part, set) in parts {
        let Some(set) = set else {
            continue;
        };
        let files = match format.as_str() {
            "tar" => write_tar(Path::new(out), part, set, size)?,
            "parquet" => write_parquet(Path::new(out), part, set, size)?,
            other => {
                let message = format!("expected tar or parquet, found {other:?}");
                return Err(Error::Setting(message));
            }
        };
        println!("{part}: {} pictures in {} shards", set.len(), files.len());
    }
    println!("{}", found.classes);
    Ok(())
}
