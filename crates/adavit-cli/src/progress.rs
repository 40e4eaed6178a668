//! What a training shows while it runs: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use adavit_train::{Event, MetricsRow, Stage, StepReport};
use indicatif::{ProgressBar, ProgressStyle};

use crate::output::{macs, message};

/// Seconds between two plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// How progress is shown.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ProgressArgs {
    /// Steps between two lines of progress [default: one line every ten seconds, none on a terminal]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Run")]
    log_interval: Option<u64>,
}

/// Reports events on standard error.
#[derive(Debug)]
pub(crate) struct Reporter {
    terminal: bool,
    bar: Option<ProgressBar>,
    last_line: Instant,
    /// Steps between two lines; without it a line every [`LINE_INTERVAL`], and on a terminal none.
    log_interval: Option<u64>,
}

impl Reporter {
    pub(crate) fn new(args: &ProgressArgs) -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            bar: None,
            last_line: Instant::now(),
            log_interval: args.log_interval,
        }
    }

    pub(crate) fn event(&mut self, event: &Event) {
        match event {
            Event::Warning(text) => self.line(&format!("warning: {text}")),
            Event::Note(text) => self.line(&format!("note: {text}")),
            Event::Started { folder } => self.line(&format!("run folder: {}", folder.display())),
            Event::Resumed { stage, epoch, step } => {
                self.line(&resumed_line(*stage, *epoch, *step));
            }
            Event::StageStarted {
                stage,
                epochs,
                steps,
                parameters,
            } => {
                self.line(&format!(
                    "{} stage: {epochs} epochs, {steps} steps, {parameters} parameters",
                    stage.name()
                ));
                self.start_bar(*steps);
            }
            Event::Step(report) => self.step(report),
            Event::EpochFinished(row) => self.line(&epoch_line(row)),
            Event::Tested { what, evaluation } => self.line(&format!(
                "test: {what} top-1 {:.4}, {} per image ({:.3}), {:.0} images/s",
                evaluation.top1,
                macs(evaluation.macs),
                evaluation.macs_share,
                evaluation.images_per_s
            )),
        }
    }

    /// Removes the bar.
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn start_bar(&mut self, steps: u64) {
        self.finish();
        if !self.terminal {
            return;
        }
        let style = ProgressStyle::with_template("{wide_bar} {msg}  {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        self.bar = Some(ProgressBar::new(steps).with_style(style));
    }

    fn step(&mut self, report: &StepReport) {
        let due = match self.log_interval {
            Some(steps) => report.step.is_multiple_of(steps),
            None => self.bar.is_none() && self.last_line.elapsed() >= LINE_INTERVAL,
        };
        if due {
            self.line(&step_line(report));
        }
        if let Some(bar) = &self.bar {
            bar.set_position(report.step);
            bar.set_message(step_text(report));
        }
    }

    fn line(&mut self, text: &str) {
        self.last_line = Instant::now();
        match &self.bar {
            Some(bar) => bar.suspend(|| message(text)),
            None => message(text),
        }
    }
}

/// Where a run resumes.
fn resumed_line(stage: Stage, epoch: u64, step: u64) -> String {
    match stage {
        Stage::Dense | Stage::Adaptive => format!(
            "resuming in the {} stage, after {epoch} epochs and {step} steps",
            stage.name()
        ),
        Stage::Test => "resuming after training, in the measurements on test images".into(),
        Stage::Done => "this run is finished; these are its results".into(),
    }
}

/// The text beside the bar.
fn step_text(report: &StepReport) -> String {
    format!(
        "{} {}/{}  loss {:.4}  lr {:.2e}  {:.0} images/s",
        report.stage.name(),
        report.epoch,
        report.epochs,
        report.loss(),
        report.lr,
        report.images_per_s
    )
}

/// A line of a log.
fn step_line(report: &StepReport) -> String {
    let parts = match report.stage {
        Stage::Adaptive => format!(
            " (task {:.4}, distillation {:.4}, usage {:.4})",
            report.task_loss, report.distillation_loss, report.usage_loss
        ),
        _ => String::new(),
    };
    let left = report.seconds_left as u64;
    format!(
        "{} {}/{} [{}/{} {:.0}%]  loss {:.4}{parts}  lr {:.2e}  {:.0} images/s  data {:.0}%  {}:{:02} left",
        report.stage.name(),
        report.epoch,
        report.epochs,
        report.step,
        report.steps,
        100.0 * report.step as f64 / report.steps.max(1) as f64,
        report.loss(),
        report.lr,
        report.images_per_s,
        100.0 * report.data_wait,
        left / 60,
        left % 60,
    )
}

fn epoch_line(row: &MetricsRow) -> String {
    let mut text = format!(
        "{} epoch {}: loss {:.4}, train top-1 {:.4}, held-out top-1 {:.4}",
        row.stage.name(),
        row.epoch,
        row.loss,
        row.train_top1,
        row.held_out_top1
    );
    if row.stage == Stage::Adaptive {
        let kept = format!(
            ", MACs {:.3} (tokens {:.2}, heads {:.2}, blocks {:.2})",
            row.held_out_macs_share, row.tokens, row.heads, row.blocks
        );
        text.push_str(&kept);
    }
    let best = if row.best { ", best" } else { "" };
    format!("{text}, {:.0} images/s{best}", row.images_per_s)
}
