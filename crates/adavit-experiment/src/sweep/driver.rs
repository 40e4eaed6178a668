//! The driver of a sweep: what is trained and measured, in which order, and where it resumes.

use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::Ordering;

use adavit_data::Splits;
use adavit_decision::BlockUsage;
use adavit_model::{Checkpoint, TokenReduction};
use adavit_train::{
    Control, Event, FolderLock, Machine, Method, Outcome, Session, TrainConfig, calibrate_best,
    evaluate_sparse, off_budget, run_config_of, train_through,
};
use toml::Table;

use crate::error::{Error, Result};
use crate::sweep::compare::Comparison;
use crate::sweep::config::{Rival, SweepConfig};
use crate::sweep::job::Job;
use crate::sweep::point::Point;
use crate::sweep::speed::measure;
use crate::sweep::{names, write};

/// The folder of the points.
const POINTS: &str = "points";

/// What a sweep found.
#[derive(Debug, Clone, PartialEq)]
pub struct Efficiency {
    /// Every point, in the order of the sweep.
    pub points: Vec<Point>,
    /// Every comparison.
    pub comparisons: Vec<Comparison>,
    /// Whether it came to its end; a sweep that was stopped goes on when it is started again.
    pub complete: bool,
}

/// Trains and measures whatever of `config` is not measured yet in the folder `out`.
///
/// # Errors
/// As for [`adavit_train::train`], or if the folder holds a sweep of another recipe. Input errors come before
/// anything is written.
pub fn sweep(
    config: &SweepConfig,
    recipe: &TrainConfig,
    out: &FilePath,
    control: Control,
) -> Result<Efficiency> {
    let data = adavit_data::load(&recipe.data, recipe.data_dir.as_deref())?;
    let mut sweep = Sweep::begin(config, recipe, &data, out, control)?;
    sweep.bind()?;
    let complete = sweep.go()?;
    sweep.finish(complete)
}

/// Measures the speed of every model of a sweep again, so that all are of one machine, and trains
/// nothing. Where a checkpoint is not there, others that take as long stand in for it: the initial
/// weights of a model that decides nothing, the adaptive model's for random decisions of its usage.
/// Any other point stays as it is, and a warning names it. It begins with the first model each time
/// that it is started.
///
/// # Errors
/// If the folder holds a sweep of another recipe or no point, or a checkpoint cannot be read.
pub fn measure_speeds(
    config: &SweepConfig,
    recipe: &TrainConfig,
    out: &FilePath,
    control: Control,
) -> Result<Efficiency> {
    let data = adavit_data::load(&recipe.data, recipe.data_dir.as_deref())?;
    let no_points = || Error::File {
        path: out.join(POINTS),
        message: "expected points, whose speeds are to be measured; sweep first".into(),
    };
    if !out.join(POINTS).exists() {
        return Err(no_points());
    }
    let mut sweep = Sweep::begin(config, recipe, &data, out, control)?;
    if sweep.points.iter().all(Option::is_none) {
        return Err(no_points());
    }
    sweep.bind()?;
    let complete = sweep.time_again()?;
    sweep.finish(complete)
}

/// A sweep that is going.
pub(super) struct Sweep<'a, 'c> {
    pub(super) config: &'a SweepConfig,
    pub(super) recipe: &'a TrainConfig,
    /// The images of every model, loaded once.
    pub(super) data: &'a Splits,
    pub(super) out: &'a FilePath,
    pub(super) control: Control<'c>,
    /// What binds the folder.
    settings: Table,
    /// What speeds are measured on.
    pub(super) machine: Machine,
    pub(super) jobs: Vec<Job>,
    /// What is measured, job by job.
    pub(super) points: Vec<Option<Point>>,
    /// Keeps other sweeps out of the folder.
    _lock: FolderLock,
}

impl<'a, 'c> Sweep<'a, 'c> {
    /// Checks the settings and the data, and reads the points that are there.
    fn begin(
        config: &'a SweepConfig,
        recipe: &'a TrainConfig,
        data: &'a Splits,
        out: &'a FilePath,
        control: Control<'c>,
    ) -> Result<Self> {
        config.validate(recipe)?;
        // What is refused is refused before anything is written.
        write::settings(config, recipe, out)?;
        Session::prepare(recipe, data, control.device, None)?;
        let lock = FolderLock::claim(out)?;
        let settings = write::settings(config, recipe, out)?;
        let mut sweep = Self {
            config,
            recipe,
            data,
            out,
            control,
            settings,
            machine: Machine::this(&recipe.device),
            jobs: Vec::new(),
            points: Vec::new(),
            _lock: lock,
        };
        sweep.jobs = sweep.all_jobs();
        let names = sweep.jobs.iter().map(|job| job.name(config));
        sweep.points = Point::read_all(&sweep.points_folder(), names)?;
        Ok(sweep)
    }

    fn bind(&self) -> Result<()> {
        write::bind(&self.settings, self.out)
    }

    /// Measures point after point; false if it was stopped, with the points that are there.
    fn go(&mut self) -> Result<bool> {
        for index in 0..self.jobs.len() {
            if self.points[index].is_some() {
                continue;
            }
            if self.control.stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let (job, all) = (self.jobs[index], self.jobs.len());
            let name = job.name(self.config);
            self.note(&format!("{name}: model {} of {all}", index + 1));
            let Some(point) = self.measured(job)? else {
                return Ok(false);
            };
            self.points[index] = Some(point);
            // A sweep that is killed leaves the curves of what it has.
            write::curves(self.config, &self.found(), self.out)?;
        }
        Ok(true)
    }

    /// The points that are there, in the order of the sweep.
    pub(super) fn found(&self) -> Vec<Point> {
        self.points.iter().flatten().cloned().collect()
    }

    /// Writes the curves, and warns of speeds that cannot be compared.
    fn finish(mut self, complete: bool) -> Result<Efficiency> {
        self.tell_other_machines();
        let points = self.found();
        Ok(Efficiency {
            comparisons: write::curves(self.config, &points, self.out)?,
            points,
            complete,
        })
    }

    /// Names the points whose speeds cannot be compared with those that are measured here.
    fn tell_other_machines(&mut self) {
        let here = &self.machine;
        let points = self.points.iter().flatten();
        let others = points.filter(|point| point.machine != *here);
        let names: Vec<&str> = others.map(|point| point.name.as_str()).collect();
        if names.is_empty() {
            return;
        }
        let text = format!(
            "the speeds of {} were measured on something else than {here}; `--speeds` measures those \
             of every model that is there again",
            names.join(", "),
        );
        (self.control.report)(&Event::Warning(&text));
    }

    /// Everything to measure: what the others need first, then what matters most.
    fn all_jobs(&mut self) -> Vec<Job> {
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

    pub(super) fn points_folder(&self) -> PathBuf {
        self.out.join(POINTS)
    }

    fn run(&self, name: &str) -> PathBuf {
        self.out.join("runs").join(name)
    }

    pub(super) fn note(&mut self, text: &str) {
        (self.control.report)(&Event::Note(text));
    }

    /// Settings and images of a model, without a dense checkpoint to start from.
    pub(super) fn session(&self, settings: &TrainConfig) -> Result<Session<'a>> {
        let session = Session::prepare(settings, self.data, self.control.device, None)?;
        Ok(session)
    }

    /// The recipe with a seed.
    pub(super) fn seeded(&self, seed: u64) -> TrainConfig {
        TrainConfig {
            seed,
            ..self.recipe.clone()
        }
    }

    /// The settings of a model's training, or of its measurement where it is not trained.
    pub(super) fn settings(&mut self, job: Job) -> Result<TrainConfig> {
        let config = self.config;
        let first = config.seeds[0];
        let settings = match job {
            Job::Dense { seed } => self.seeded(seed),
            Job::Smaller(index) => config.smaller(self.recipe, &config.smaller_models[index]),
            Job::Adaptive { budget, seed } => self.adapting(self.seeded(seed), budget),
            Job::Variant(index) => {
                let variant = &config.variants[index];
                let settings = config.variant(self.recipe, variant)?;
                self.adapting(settings, variant.budget)
            }
            Job::Calibrated { budget } => self.adapting(self.seeded(first), budget),
            Job::Rival { rival, budget, .. } => {
                let mut settings = self.adapting(self.seeded(first), budget);
                settings.method = match self.reduction(rival, budget)? {
                    Some(reduction) => Method::Reduced { reduction },
                    None => Method::Random {
                        usage: self.usage(job, &settings)?,
                    },
                };
                settings
            }
        };
        Ok(settings)
    }

    /// The checkpoint of a model.
    pub(super) fn checkpoint(&self, job: Job) -> PathBuf {
        let first = self.config.seeds[0];
        match job {
            Job::Dense { .. } | Job::Smaller(_) => self.run(&job.name(self.config)).join("dense"),
            Job::Rival {
                rival,
                tuned: false,
                budget,
            } => match rival.reduction() {
                Some(_) => self.dense(first),
                None => self.adaptive(budget, first),
            },
            _ => self.run(&job.name(self.config)).join("best"),
        }
    }

    /// The plain model of a seed.
    pub(super) fn dense(&self, seed: u64) -> PathBuf {
        self.checkpoint(Job::Dense { seed })
    }

    /// The adaptive model of a budget and seed.
    pub(super) fn adaptive(&self, budget: f64, seed: u64) -> PathBuf {
        self.checkpoint(Job::Adaptive { budget, seed })
    }

    /// Settings that start from the plain model of their seed.
    fn adapting(&self, settings: TrainConfig, budget: f64) -> TrainConfig {
        TrainConfig {
            dense_checkpoint: Some(self.dense(settings.seed)),
            budget,
            ..settings
        }
    }

    /// Trains one model to the end of its stage, if it is trained, and measures it; none if it was
    /// stopped.
    fn measured(&mut self, job: Job) -> Result<Option<Point>> {
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
            "{}: top-1 {:.4} at {:.4} of the plain model's MACs",
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
        let held_out = session.images(&session.data.train, &session.split.held_out);
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

    /// The usage of a random policy: that of the fine-tuning that was begun, since on another machine a
    /// decision may fall otherwise; else what the adaptive model keeps of the held-out images, block by
    /// block.
    fn usage(&mut self, job: Job, settings: &TrainConfig) -> Result<Vec<BlockUsage>> {
        let begun = run_config_of(&self.run(&job.name(self.config)))?;
        if let Some(Method::Random { usage }) = begun.map(|config| config.method) {
            return Ok(usage);
        }
        let session = self.session(&self.seeded(settings.seed))?;
        let held_out = session.images(&session.data.train, &session.split.held_out);
        let checkpoint = Checkpoint::load(&self.adaptive(settings.budget, settings.seed))?;
        let prepared = checkpoint.prepared(&session.device)?;
        let found = evaluate_sparse(&prepared, &held_out, &mut |_| Ok(()))?;
        let name = names::adaptive(settings.budget, settings.seed);
        self.expect_budget(&name, found.macs_share, settings.budget);
        Ok(found.usage.per_block)
    }

    /// A checkpoint on the test images.
    fn evaluated(&self, job: Job, settings: &TrainConfig, train_seconds: f64) -> Result<Point> {
        let session = self.session(&self.seeded(settings.seed))?;
        let indices = session.data.test.indices();
        let images = session.images(&session.data.test, &indices);
        let checkpoint = self.checkpoint(job);
        let loaded = Checkpoint::load(&checkpoint)?;
        let model = loaded.model(&session.device)?;
        let prepared = loaded.prepared(&session.device)?;
        let how = job.evaluated(settings);
        let (evaluation, right) = how.evaluate((&model, &prepared), &images, settings)?;
        let dense = Checkpoint::load(&self.dense(self.config.seeds[0]))?;
        let dense_macs = dense.config.geometry().dense_macs() as f64;
        let dense = dense.prepared(&session.device)?;
        let path = how.path(&model, &prepared);
        let speeds = measure(&dense, &path, &images, self.config.speed_seconds)?;
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
}
