//! How a run is stopped from outside: by a signal or by a time limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::exit::{Exit, bad_input};
use crate::output::message;

/// When to stop.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct StopArgs {
    /// Save and stop after H hours, as Ctrl-C does [default: no limit]
    #[arg(
        long,
        value_name = "H",
        allow_negative_numbers = true,
        help_heading = "Run"
    )]
    max_hours: Option<f64>,
}

impl StopArgs {
    /// Returns a flag that Ctrl-C, a termination signal and the time limit raise. A second signal ends
    /// the process at once.
    pub(crate) fn listen(&self) -> Result<Arc<AtomicBool>> {
        let limit = self.max_hours.map(limit).transpose()?;
        let stop = Arc::new(AtomicBool::new(false));
        listen_for_signals(Arc::clone(&stop))?;
        if let Some(limit) = limit {
            let raised = Arc::clone(&stop);
            std::thread::spawn(move || {
                std::thread::sleep(limit);
                message("time limit reached: stopping after this step");
                raised.store(true, Ordering::Relaxed);
            });
        }
        Ok(stop)
    }
}

fn limit(hours: f64) -> Result<Duration> {
    let seconds = hours * 3600.0;
    if !(seconds > 0.0 && seconds < 1e9) {
        return Err(bad_input(format!(
            "max-hours: expected a number above 0 and below 277777, found {hours}"
        )));
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn listen_for_signals(stop: Arc<AtomicBool>) -> Result<()> {
    // Not the flag itself: a time limit raises that too.
    let asked = AtomicBool::new(false);
    ctrlc::set_handler(move || {
        stop.store(true, Ordering::Relaxed);
        if asked.swap(true, Ordering::Relaxed) {
            #[expect(clippy::exit, reason = "the user asked twice")]
            std::process::exit(i32::from(u8::from(Exit::Interrupted)));
        }
        message("stopping after this step; press Ctrl-C again to stop at once without saving");
    })
    .context("listening for Ctrl-C")
}
