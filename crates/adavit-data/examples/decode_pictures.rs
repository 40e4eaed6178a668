//! Decodes the JPEG files of a folder and writes the time of each picture and the most memory taken.
//!
//! ```text
//! cargo run --release -p adavit-data --example decode_pictures -- FOLDER [SIDE] [fast]
//! ```
//!
//! With SIDE, pictures may be decoded at a part of their size whose sides are at least SIDE: those
//! above 25 megapixels, or with `fast` all of them.

#![expect(clippy::print_stdout, reason = "an example writes what it finds")]

use std::path::{Path, PathBuf};
use std::time::Instant;

use adavit_data::{DecodeOptions, Picture, find_pictures};

/// Each file is decoded so often; the fastest counts.
const REPEATS: usize = 3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = arguments.first().ok_or("expected a folder of pictures")?;
    let side = arguments.get(1).map(|side| side.parse::<usize>());
    let side = side.transpose()?;
    let options = DecodeOptions {
        channels: 3,
        at_least: side.map(|side| (side, side)),
        fast_decode: arguments.get(2).is_some_and(|word| word == "fast"),
    };
    let (mut pictures, mut ms) = (0, 0.0);
    for file in find_pictures(&[PathBuf::from(folder)]) {
        let path = file.map_err(|error| error.message)?;
        let bytes = std::fs::read(&path)?;
        let mut fastest = f64::INFINITY;
        let mut size = (0, 0);
        for _ in 0..REPEATS {
            let start = Instant::now();
            size = Picture::decode_with(&bytes, &options)?.size();
            fastest = fastest.min(start.elapsed().as_secs_f64() * 1e3);
        }
        if pictures < 4 {
            println!("{}: {}x{}, {fastest:.2} ms", path.display(), size.1, size.0);
        }
        pictures += 1;
        ms += fastest;
    }
    println!(
        "{pictures} pictures, {:.2} ms each",
        ms / f64::from(pictures.max(1))
    );
    if let Some(peak) = peak_memory() {
        println!("most memory: {peak}");
    }
    Ok(())
}

/// What Linux reports as the largest resident set.
fn peak_memory() -> Option<String> {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    Some(line.trim_start_matches("VmHWM:").trim().to_string())
}
