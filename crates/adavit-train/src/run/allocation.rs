//! The allocator of an elastic run's best model, fitted on the held-out images before the test stage.

use adavit_model::Checkpoint;

use crate::error::Result;
use crate::eval::allocation::fit::{Allocated, fit_allocator};
use crate::run::driver::Run;
use crate::run::event::Event;
use crate::run::snapshot::Snapshot;

impl Run<'_, '_> {
    /// Returns the best model, which gets its allocator first, if it is to have one.
    ///
    /// The fit depends on the model and the images alone. One that was interrupted is made again, to
    /// the same bits.
    pub(super) fn allocated_best(&mut self, snapshot: &mut Snapshot) -> Result<Checkpoint> {
        let mut best = Checkpoint::load(&self.folder.best())?;
        let config = &self.session.config;
        let wanted = config.elastic.is_some_and(|elastic| elastic.allocator);
        if !wanted || self.progress.test.allocator.is_some() {
            return Ok(best);
        }
        let images = self.session.held_out();
        match fit_allocator(&mut best, &images, Some(config.budget))? {
            Allocated::Fitted(report) => {
                for line in report.text(config.budget).lines() {
                    (self.control.report)(&Event::Note(line));
                }
                self.folder.keep(&best, &self.folder.best())?;
                self.progress.test.allocator = Some(report);
                snapshot.progress = self.stamped();
                snapshot.write(self.folder.path(), self.mark)?;
                Ok(best)
            }
            Allocated::Not(reason) => {
                let text = format!("no allocator: {reason}");
                (self.control.report)(&Event::Note(&text));
                Checkpoint::load(&self.folder.best()).map_err(Into::into)
            }
        }
    }
}
