//! Speeds of a sweep's models, measured again without a training.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use adavit_data::all_indices;
use adavit_model::Checkpoint;
use adavit_train::{Event, Session};

use crate::error::Result;
use crate::sweep::config::Rival;
use crate::sweep::driver::Sweep;
use crate::sweep::job::Job;
use crate::sweep::point::Speed;
use crate::sweep::speed::measure;
use crate::sweep::write;

impl Sweep<'_, '_> {
    /// Measures the speeds of the points that are there; false if it was stopped.
    pub(super) fn time_again(&mut self) -> Result<bool> {
        for index in 0..self.jobs.len() {
            let Some(mut point) = self.points[index].clone() else {
                continue;
            };
            if self.control.stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            if let Some(speeds) = self.speeds(self.jobs[index])? {
                let each: Vec<String> = speeds.iter().map(Speed::to_string).collect();
                self.note(&format!("{}: {}", point.name, each.join("; ")));
                point.speeds = speeds;
                point.machine = self.machine.clone();
                point.speeds_commit = self.control.commit.into();
                point.write(&self.points_folder())?;
                self.points[index] = Some(point);
                write::curves(self.config, &self.found(), self.out)?;
            }
        }
        Ok(true)
    }

    /// The weights to measure a model's speed with: its own. Missing weights of random decisions are
    /// replaced by those of the adaptive model whose usage they have, which take as long.
    fn timed_checkpoint(&self, job: Job) -> PathBuf {
        let own = self.checkpoint(job);
        match job {
            Job::Rival {
                rival: Rival::Random,
                budget,
                ..
            } if !own.exists() => self.adaptive(budget, self.config.seeds[0]),
            _ => own,
        }
    }

    /// The speeds of a model; none for token reduction, and none, with a warning, if its time depends
    /// on weights that are missing.
    fn speeds(&mut self, job: Job) -> Result<Option<Vec<Speed>>> {
        if job.kind().reduces_tokens() {
            return Ok(None);
        }
        let checkpoint = self.timed_checkpoint(job);
        if !checkpoint.exists() && job.time_depends_on_weights() {
            let text = format!(
                "{}: expected its weights in {}, found none, so its earlier speeds are kept",
                job.name(self.config),
                checkpoint.display()
            );
            (self.control.report)(&Event::Warning(&text));
            return Ok(None);
        }
        let mut settings = self.settings(job)?;
        settings.dense_checkpoint = None;
        let session = self.session(&settings)?;
        let test = session.data.test.as_ref();
        let indices = all_indices(test);
        let images = session.images(test, &indices);
        let loaded = loaded_or_initial(&checkpoint, &session)?;
        let prepared = loaded.prepared(&session.device)?;
        let first = self.session(&self.seeded(self.config.seeds[0]))?;
        let dense = loaded_or_initial(&self.dense(self.config.seeds[0]), &first)?;
        let dense = dense.prepared(&session.device)?;
        let how = job.evaluated(&settings);
        let seconds = self.config.speed_seconds;
        let execution = how.execution(&prepared);
        execution
            .map(|execution| measure(&dense, &execution, &images, seconds))
            .transpose()
    }
}

/// Loads a dense model's checkpoint, or makes its initial weights if there is none.
fn loaded_or_initial(checkpoint: &Path, session: &Session) -> Result<Checkpoint> {
    if checkpoint.exists() {
        return Ok(Checkpoint::load(checkpoint)?);
    }
    Ok(session.initial_dense()?)
}
