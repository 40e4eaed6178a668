//! Packs a class-balanced subset of a folder of IDX files.
//!
//! ```text
//! cargo run --release -p adavit-data --example pack_subset -- SRC_DIR OUT_DIR [SEED]
//! ```
//!
//! All indices are shuffled by the seed (default 0), the first 1,000 training and 200 test images
//! of each class are taken and written in ascending order of their original index.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal"
)]

use std::path::Path;
use std::process::ExitCode;

use adavit_data::{Dataset, Error, Part, Result, class_balanced, load, write_part};

const TRAIN_PER_CLASS: usize = 1_000;
const TEST_PER_CLASS: usize = 200;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pack_subset: {error}");
            ExitCode::from(if error.is_input_error() { 2 } else { 3 })
        }
    }
}

fn run() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (source, out, seed) = match &args[..] {
        [source, out] => (source, Path::new(out), 0),
        [source, out, seed] => {
            let parsed = seed.parse().map_err(|_| {
                Error::Setting(format!("the seed must be a whole number, found {seed:?}"))
            })?;
            (source, Path::new(out), parsed)
        }
        _ => {
            return Err(Error::Setting(
                "usage: pack_subset SRC_DIR OUT_DIR [SEED]".to_owned(),
            ));
        }
    };
    let splits = load(source, None)?;
    std::fs::create_dir_all(out).map_err(|source| Error::Io {
        action: "creating",
        path: out.to_path_buf(),
        source,
    })?;
    let pack = |part: Part, dataset: &Dataset, per_class: usize| -> Result<()> {
        let indices = class_balanced(dataset.labels(), per_class, seed)?;
        write_part(out, part, dataset, &indices)?;
        println!("{part:?}: {} of {} images", indices.len(), dataset.len());
        Ok(())
    };
    pack(Part::Train, &splits.train, TRAIN_PER_CLASS)?;
    pack(Part::Test, &splits.test, TEST_PER_CLASS)
}
