//! Predictions as text, JSON, comma-separated values and overlays.

use std::io::Write;
use std::path::Path;

use adavit_experiment::report::{Overlay, draw_overlay};
use adavit_model::{ClassProbability, Prediction, PredictionOutcome, Predictor};
use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::commands::predict::args::{Format, PredictArgs};
use crate::commands::predict::totals::Totals;
use crate::output::{macs, message};

/// The longest part of a file's name in that of its overlay, in characters.
const LONGEST_STEM: usize = 100;

/// Writes predictions as they come.
pub(super) struct Writer<'a> {
    args: &'a PredictArgs,
    predictor: &'a Predictor,
    out: std::io::BufWriter<std::io::Stdout>,
    /// How many predictions were written.
    written: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn new(args: &'a PredictArgs, predictor: &'a Predictor) -> Self {
        Self {
            args,
            predictor,
            out: std::io::BufWriter::new(std::io::stdout()),
            written: 0,
        }
    }

    fn begin(&mut self) -> Result<()> {
        match self.args.format() {
            Format::Json => write!(self.out, "{{\"predictions\":[")?,
            Format::Csv => {
                let mut head = vec!["path".to_string()];
                for rank in 1..=self.args.top_k {
                    head.extend([format!("class_{rank}"), format!("probability_{rank}")]);
                }
                head.extend(["macs", "saved", "error"].map(String::from));
                self.csv_row(&head)?;
            }
            Format::Table | Format::Jsonl => {}
        }
        Ok(())
    }

    pub(super) fn write(&mut self, prediction: &Prediction) -> Result<()> {
        if self.written == 0 {
            self.begin()?;
        }
        match &prediction.outcome {
            Ok(predicted) => {
                if let Some(folder) = &self.args.overlay {
                    self.overlay(folder, &prediction.path, predicted)?;
                }
            }
            Err(reason) => message(&format!("skipped {}: {reason}", prediction.path.display())),
        }
        match self.args.format() {
            Format::Json => {
                let comma = if self.written > 0 { "," } else { "" };
                write!(self.out, "{comma}{}", self.value(prediction))?;
            }
            Format::Jsonl => writeln!(self.out, "{}", self.value(prediction))?,
            Format::Csv => self.csv(prediction)?,
            Format::Table => self.line(prediction)?,
        }
        self.written += 1;
        self.out.flush()?;
        Ok(())
    }

    pub(super) fn end(&mut self, totals: &Totals) -> Result<()> {
        if self.args.format() == Format::Json {
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
        let classes = top.collect::<Vec<_>>().join(", ");
        let path = prediction.path.display();
        writeln!(
            self.out,
            "{path}: {classes}; {}, {:.0} % saved",
            macs(predicted.macs as f64),
            100.0 * predicted.saved
        )?;
        Ok(())
    }

    /// Draws what was kept of a picture; the files are numbered in order.
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
