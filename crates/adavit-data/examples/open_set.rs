//! Opens labelled pictures of any format, and says what is there and how fast it is read.
//!
//! ```text
//! cargo run --release -p adavit-data --features parquet,tar --example open_set -- PATH [CACHE]
//! ```
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use adavit_data::{OpenOptions, PictureSet, Result, open};

/// Pictures that are read to measure the speed.
const READ: usize = 2_000;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let Some(path) = args.next() else {
        eprintln!("usage: open_set PATH [CACHE]");
        return ExitCode::from(2);
    };
    match run(&path, args.next()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("open_set: {error}");
            ExitCode::from(if error.is_input_error() { 2 } else { 3 })
        }
    }
}

fn run(path: &Path, cache: Option<PathBuf>) -> Result<()> {
    let options = OpenOptions {
        cache,
        ..OpenOptions::default()
    };
    let start = Instant::now();
    let found = open(path, &options)?;
    println!("{} in {:.2} s", found.format, start.elapsed().as_secs_f64());
    println!("{}", found.classes);
    for set in found.parts() {
        println!(
            "{}: {} pictures, {:.0} read per second",
            set.name(),
            set.len(),
            speed(set)?
        );
    }
    if !found.left_out.is_empty() {
        println!("left out:\n{}", found.left_out);
    }
    Ok(())
}

/// Pictures per second, read but not decoded, spread over the whole set.
fn speed(set: &PictureSet) -> Result<f64> {
    let start = Instant::now();
    let n = READ.min(set.len());
    for i in 0..n {
        // A prime: neighbours in time are far apart in the set.
        set.bytes(i * 7919 % set.len())?;
    }
    Ok(n as f64 / start.elapsed().as_secs_f64())
}
