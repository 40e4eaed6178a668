//! `adavit data`: what a data set is, a sheet of its pictures, and the same packed in another format.

mod pack;
mod sheet;
mod text;

use std::path::{Path, PathBuf};

use adavit_data::{FASHION_SCENES, Faulty, Found, OpenOptions, open, open_scenes, user_cache};
use adavit_kernels::in_pool;
use anyhow::Result;
use serde_json::json;

use crate::commands::data::pack::{Format, pack};
use crate::commands::data::sheet::write_sheet;
use crate::commands::data::text::text;
use crate::exit::{Exit, bad_input};
use crate::machine::set_threads;
use crate::output::{OutputArgs, message, print, print_json};

#[derive(Debug, clap::Args)]
pub(crate) struct DataArgs {
    /// Folders of pictures, a list (CSV, JSON lines), parquet or tar shards, CIFAR's or IDX files; or
    /// fashion-scenes
    #[arg(value_name = "PATH")]
    path: PathBuf,

    /// Folder with the garments of fashion-scenes: the repository, or the IDX files of Fashion-MNIST
    /// [default: the repository around the current folder]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// File that gives each folder or label its class: lines of FOLDER,CLASS or a JSON object
    /// [default: by names, or by numbers]
    #[arg(long, value_name = "FILE")]
    class_map: Option<PathBuf>,

    /// Write a PNG with some pictures of each class
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,

    /// Pack the data into the folder OUT, in this format
    #[arg(long, value_name = "FORMAT", value_enum, requires = "out")]
    to: Option<Format>,

    /// Folder that is packed into; it must be new or empty
    #[arg(value_name = "OUT", requires = "to")]
    out: Option<PathBuf>,

    /// Most pictures of a packed shard
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    shard_size: usize,

    /// Number of threads [default: all processors]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: &DataArgs) -> Result<Exit> {
    set_threads(args.threads)?;
    if let Some(sheet) = &args.sheet {
        adavit_model::check_writable(sheet)?;
    }
    let found = found(args)?;
    if let (Some(format), Some(out)) = (args.to, &args.out) {
        return packed(args, &found, format, out);
    }
    let survey = in_pool(|| found.survey());
    if let Some(sheet) = &args.sheet {
        write_sheet(sheet, &found)?;
    }
    if args.output.json {
        let left_out = found.left_out.iter();
        let left_out: Vec<_> = left_out
            .map(|(reason, found)| {
                json!({"reason": reason, "count": found.count, "examples": found.examples})
            })
            .collect();
        print_json(&json!({
            "path": args.path,
            "format": found.format,
            "classes": found.classes,
            "class_names": found.class_names,
            "parts": survey.parts,
            "duplicates": survey.duplicates,
            "left_out": left_out,
        }))?;
    } else {
        print(&text(&args.path, &found, &survey))?;
    }
    let broken: usize = survey.parts.iter().map(|part| part.broken).sum();
    Ok(if broken + found.left_out.pictures() > 0 {
        Exit::CheckFailed
    } else {
        Exit::Done
    })
}

/// Opens what the path holds, or the scenes that it names.
fn found(args: &DataArgs) -> Result<Found> {
    let scenes = args.path == Path::new(FASHION_SCENES);
    for (option, given, used) in [
        ("--data-dir", args.data_dir.is_some(), scenes),
        ("--class-map", args.class_map.is_some(), !scenes),
    ] {
        if given && !used {
            return Err(bad_input(format!(
                "{option}: has no use for {}; leave it out",
                args.path.display()
            )));
        }
    }
    if scenes {
        return Ok(open_scenes(args.data_dir.as_deref())?);
    }
    let options = OpenOptions {
        class_map: args.class_map.clone(),
        faulty: Faulty::LeaveOut,
        cache: user_cache(),
        ..OpenOptions::default()
    };
    Ok(open(&args.path, &options)?)
}

/// Packs the data, and reports what was left out.
fn packed(args: &DataArgs, found: &Found, format: Format, out: &Path) -> Result<Exit> {
    if out
        .read_dir()
        .is_ok_and(|mut entries| entries.next().is_some())
    {
        return Err(bad_input(format!(
            "{}: the folder is not empty; choose another one",
            out.display()
        )));
    }
    if args.shard_size == 0 {
        return Err(bad_input("--shard-size: expected at least 1, found 0"));
    }
    let written = pack(found, format, out, args.shard_size)?;
    if !found.left_out.is_empty() {
        message(&format!(
            "left out: {}",
            found.left_out.to_string().replace('\n', "; ")
        ));
    }
    let pictures: usize = found.parts().map(adavit_data::PictureSet::len).sum();
    if args.output.json {
        print_json(&json!({"out": out, "pictures": pictures, "files": written}))?;
    } else {
        print(&format!(
            "{}: {pictures} pictures, {}",
            out.display(),
            found.classes
        ))?;
    }
    Ok(if found.left_out.pictures() > 0 {
        Exit::CheckFailed
    } else {
        Exit::Done
    })
}
