//! A sweep: accuracy against compute and time, of the adaptive model and of what people ask it to be
//! compared with.
//!
//! ```text
//! OUT/runs/NAME       the run folder of each model that is trained
//! OUT/points/NAME.json what each model does on the test images
//! OUT/efficiency.csv  one line for each of them;  .json with the comparisons;  .md as tables;
//!                     .svg drawn
//! ```
//!
//! Every model is chosen, and every threshold moved, on held-out training images; the test images
//! are looked at once for each point. A sweep that was stopped goes on where it was.

mod compare;
mod config;
mod job;
mod names;
mod point;
mod speed;
mod tables;
mod write;

use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::Ordering;

use adavit_decision::BlockUsage;
use adavit_model::{Checkpoint, TokenReduction};

pub use self::compare::{Comparison, Verdict};
pub use self::config::{Rival, SmallerModel, SweepConfig, Variant};
use self::job::{Evaluated, Job};
pub use self::point::{Kind, Point, Speed};
use self::speed::measure;
use crate::calibration::{calibrate_best, off_budget};
use crate::config::{Method, TrainConfig};
use crate::evaluate::evaluate_sparse;
use crate::event::{Control, Event, Outcome};
use crate::progress::Stage;
use crate::run::{run_config_of, train_through};
use crate::session::Session;
use crate::{Machine, Result};

/// What a sweep found.
#[derive(Debug, Clone, PartialEq)]
pub struct Efficiency {
    /// Every point, in the order of the sweep.
    pub points: Vec<Point>,
    /// Every comparison.
    pub comparisons: Vec<Comparison>,
    /// Whether all points are there; a sweep that was stopped goes on when it is started again.
    pub complete: bool,
}

/// Trains and measures whatever of `config` is not measured yet in the folder `out`.
///
/// # Errors
/// As for [`crate::train`], or if the folder holds a sweep of another recipe.
pub fn sweep(
    config: &SweepConfig,
    recipe: &TrainConfig,
    out: &FilePath,
    control: Control,
) -> Result<Efficiency> {
    config.validate(recipe)?;
    write::bind(config, recipe, out)?;
    let mut sweep = Sweep {
        config,
        recipe,
        out,
        control,
        machine: Machine::this(&recipe.device),
        points: Vec::new(),
    };
    let complete = sweep.go()?;
    sweep.tell_other_machines();
    Ok(Efficiency {
        comparisons: write::curves(config, &sweep.points, out)?,
        points: sweep.points,
        complete,
    })
}

/// A sweep that is going.
struct Sweep<'a, 'c> {
    config: &'a SweepConfig,
    recipe: &'a TrainConfig,
    out: &'a FilePath,
    control: Control<'c>,
    /// What speeds are measured on.
    machine: Machine,
    points: Vec<Point>,
}

impl Sweep<'_, '_> {
    /// Measures point after point; false if it was stopped, with the points that are there.
    fn go(&mut self) -> Result<bool> {
        let jobs = self.jobs();
        let mut complete = true;
        for (index, job) in jobs.iter().enumerate() {
            let name = job.name(self.config);
            if let Some(point) = Point::read(&self.points_folder(), &name)? {
                self.points.push(point);
                continue;
            }
            let mut point = None;
            if !self.control.stop.load(Ordering::Relaxed) {
                self.note(&format!("{name}: model {} of {}", index + 1, jobs.len()));
                point = self.measured(*job)?;
            }
            let Some(point) = point else {
                complete = false;
                continue;
            };
            self.points.push(point);
            // A sweep that is killed leaves the curves of what it has.
            write::curves(self.config, &self.points, self.out)?;
        }
        Ok(complete)
    }

    /// Names the points whose speeds cannot be compared with those that are measured here.
    fn tell_other_machines(&mut self) {
        let here = &self.machine;
        let others = self.points.iter().filter(|point| point.machine != *here);
        let names: Vec<&str> = others.map(|point| point.name.as_str()).collect();
        if names.is_empty() {
            return;
        }
        let text = format!(
            "the speeds of {} were measured on something else than {here}; remove their files in {} \
             to measure them here",
            names.join(", "),
            self.points_folder().display()
        );
        (self.control.report)(&Event::Warning(&text));
    }

    /// Everything to measure: what the others need first, then what matters most.
    fn jobs(&mut self) -> Vec<Job> {
        let config = self.config;
        let mut jobs = Vec::new();
        for (index, seed) in config.seeds.iter().copied().enumerate() {
            jobs.push(Job::Dense { seed });
            let budgets = config.budgets.iter();
            jobs.extend(budgets.map(|&budget| Job::Adaptive { budget, seed }));
            if index == 0 {
                jobs.extend(self.jobs_of_first_seed());
            }
        }
        jobs
    }

    fn jobs_of_first_seed(&mut self) -> Vec<Job> {
        let config = self.config;
        let calibrated = config.calibrated.iter();
        let mut jobs: Vec<Job> = calibrated
            .map(|&budget| Job::Calibrated { budget })
            .collect();
        let mut possible = Vec::new();
        for (&budget, &rival) in config
            .budgets
            .iter()
            .flat_map(|budget| config.rivals.iter().map(move |rival| (budget, rival)))
        {
            match self.reduction(rival, budget) {
                Ok(_) => possible.push((budget, rival)),
                Err(error) => self.note(&format!("{} is left out: {error}", rival.name())),
            }
        }
        let rivals = |tuned: bool| {
            let possible = possible.clone().into_iter();
            possible.map(move |(budget, rival)| Job::Rival {
                rival,
                tuned,
                budget,
            })
        };
        jobs.extend(rivals(false));
        jobs.extend((0..config.smaller_models.len()).map(Job::Smaller));
        if config.fine_tune_rivals {
            jobs.extend(rivals(true));
        }
        jobs.extend((0..config.variants.len()).map(Job::Variant));
        jobs
    }

    /// The token reduction of a rival that reduces tokens.
    fn reduction(&self, rival: Rival, budget: f64) -> Result<Option<TokenReduction>> {
        let Some(method) = rival.reduction() else {
            return Ok(None);
        };
        let model = self.recipe.dense_model()?;
        let blocks = &self.config.evit_blocks;
        let found = TokenReduction::for_budget(&model, method, budget, blocks)?;
        Ok(Some(found))
    }

    fn points_folder(&self) -> PathBuf {
        self.out.join("points")
    }

    fn run(&self, name: &str) -> PathBuf {
        self.out.join("runs").join(name)
    }

    fn note(&mut self, text: &str) {
        (self.control.report)(&Event::Note(text));
    }

    /// The recipe with a seed.
    fn seeded(&self, seed: u64) -> TrainConfig {
        TrainConfig {
            seed,
            ..self.recipe.clone()
        }
    }

    /// Settings that start from the plain model of their seed.
    fn adapting(&self, settings: TrainConfig) -> TrainConfig {
        let dense = self.run(&names::dense(settings.seed)).join("dense");
        TrainConfig {
            dense_checkpoint: Some(dense),
            ..settings
        }
    }

    /// Trains and measures one model; none if it was stopped.
    fn measured(&mut self, job: Job) -> Result<Option<Point>> {
        let config = self.config;
        match job {
            Job::Dense { seed } => self.trained(job, &self.seeded(seed), &Evaluated::Dense),
            Job::Smaller(index) => {
                let settings = config.smaller(self.recipe, &config.smaller_models[index]);
                self.trained(job, &settings, &Evaluated::Dense)
            }
            Job::Adaptive { budget, seed } => {
                let mut settings = self.adapting(self.seeded(seed));
                settings.budget = budget;
                self.trained(job, &settings, &Evaluated::Sparse)
            }
            Job::Variant(index) => {
                let variant = config.variant(self.recipe, &config.variants[index])?;
                self.trained(job, &self.adapting(variant), &Evaluated::Sparse)
            }
            Job::Calibrated { budget } => self.calibrated(job, budget).map(Some),
            Job::Rival {
                rival,
                tuned,
                budget,
            } => {
                let mut settings = self.adapting(self.seeded(config.seeds[0]));
                settings.budget = budget;
                self.rival(job, (rival, tuned), settings)
            }
        }
    }

    /// Trains one model to the end of its stage, and measures it.
    fn trained(
        &mut self,
        job: Job,
        settings: &TrainConfig,
        how: &Evaluated,
    ) -> Result<Option<Point>> {
        let folder = self.run(&job.name(self.config));
        let (last, kept) = match how {
            Evaluated::Dense => (Stage::Dense, "dense"),
            _ => (Stage::Adaptive, "best"),
        };
        let lent = Control {
            stop: self.control.stop,
            report: &mut *self.control.report,
            commit: self.control.commit,
        };
        let seconds = match train_through(settings, &folder, last, lent)? {
            Outcome::Reached { seconds } => seconds,
            Outcome::Finished(summary) => summary.seconds,
            Outcome::Interrupted => return Ok(None),
        };
        let mut point = self.evaluated(job, settings, &folder.join(kept), how)?;
        point.train_seconds = seconds;
        self.kept(point).map(Some)
    }

    fn kept(&mut self, point: Point) -> Result<Point> {
        point.write(&self.points_folder())?;
        self.note(&format!(
            "{}: top-1 {:.4} at {:.4} of the plain model's MACs",
            point.name, point.top1, point.macs_share
        ));
        Ok(point)
    }

    /// An adaptive model of the sweep, with thresholds for another budget.
    fn calibrated(&mut self, job: Job, budget: f64) -> Result<Point> {
        let seed = self.config.seeds[0];
        let trained = names::adaptive(self.config.calibrated_from(budget), seed);
        let mut settings = self.seeded(seed);
        settings.budget = budget;
        let session = Session::prepare(&settings, None)?;
        let mut checkpoint = Checkpoint::load(&self.run(&trained).join("best"))?;
        let mut model = checkpoint.model(&session.device)?;
        let held_out = session.images(&session.data.train, &session.split.held_out);
        let share = calibrate_best(&mut model, &held_out, budget)?.macs_share;
        if let Some(warning) = off_budget(share, budget) {
            (self.control.report)(&Event::Warning(&warning));
        }
        checkpoint.config = model.config().clone();
        let folder = self.run(&job.name(self.config)).join("best");
        checkpoint.save(&folder)?;
        let point = self.evaluated(job, &settings, &folder, &Evaluated::Sparse)?;
        self.kept(point)
    }

    /// A rival: token reduction on the plain model, random decisions under the adaptive model's weights,
    /// or either fine-tuned from the plain model.
    fn rival(
        &mut self,
        job: Job,
        (rival, tuned): (Rival, bool),
        mut settings: TrainConfig,
    ) -> Result<Option<Point>> {
        let (budget, seed) = (settings.budget, settings.seed);
        let adaptive = names::adaptive(budget, seed);
        let Some(reduction) = self.reduction(rival, budget)? else {
            let checkpoint = self.run(&adaptive).join("best");
            let usage = match self.begun_usage(job)? {
                Some(usage) => usage,
                None => self.held_out_usage(&settings, &checkpoint)?,
            };
            settings.method = Method::Random {
                usage: usage.clone(),
            };
            let how = Evaluated::Random(&usage);
            return self.tuned_or_not(job, tuned, (&settings, &checkpoint), &how);
        };
        settings.method = Method::Reduced {
            reduction: reduction.clone(),
        };
        let checkpoint = self.run(&names::dense(seed)).join("dense");
        let how = Evaluated::Reduced(&reduction);
        self.tuned_or_not(job, tuned, (&settings, &checkpoint), &how)
    }

    /// The usage of a fine-tuning that was begun, so that it goes on with the same: on another machine
    /// a decision may fall otherwise.
    fn begun_usage(&self, job: Job) -> Result<Option<Vec<BlockUsage>>> {
        let begun = run_config_of(&self.run(&job.name(self.config)))?;
        Ok(begun.and_then(|config| match config.method {
            Method::Random { usage } => Some(usage),
            Method::Learned | Method::Reduced { .. } => None,
        }))
    }

    /// What an adaptive checkpoint keeps of the held-out images, block by block.
    fn held_out_usage(
        &self,
        settings: &TrainConfig,
        checkpoint: &FilePath,
    ) -> Result<Vec<BlockUsage>> {
        let session = Session::prepare(&self.seeded(settings.seed), None)?;
        let held_out = session.images(&session.data.train, &session.split.held_out);
        let prepared = Checkpoint::load(checkpoint)?.prepared(&session.device)?;
        let found = evaluate_sparse(&prepared, &held_out, &mut |_| Ok(()))?;
        Ok(found.usage.per_block)
    }

    fn tuned_or_not(
        &mut self,
        job: Job,
        tuned: bool,
        (settings, checkpoint): (&TrainConfig, &FilePath),
        how: &Evaluated,
    ) -> Result<Option<Point>> {
        if tuned {
            return self.trained(job, settings, how);
        }
        let point = self.evaluated(job, settings, checkpoint, how)?;
        self.kept(point).map(Some)
    }

    /// A checkpoint on the test images.
    fn evaluated(
        &self,
        job: Job,
        settings: &TrainConfig,
        checkpoint: &FilePath,
        how: &Evaluated,
    ) -> Result<Point> {
        let session = Session::prepare(&self.seeded(settings.seed), None)?;
        let indices: Vec<u32> = (0..session.data.test.len() as u32).collect();
        let images = session.images(&session.data.test, &indices);
        let loaded = Checkpoint::load(checkpoint)?;
        let model = loaded.model(&session.device)?;
        let prepared = loaded.prepared(&session.device)?;
        let (evaluation, right) = how.evaluate((&model, &prepared), &images, settings)?;
        let named = (job.name(self.config), job.kind(), settings.seed);
        let mut point = Point::new(named, self.machine.clone(), &evaluation, &right);
        let dense = self.run(&names::dense(self.config.seeds[0])).join("dense");
        let dense = Checkpoint::load(&dense)?;
        point.macs_share = point.macs / dense.config.geometry().dense_macs() as f64;
        let dense = dense.prepared(&session.device)?;
        let path = how.path(&model, &prepared);
        point.speeds = measure(&dense, &path, &images, self.config.speed_seconds)?;
        if matches!(how, Evaluated::Sparse | Evaluated::Random(_)) {
            point.usage = Some(evaluation.usage);
        }
        let relative = checkpoint.strip_prefix(self.out).unwrap_or(checkpoint);
        point.checkpoint = relative.to_path_buf();
        point.commit = self.control.commit.into();
        point.budget = match job {
            Job::Dense { .. } => None,
            Job::Smaller(index) => Some(self.config.smaller_models[index].budget),
            _ => Some(settings.budget),
        };
        Ok(point)
    }
}
