//! Charts of the training: losses, accuracy, usage and learning rates over the epochs.

use adavit_train::{MetricsRow, Stage, TrainConfig};

use crate::report::calibration::calibrated_from;
use crate::report::chart::axis::Values;
use crate::report::chart::figure::{Chart, Figure, Form, Series};
use crate::report::chart::frame::{Labels, Note};
use crate::report::html::Page;

/// The finished epochs of a run, by stage.
struct Epochs<'a> {
    config: &'a TrainConfig,
    dense: Vec<&'a MetricsRow>,
    adaptive: Vec<&'a MetricsRow>,
}

/// The optimizer steps of a whole epoch of the last stage that has finished one.
pub(super) fn steps_per_epoch(rows: &[MetricsRow]) -> Option<u64> {
    let mut latest = rows.iter().rev();
    latest.find(|row| row.epoch == 1).map(|row| row.steps)
}

/// Writes how the training went.
pub(super) fn training(page: &mut Page, config: &TrainConfig, rows: &[MetricsRow]) {
    if rows.is_empty() {
        return;
    }
    let of = |stage| rows.iter().filter(|row| row.stage == stage).collect();
    let epochs = Epochs {
        config,
        dense: of(Stage::Dense),
        adaptive: of(Stage::Adaptive),
    };
    if !epochs.dense.is_empty() {
        page.heading("Training of the dense model");
        page.charts(&epochs.dense_charts());
    }
    let calibration = steps_per_epoch(rows).and_then(|steps| calibrated_from(config, steps));
    if !epochs.adaptive.is_empty() {
        page.heading("Training of the adaptive model");
        if let Some(epoch) = calibration {
            page.paragraph(&format!(
                "Calibration begins with epoch {epoch}: from there on the thresholds of each epoch's \
                 model are set so that its mean MACs on the held-out images meet the budget. Models of \
                 earlier epochs cannot become the best one. The dashed line marks that epoch."
            ));
        }
        page.charts(&epochs.adaptive_charts(calibration));
    }
    page.heading("Learning rate");
    page.charts(&[epochs.learning_rates()]);
}

/// A value of each epoch of a stage.
fn series(rows: &[&MetricsRow], name: &str, value: fn(&MetricsRow) -> f64) -> Series {
    let points = rows.iter().map(|row| (row.epoch as f64, value(row)));
    Series {
        name: name.into(),
        points: points.collect(),
        form: Form::Line,
    }
}

fn over_epochs(series: &[Series], y: &'static str, note: Option<Note>) -> Figure {
    let labels = Labels { x: "epoch", y };
    let chart = Chart {
        series,
        labels,
        x: Values::Whole,
        note,
    };
    chart.figure()
}

impl Epochs<'_> {
    fn dense_charts(&self) -> Vec<(Figure, String)> {
        let rows = &self.dense;
        let loss = [series(rows, "dense model, training images", |row| row.loss)];
        let accuracy = [
            series(rows, "dense model, training images", |row| row.train_top1),
            series(rows, "dense model, held-out images", |row| {
                row.held_out_top1
            }),
        ];
        vec![
            (
                over_epochs(&loss, "loss", None),
                "Loss of the dense model".into(),
            ),
            (
                over_epochs(&accuracy, "top-1", None),
                "Accuracy of the dense model".into(),
            ),
        ]
    }

    fn adaptive_charts(&self, calibration: Option<u64>) -> Vec<(Figure, String)> {
        let rows = &self.adaptive;
        let note = calibration.map(|epoch| Note {
            at: epoch as f64,
            text: "calibration",
        });
        let losses = [
            series(rows, "sum", |row| row.loss),
            series(rows, "task", |row| row.task_loss),
            series(rows, "distillation", |row| row.distillation_loss),
            series(rows, "budget", |row| row.usage_loss),
        ];
        let accuracy = [
            series(rows, "adaptive model, training images", |row| {
                row.train_top1
            }),
            series(rows, "adaptive model, held-out images", |row| {
                row.held_out_top1
            }),
        ];
        vec![
            (
                over_epochs(&losses, "loss", None),
                "Losses of the adaptive model, training images".into(),
            ),
            (
                over_epochs(&accuracy, "top-1", note),
                "Accuracy of the adaptive model".into(),
            ),
            (
                over_epochs(&self.usage(), "share of the dense model's", note),
                "What the adaptive model keeps, held-out images".into(),
            ),
        ]
    }

    /// What the adaptive model keeps, and the budget of its MACs.
    fn usage(&self) -> Vec<Series> {
        let rows = &self.adaptive;
        let mut all = vec![
            series(rows, "MACs", |row| row.held_out_macs_share),
            series(rows, "tokens", |row| row.tokens),
            series(rows, "heads", |row| row.heads),
            series(rows, "blocks", |row| row.blocks),
        ];
        if self.config.targets.is_none() {
            let points = rows.iter();
            let points = points.map(|row| (row.epoch as f64, self.config.budget));
            all.push(Series {
                name: "budget of the MACs".into(),
                points: points.collect(),
                form: Form::Line,
            });
        }
        all
    }

    /// The learning rates of both stages, one after the other.
    fn learning_rates(&self) -> (Figure, String) {
        let before = self.dense.last().map_or(0, |row| row.epoch) as f64;
        let later = |name: &str, factor: f64| Series {
            name: name.into(),
            points: self
                .adaptive
                .iter()
                .map(|row| (before + row.epoch as f64, row.lr * factor))
                .collect(),
            form: Form::Line,
        };
        let optimizer = &self.config.adaptive.optimizer;
        let mut all = Vec::new();
        if !self.dense.is_empty() {
            all.push(series(&self.dense, "dense model", |row| row.lr));
        }
        if !self.adaptive.is_empty() {
            all.push(later("adaptive model", 1.0));
            if optimizer.lr > 0.0 {
                let factor = optimizer.decision_lr / optimizer.lr;
                all.push(later("its decision networks", factor));
            }
        }
        let both = !self.dense.is_empty() && !self.adaptive.is_empty();
        let note = both.then_some(Note {
            at: before + 0.5,
            text: "adaptive stage",
        });
        (
            over_epochs(&all, "learning rate", note),
            "Learning rate of each epoch's last step, over both stages".into(),
        )
    }
}
