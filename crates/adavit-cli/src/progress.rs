//! What a training shows while it goes: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use adavit_train::{Event, MetricsRow, Stage};
use indicatif::{ProgressBar, ProgressStyle};

use crate::output::{macs, tell};

/// Seconds between two plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Tells events on standard error.
#[derive(Debug)]
pub(crate) struct Reporter {
    terminal: bool,
    bar: Option<ProgressBar>,
    last_line: Instant,
}

impl Reporter {
    pub(crate) fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            bar: None,
            last_line: Instant::now(),
        }
    }

    pub(crate) fn event(&mut self, event: &Event) {
        match event {
            Event::Warning(text) => self.line(&format!("warning: {text}")),
            Event::Note(text) => self.line(&format!("note: {text}")),
            Event::Resumed { stage, epoch, step } => self.line(&format!(
                "going on: {} stage, {epoch} epochs and {step} steps done",
                stage.name()
            )),
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
            Event::Step { step, .. } => self.step(event, *step),
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

    /// Takes the bar away.
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

    fn step(&mut self, event: &Event, done: u64) {
        let text = step_text(event);
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(text);
        } else if self.last_line.elapsed() >= LINE_INTERVAL {
            self.line(&text);
        }
    }

    fn line(&mut self, text: &str) {
        self.last_line = Instant::now();
        match &self.bar {
            Some(bar) => bar.suspend(|| tell(text)),
            None => tell(text),
        }
    }
}

fn step_text(event: &Event) -> String {
    let Event::Step {
        stage,
        epoch,
        epochs,
        step,
        steps,
        loss,
        lr,
        images_per_s,
    } = event
    else {
        return String::new();
    };
    format!(
        "{} {epoch}/{epochs} [{step}/{steps}]  loss {loss:.4}  lr {lr:.2e}  {images_per_s:.0} images/s",
        stage.name()
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
