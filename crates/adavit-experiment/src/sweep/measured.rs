//! One model of a sweep: it is trained where its job trains one, then measured on the test images.

use adavit_data::all_indices;
use adavit_decision::BlockUsage;
use adavit_model::Checkpoint;
use adavit_train::{
    Control, Event, Method, Outcome, TrainConfig, calibrate_best, evaluate_prepared, off_budget,
    run_config_of, train_through,
};

use crate::error::Result;
use crate::sweep::driver::Sweep;
use crate::sweep::job::{Job, Models};
use crate::sweep::names;
use crate::sweep::point::Point;
use crate::sweep::speed::measure;

impl Sweep<'_, '_> {
    /// Trains one model to the end of its stage, if its job trains one, and measures it; none if it
    /// was stopped.
    pub(super) fn measured(&mut self, job: Job) -> Result<Option<Point>> {
        let settings = self.settings(job)?;
        let mut train_seconds = 0.0;
        if let Some(last) = job.stage() {
            let folder = self.run(&job.name(self.config));
            let lent = Control {
                stop: self.control.stop,
                report: &mut *self.control.report,
                device: self.control.device,
                commit: self.control.commit,
            };
            train_seconds = match train_through(&settings, self.data, &folder, last, lent)? {
                Outcome::Reached { seconds } => seconds,
                Outcome::Finished(summary) => summary.seconds,
                Outcome::Interrupted => return Ok(None),
            };
        } else if let Job::Calibrated { budget } = job {
            self.calibrate(job, budget)?;
        }
        let point = self.evaluated(job, &settings, train_seconds)?;
        point.write(&self.points_folder())?;
        self.note(&format!(
            "{}: top-1 {:.4} at {:.4} of the dense model's MACs",
            point.name, point.top1, point.macs_share
        ));
        Ok(Some(point))
    }

    /// Writes the checkpoint of an adaptive model of the sweep with thresholds for another budget.
    fn calibrate(&mut self, job: Job, budget: f64) -> Result<()> {
        let seed = self.config.seeds[0];
        let trained = self.config.calibrated_from(budget);
        let session = self.session(&self.seeded(seed))?;
        let mut checkpoint = Checkpoint::load(&self.adaptive(trained, seed))?;
        let mut model = checkpoint.model(&session.device)?;
        let held_out = session.held_out();
        let share = calibrate_best(&mut model, &held_out, budget)?.macs_share;
        self.expect_budget(&job.name(self.config), share, budget);
        checkpoint.config = model.config().clone();
        Ok(checkpoint.save(&self.checkpoint(job))?)
    }

    /// Warns of a model that does not keep its budget on the held-out images.
    fn expect_budget(&mut self, name: &str, share: f64, budget: f64) {
        if let Some(warning) = off_budget(share, budget) {
            let warning = format!("{name}: {warning}");
            (self.control.report)(&Event::Warning(&warning));
        }
    }

    /// Measures a checkpoint on the test images.
    fn evaluated(&self, job: Job, settings: &TrainConfig, train_seconds: f64) -> Result<Point> {
        let session = self.session(&self.seeded(settings.seed))?;
        let test = session.data.test.as_ref();
        let indices = all_indices(test);
        let images = session.images(test, &indices);
        let checkpoint = self.checkpoint(job);
        let loaded = Checkpoint::load(&checkpoint)?;
        let models = Models::of(&loaded, &session.device)?;
        let how = job.evaluated(settings);
        let (evaluation, right) = how.evaluate(&models, &images, settings)?;
        let dense = Checkpoint::load(&self.dense(self.config.seeds[0]))?;
        let dense_macs = dense.config.geometry().dense_macs() as f64;
        let dense = dense.prepared(&session.device)?;
        let speeds = match how.execution(&models.prepared) {
            Some(execution) => measure(&dense, &execution, &images, self.config.speed_seconds)?,
            None => Vec::new(),
        };
        let commit = self.control.commit.to_string();
        Ok(Point {
            name: job.name(self.config),
            kind: job.kind(),
            seed: settings.seed,
            budget: match job {
                Job::Dense { .. } => None,
                Job::Smaller(index) => Some(self.config.smaller_models[index].budget),
                _ => Some(settings.budget),
            },
            top1: right.top1(),
            macs: evaluation.macs,
            macs_p10: evaluation.macs_percentiles[0],
            macs_p90: evaluation.macs_percentiles[2],
            macs_share: evaluation.macs / dense_macs,
            usage: how.decides().then_some(evaluation.usage),
            speeds,
            machine: self.machine.clone(),
            speeds_commit: commit.clone(),
            checkpoint: checkpoint
                .strip_prefix(self.out)
                .unwrap_or(&checkpoint)
                .into(),
            train_seconds,
            commit,
            draws: right.draws(),
            right: right.digits(),
        })
    }

    /// The usage of a random policy: that of its fine-tuning if one was started, since on another
    /// machine some decisions may differ; else what the adaptive model keeps of the held-out images in
    /// each block.
    pub(super) fn usage(&mut self, job: Job, settings: &TrainConfig) -> Result<Vec<BlockUsage>> {
        let begun = run_config_of(&self.run(&job.name(self.config)))?;
        if let Some(Method::Random { usage }) = begun.map(|config| config.method) {
            return Ok(usage);
        }
        let session = self.session(&self.seeded(settings.seed))?;
        let held_out = session.held_out();
        let checkpoint = Checkpoint::load(&self.adaptive(settings.budget, settings.seed))?;
        let prepared = checkpoint.prepared(&session.device)?;
        let found = evaluate_prepared(&prepared, &held_out)?;
        let name = names::adaptive(settings.budget, settings.seed);
        self.expect_budget(&name, found.macs_share, settings.budget);
        Ok(found.usage.per_block)
    }
}
