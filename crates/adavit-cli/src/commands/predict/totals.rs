//! What all predictions add up to.

use adavit_model::Prediction;

use crate::output::macs;

/// Sums over the pictures of a command.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Totals {
    /// Pictures that were classified.
    pub(super) predicted: usize,
    /// Files that were skipped.
    pub(super) skipped: usize,
    /// Files that are pictures of formats that are not read.
    pub(super) unread: usize,
    /// Sum of the MACs.
    pub(super) macs: u64,
    /// From the first file to the last.
    pub(super) seconds: f64,
}

impl Totals {
    pub(super) fn add(&mut self, prediction: &Prediction) {
        match &prediction.outcome {
            Ok(outcome) => {
                self.predicted += 1;
                self.macs += outcome.macs;
            }
            Err(_) => self.skipped += 1,
        }
    }

    /// The line that ends a command.
    pub(super) fn line(&self) -> String {
        format!(
            "{} picture{} in {:.1} s, {:.1} images/s, mean {}; {} skipped",
            self.predicted,
            if self.predicted == 1 { "" } else { "s" },
            self.seconds,
            self.predicted as f64 / self.seconds.max(1e-9),
            macs(self.macs as f64 / self.predicted.max(1) as f64),
            self.skipped,
        )
    }
}
