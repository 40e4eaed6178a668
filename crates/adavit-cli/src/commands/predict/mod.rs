//! `adavit predict`: what a checkpoint says of pictures, and what that costs.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use adavit_model::{ImportOptions, import};
use adavit_train::data::is_called_picture;
use adavit_train::report::{Drawn, draw_kept};
use adavit_train::{Error, Found, Predicted, Prediction, Predictions, Predictor, select_device};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use walkdir::WalkDir;

use crate::Ended;
use crate::args::{PredictArgs, PredictFormat};
use crate::commands::eval::{run_of, set_threads};
use crate::output::{macs, tell};

/// The longest part of a file's name in that of its overlay, in characters.
const LONGEST_STEM: usize = 100;

pub(crate) fn run(args: &PredictArgs) -> Result<Ended> {
    set_threads(args.machine.threads)?;
    let device = select_device(args.machine.device.as_deref().unwrap_or("cpu"))?;
    run_of(&args.checkpoint)?;
    let imported = import(&args.checkpoint, &ImportOptions::default())?;
    for note in &imported.notes {
        tell(&format!("note: {note}"));
    }
    let model = imported.checkpoint.prepared(&device)?;
    drop(imported);
    let predictor = Predictor::new(model, device, args.batch_size)?;
    if let Some(folder) = &args.overlay {
        std::fs::create_dir_all(folder)
            .map_err(|error| Error::Input(format!("{}: {error}", folder.display())))?;
    }
    let mut writer = Writer::new(args, &predictor);
    let mut failed = None;
    let totals = predictor.predict(files(&args.paths), &mut |prediction| {
        writer.write(prediction).map_err(|error| {
            // The library knows no error of this program: it goes past it.
            let message = format!("{error:#}");
            failed = Some(error);
            Error::Input(message)
        })
    });
    let ended = match failed {
        Some(error) => Err(error),
        None => totals.map_err(Into::into).and_then(|totals| {
            if totals.predicted + totals.skipped == 0 {
                let message =
                    "no pictures: expected files, folders or patterns of JPEG, PNG or WebP";
                return Err(Error::Input(message.into()).into());
            }
            writer.end(&totals).map(|()| totals)
        }),
    };
    let totals = match ended {
        // The reader has seen enough, as in `adavit predict ... | head`.
        Err(error) if is_broken_pipe(&error) => return Ok(Ended::Done),
        ended => ended?,
    };
    let seconds = totals.seconds.max(1e-9);
    tell(&format!(
        "{} picture{} in {:.1} s, {:.1} images/s, mean {}; {} skipped",
        totals.predicted,
        if totals.predicted == 1 { "" } else { "s" },
        totals.seconds,
        totals.predicted as f64 / seconds,
        macs(totals.macs as f64 / totals.predicted.max(1) as f64),
        totals.skipped,
    ));
    Ok(if totals.skipped > 0 {
        Ended::Failed
    } else {
        Ended::Done
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain();
    causes.any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        let csv = cause.downcast_ref::<csv::Error>().map(csv::Error::kind);
        let io = io.or(match csv {
            Some(csv::ErrorKind::Io(io)) => Some(io),
            _ => None,
        });
        io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// Every file that the paths name: files as they are, pictures in folders, what matches a pattern,
/// and for `-` what standard input lists. A path that names nothing is told.
fn files(paths: &[PathBuf]) -> impl Iterator<Item = Found> + Send + use<> {
    let paths = paths.to_vec();
    paths.into_iter().flat_map(named)
}

fn named(path: PathBuf) -> Box<dyn Iterator<Item = Found> + Send> {
    if path == Path::new("-") {
        return Box::new(listed());
    }
    if path.is_dir() {
        return Box::new(or_nothing(in_folder(&path), path, "no pictures in it"));
    }
    let text = path.to_string_lossy().into_owned();
    if path.exists() || !text.contains(['*', '?', '[']) {
        return Box::new(std::iter::once(Ok(path)));
    }
    match glob::glob(&text) {
        Ok(found) => {
            let found = found.map(|path| {
                path.map_err(|error| (error.path().to_path_buf(), error.error().to_string()))
            });
            Box::new(or_nothing(found, path, "nothing matches"))
        }
        Err(error) => Box::new(std::iter::once(Err((path, error.to_string())))),
    }
}

/// The items, or where there are none, that.
fn or_nothing(
    items: impl Iterator<Item = Found> + Send,
    path: PathBuf,
    message: &'static str,
) -> impl Iterator<Item = Found> + Send {
    let mut items = items.peekable();
    let none = items.peek().is_none().then(|| Err((path, message.into())));
    items.chain(none)
}

/// The paths that standard input lists, one on each line.
fn listed() -> impl Iterator<Item = Found> + Send {
    let lines = std::io::BufReader::new(std::io::stdin()).split(b'\n');
    lines.filter_map(|line| match line {
        Ok(mut line) => {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            (!line.is_empty()).then(|| path_of(line))
        }
        Err(error) => Some(Err(("-".into(), error.to_string()))),
    })
}

#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere not every name is one")]
fn path_of(bytes: Vec<u8>) -> Found {
    use std::os::unix::ffi::OsStringExt;
    Ok(std::ffi::OsString::from_vec(bytes).into())
}

#[cfg(not(unix))]
fn path_of(bytes: Vec<u8>) -> Found {
    let path = String::from_utf8(bytes);
    path.map(PathBuf::from).map_err(|error| {
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        (text.into(), "no UTF-8".into())
    })
}

/// Pictures of a folder and of those in it, in the order of their names. What is called like a
/// picture and is none is told, folders too.
fn in_folder(folder: &Path) -> impl Iterator<Item = Found> + Send + use<> {
    let root = folder.to_path_buf();
    let entries = WalkDir::new(folder).follow_links(true).sort_by_file_name();
    entries.into_iter().filter_map(move |entry| match entry {
        Ok(entry) => {
            let path = entry.into_path();
            (path != root && is_called_picture(&path)).then_some(Ok(path))
        }
        Err(error) => {
            let path = error.path().map_or_else(|| root.clone(), Path::to_path_buf);
            let io = error.io_error().map(ToString::to_string);
            Some(Err((path, io.unwrap_or_else(|| error.to_string()))))
        }
    })
}

/// Writes predictions as they come.
struct Writer<'a> {
    args: &'a PredictArgs,
    predictor: &'a Predictor,
    out: std::io::BufWriter<std::io::Stdout>,
    /// How many were written.
    written: usize,
}

impl<'a> Writer<'a> {
    fn new(args: &'a PredictArgs, predictor: &'a Predictor) -> Self {
        Self {
            args,
            predictor,
            out: std::io::BufWriter::new(std::io::stdout()),
            written: 0,
        }
    }

    fn begin(&mut self) -> Result<()> {
        match self.args.format() {
            PredictFormat::Json => write!(self.out, "{{\"predictions\":[")?,
            PredictFormat::Csv => {
                let mut head = vec!["path".to_string()];
                for rank in 1..=self.args.top_k {
                    head.extend([format!("class_{rank}"), format!("probability_{rank}")]);
                }
                head.extend(["macs", "saved", "error"].map(String::from));
                self.csv_row(&head)?;
            }
            PredictFormat::Table | PredictFormat::Jsonl => {}
        }
        Ok(())
    }

    fn write(&mut self, prediction: &Prediction) -> Result<()> {
        if self.written == 0 {
            self.begin()?;
        }
        match &prediction.outcome {
            Ok(predicted) => {
                if let Some(folder) = &self.args.overlay {
                    self.overlay(folder, &prediction.path, predicted)?;
                }
            }
            Err(message) => tell(&format!("skipped {}: {message}", prediction.path.display())),
        }
        match self.args.format() {
            PredictFormat::Json => {
                let comma = if self.written > 0 { "," } else { "" };
                write!(self.out, "{comma}{}", self.value(prediction))?;
            }
            PredictFormat::Jsonl => writeln!(self.out, "{}", self.value(prediction))?,
            PredictFormat::Csv => self.csv(prediction)?,
            PredictFormat::Table => self.line(prediction)?,
        }
        self.written += 1;
        self.out.flush()?;
        Ok(())
    }

    fn end(&mut self, totals: &Predictions) -> Result<()> {
        if self.args.format() == PredictFormat::Json {
            let rest = json!({
                "images": totals.predicted,
                "skipped": totals.skipped,
                "seconds": totals.seconds,
                "images_per_s": totals.predicted as f64 / totals.seconds.max(1e-9),
                "macs": totals.macs as f64 / totals.predicted.max(1) as f64,
            });
            // The rest of the object that `begin` opened.
            let rest = rest.to_string();
            writeln!(self.out, "],{}", &rest[1..])?;
        }
        self.out.flush()?;
        Ok(())
    }

    fn class_name(&self, class: usize) -> String {
        let name = self.predictor.config().class_names.get(class);
        name.map_or_else(|| class.to_string(), String::clone)
    }

    fn value(&self, prediction: &Prediction) -> Value {
        let path = prediction.path.display().to_string();
        match &prediction.outcome {
            Ok(predicted) => {
                let top = predicted.top(self.args.top_k);
                let top = top.into_iter().map(|(class, probability)| {
                    json!({
                        "class": class,
                        "name": self.class_name(class),
                        "probability": probability,
                    })
                });
                json!({
                    "path": path,
                    "top": top.collect::<Vec<_>>(),
                    "macs": predicted.macs,
                    "saved": predicted.saved,
                })
            }
            Err(message) => json!({"path": path, "error": message}),
        }
    }

    fn csv(&mut self, prediction: &Prediction) -> Result<()> {
        let mut row = vec![prediction.path.display().to_string()];
        match &prediction.outcome {
            Ok(predicted) => {
                let mut top = predicted.top(self.args.top_k).into_iter();
                for _ in 0..self.args.top_k {
                    let (name, probability) = top.next().map_or_else(
                        || (String::new(), String::new()),
                        |(class, probability)| (self.class_name(class), probability.to_string()),
                    );
                    row.extend([name, probability]);
                }
                row.extend([
                    predicted.macs.to_string(),
                    predicted.saved.to_string(),
                    String::new(),
                ]);
            }
            Err(message) => {
                row.resize(1 + 2 * self.args.top_k + 2, String::new());
                row.push(message.clone());
            }
        }
        self.csv_row(&row)
    }

    fn csv_row(&mut self, row: &[String]) -> Result<()> {
        let mut writer = csv::Writer::from_writer(&mut self.out);
        writer.write_record(row)?;
        writer.flush()?;
        Ok(())
    }

    fn line(&mut self, prediction: &Prediction) -> Result<()> {
        let Ok(predicted) = &prediction.outcome else {
            return Ok(());
        };
        let top = predicted.top(self.args.top_k).into_iter();
        let top =
            top.map(|(class, probability)| format!("{} {probability:.3}", self.class_name(class)));
        let said = top.collect::<Vec<_>>().join(", ");
        let path = prediction.path.display();
        writeln!(
            self.out,
            "{path}: {said}; {}, {:.0} % saved",
            macs(predicted.macs as f64),
            100.0 * predicted.saved
        )?;
        Ok(())
    }

    /// Draws what was kept of a picture, numbered in the order of the files.
    fn overlay(&self, folder: &Path, path: &Path, predicted: &Predicted) -> Result<()> {
        let config = self.predictor.config();
        let drawn = Drawn {
            pixels: &predicted.pixels,
            size: config.img_size,
            grid: config.grid(),
            num_prefix_tokens: config.num_prefix_tokens(),
        };
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let stem: String = stem.chars().take(LONGEST_STEM).collect();
        let target = folder.join(format!("{:06}-{stem}.png", self.written + 1));
        let mut png = std::io::Cursor::new(Vec::new());
        draw_kept(&drawn, &predicted.blocks, &predicted.kept)
            .write_to(&mut png, image::ImageFormat::Png)
            .with_context(|| format!("drawing {}", target.display()))?;
        adavit_model::write_file(&target, png.get_ref())?;
        Ok(())
    }
}
