//! `adavit predict`: what a checkpoint says of pictures, and what that costs.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use adavit_data::{find_pictures, read_ahead};
use adavit_experiment::report::{Overlay, draw_overlay};
use adavit_model::{
    ClassProbability, ImportOptions, Prediction, PredictionOutcome, Predictor, import,
};
use adavit_train::Error;
use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::Ended;
use crate::args::{PredictArgs, PredictFormat};
use crate::device::select_device;
use crate::eval::{run_of, set_threads};
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
    let totals = match predict(args, &predictor) {
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

/// What the predictions came to.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Totals {
    /// Pictures that the model was asked about.
    predicted: usize,
    /// Files that were skipped.
    skipped: usize,
    /// Sum of the MACs.
    macs: u64,
    /// From the first file to the last.
    seconds: f64,
}

/// Predicts for every picture, and writes each prediction as it comes.
fn predict(args: &PredictArgs, predictor: &Predictor) -> Result<Totals> {
    let start = Instant::now();
    let files = find_pictures(&args.paths);
    let pictures = read_ahead(files, predictor.config().input_config(), args.batch_size);
    let mut writer = Writer::new(args, predictor);
    let mut totals = Totals::default();
    for prediction in predictor.predict(pictures) {
        let prediction = prediction?;
        match &prediction.outcome {
            Ok(outcome) => {
                totals.predicted += 1;
                totals.macs += outcome.macs;
            }
            Err(_) => totals.skipped += 1,
        }
        writer.write(&prediction)?;
    }
    if totals.predicted + totals.skipped == 0 {
        let message = "no pictures: expected files, folders or patterns of JPEG, PNG or WebP";
        return Err(Error::Input(message.into()).into());
    }
    totals.seconds = start.elapsed().as_secs_f64();
    writer.end(&totals)?;
    Ok(totals)
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

    fn end(&mut self, totals: &Totals) -> Result<()> {
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
                let top = top
                    .into_iter()
                    .map(|ClassProbability { class, probability }| {
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
                        |top| (self.class_name(top.class), top.probability.to_string()),
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
        let top = top.map(|top| format!("{} {:.3}", self.class_name(top.class), top.probability));
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
    fn overlay(&self, folder: &Path, path: &Path, predicted: &PredictionOutcome) -> Result<()> {
        let config = self.predictor.config();
        let top = predicted.top(1);
        let caption = top.iter().map(|top| {
            let name = self.class_name(top.class);
            format!("predicted: {name} {:.2}", top.probability)
        });
        let caption: Vec<String> = caption.collect();
        let overlay = Overlay {
            pixels: &predicted.pixels,
            size: config.img_size,
            grid: config.grid(),
            num_prefix_tokens: config.num_prefix_tokens(),
            blocks: &predicted.blocks,
            kept: &predicted.kept,
            caption: &caption,
        };
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let stem: String = stem.chars().take(LONGEST_STEM).collect();
        let target = folder.join(format!("{:06}-{stem}.png", self.written + 1));
        let mut png = std::io::Cursor::new(Vec::new());
        draw_overlay(&overlay)
            .write_to(&mut png, image::ImageFormat::Png)
            .with_context(|| format!("drawing {}", target.display()))?;
        adavit_model::write_file(&target, png.get_ref())?;
        Ok(())
    }
}
