//! What an evaluation prints: text, JSON and comma-separated values.

use std::path::PathBuf;

use adavit_train::{ClassTable, Evaluation};
use anyhow::Result;
use serde_json::{Value, json};

use crate::commands::eval::args::EvalArgs;
use crate::output::macs;

/// The result of one checkpoint.
pub(super) struct Evaluated {
    pub(super) checkpoint: PathBuf,
    pub(super) preset: String,
    pub(super) dataset: String,
    pub(super) class_names: Vec<String>,
    pub(super) exec: &'static str,
    /// The ceiling of an image's MACs, if there is one.
    pub(super) max_macs: Option<u64>,
    /// The budget that an elastic model was asked for, if it was.
    pub(super) budget: Option<f64>,
    /// Whether an allocator gives each image a budget of its own.
    pub(super) allocated: bool,
    pub(super) evaluation: Evaluation,
    pub(super) classes: ClassTable,
    /// Pictures that could not be read.
    pub(super) skipped: usize,
    /// Pictures that are not among the images.
    pub(super) left_out: usize,
}

impl Evaluated {
    pub(super) fn value(&self, args: &EvalArgs, threads: usize) -> Value {
        let found = &self.evaluation;
        let usage = &found.usage;
        let mut value = json!({
            "checkpoint": self.checkpoint,
            "preset": self.preset,
            "dataset": self.dataset,
            "images": found.images,
            "skipped": self.skipped,
            "left_out": self.left_out,
            "exec": self.exec,
            "threads": threads,
            "top1": found.top1,
            "top5": found.top5,
            "macs": found.macs,
            "macs_std": found.macs_std,
            "macs_percentiles": {
                "p10": found.macs_percentiles[0],
                "p50": found.macs_percentiles[1],
                "p90": found.macs_percentiles[2],
            },
            "macs_max": found.macs_max,
            "max_macs": self.max_macs,
            "budget": self.budget,
            "allocated": self.allocated,
            "macs_share": found.macs_share,
            "usage": {"tokens": usage.tokens, "heads": usage.heads, "blocks": usage.blocks},
            "images_per_s": found.images_per_s,
        });
        if args.per_class {
            let classes = self.class_names.iter().enumerate();
            let classes = classes.map(|(class, name)| {
                json!({
                    "class": class,
                    "name": name,
                    "images": self.classes.images(class),
                    "top1": self.classes.top1(class),
                    "macs": self.classes.mean_macs(class),
                })
            });
            value["per_class"] = classes.collect();
        }
        if args.confusion {
            value["confusion"] = json!(self.classes.confusion());
        }
        value
    }

    pub(super) fn text(&self, args: &EvalArgs) -> String {
        let without = match self.skipped + self.left_out {
            0 => String::new(),
            n => format!(", without {n} that could not be read"),
        };
        let images = format!(
            "{} ({} images{without}, {})",
            self.dataset, self.evaluation.images, self.exec
        );
        let table = self.table();
        format!(
            "{} on {images}\n{table}{}",
            self.preset,
            self.class_text(args)
        )
    }

    /// Returns what was measured, for people.
    fn table(&self) -> String {
        let found = &self.evaluation;
        let usage = &found.usage;
        let budget = self
            .budget
            .map_or_else(String::new, |budget| format!(", asked for {budget}"));
        let budget = if self.allocated {
            format!("{budget}, allocated to the images")
        } else {
            budget
        };
        let ceiling = self.max_macs.map_or_else(String::new, |most| {
            format!(", ceiling {}", macs(most as f64))
        });
        format!(
            "top-1 {:.4}   top-5 {:.4}\n\
             MACs per image {} (std {}), {:.3} of the dense model{budget}\n\
             10 % of the images below {}, half below {}, 90 % below {}, largest {}{ceiling}\n\
             kept tokens {:.3}, heads {:.3}, blocks {:.3}\n\
             {:.1} images/s",
            found.top1,
            found.top5,
            macs(found.macs),
            macs(found.macs_std),
            found.macs_share,
            macs(found.macs_percentiles[0] as f64),
            macs(found.macs_percentiles[1] as f64),
            macs(found.macs_percentiles[2] as f64),
            macs(found.macs_max as f64),
            usage.tokens,
            usage.heads,
            usage.blocks,
            found.images_per_s,
        )
    }

    /// The tables of classes that were asked for, each line after a line break.
    pub(super) fn class_text(&self, args: &EvalArgs) -> String {
        let mut lines = Vec::new();
        let width = self
            .class_names
            .iter()
            .map(|name| name.chars().count())
            .max()
            .unwrap_or(0)
            .max(5);
        if args.per_class {
            lines.push(format!(
                "{:<width$}{:>8}{:>8}{:>16}",
                "class", "images", "top-1", "MACs/image"
            ));
            for (class, name) in self.class_names.iter().enumerate() {
                let top1 = self
                    .classes
                    .top1(class)
                    .map_or_else(|| "-".into(), |top1| format!("{top1:.4}"));
                let macs = self
                    .classes
                    .mean_macs(class)
                    .map_or_else(|| "-".into(), macs);
                let images = self.classes.images(class);
                lines.push(format!("{name:<width$}{images:>8}{top1:>8}{macs:>16}"));
            }
        }
        if args.confusion {
            lines.push("rows: true class, columns: predicted class".into());
            for (name, row) in self.class_names.iter().zip(self.classes.confusion()) {
                let counts: Vec<String> = row.iter().map(|count| format!("{count:>6}")).collect();
                lines.push(format!("{name:<width$}{}", counts.concat()));
            }
        }
        lines.iter().flat_map(|line| ["\n", line]).collect()
    }
}

/// Returns one line per checkpoint.
pub(super) fn comparison(found: &[Evaluated]) -> String {
    let mut lines = vec![format!(
        "{:>8}{:>8}{:>16}{:>9}{:>12}  checkpoint",
        "top-1", "top-5", "MACs/image", "share", "images/s"
    )];
    for one in found {
        let e = &one.evaluation;
        lines.push(format!(
            "{:>8.4}{:>8.4}{:>16}{:>9.3}{:>12.1}  {}",
            e.top1,
            e.top5,
            macs(e.macs),
            e.macs_share,
            e.images_per_s,
            one.checkpoint.display()
        ));
    }
    lines.join("\n")
}

/// Returns the same as comma-separated values.
pub(super) fn csv_table(found: &[Evaluated]) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([
        "checkpoint",
        "preset",
        "dataset",
        "images",
        "exec",
        "top1",
        "top5",
        "macs",
        "macs_std",
        "macs_max",
        "macs_share",
        "tokens",
        "heads",
        "blocks",
        "images_per_s",
    ])?;
    for one in found {
        let e = &one.evaluation;
        let mut row = vec![
            one.checkpoint.display().to_string(),
            one.preset.clone(),
            one.dataset.clone(),
            e.images.to_string(),
            one.exec.to_string(),
        ];
        let numbers = [
            e.top1,
            e.top5,
            e.macs,
            e.macs_std,
            e.macs_max as f64,
            e.macs_share,
            e.usage.tokens,
            e.usage.heads,
            e.usage.blocks,
            e.images_per_s,
        ];
        row.extend(numbers.map(|number| number.to_string()));
        writer.write_record(row)?;
    }
    Ok(writer
        .into_inner()
        .map_err(csv::IntoInnerError::into_error)?)
}
