//! The driver of a sweep: what is trained and measured, in which order, and where it resumes.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use adavit_data::Splits;
use adavit_train::{Control, Event, FolderLock, Machine, Session, TrainConfig, open_images};
use toml::Table;

use crate::error::{Error, Result};
use crate::sweep::compare::PairedComparison;
use crate::sweep::config::SweepConfig;
use crate::sweep::job::Job;
use crate::sweep::point::Point;
use crate::sweep::write;

/// The folder of the points.
const POINTS: &str = "points";

/// What a sweep found.
#[derive(Debug, Clone, PartialEq)]
pub struct Efficiency {
    /// Every point, in the order of the sweep.
    pub points: Vec<Point>,
    /// Every comparison.
    pub comparisons: Vec<PairedComparison>,
    /// Whether the sweep is done; one that was stopped resumes when it is started again.
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
    out: &Path,
    mut control: Control,
) -> Result<Efficiency> {
    let mut recipe = recipe.clone();
    let data = opened(&mut recipe, &mut control)?;
    let mut sweep = Sweep::begin(config, &recipe, &data, out, control)?;
    sweep.bind()?;
    let complete = sweep.go()?;
    sweep.finish(complete)
}

/// Measures the speed of every model of a sweep again, so that all are of one machine, and trains
/// nothing. It starts over with the first model each time.
///
/// A missing checkpoint is replaced by weights that take as long: the initial ones for a model that
/// decides nothing, the adaptive model's for random decisions of its usage. Any other point keeps
/// its speeds, and a warning names it.
///
/// # Errors
/// If the folder holds a sweep of another recipe or no point, or a checkpoint cannot be read.
pub fn measure_speeds(
    config: &SweepConfig,
    recipe: &TrainConfig,
    out: &Path,
    mut control: Control,
) -> Result<Efficiency> {
    let mut recipe = recipe.clone();
    let data = opened(&mut recipe, &mut control)?;
    let no_points = || Error::File {
        path: out.join(POINTS),
        message: "expected points, whose speeds are to be measured; sweep first".into(),
    };
    if !out.join(POINTS).exists() {
        return Err(no_points());
    }
    let mut sweep = Sweep::begin(config, &recipe, &data, out, control)?;
    if sweep.points.iter().all(Option::is_none) {
        return Err(no_points());
    }
    sweep.bind()?;
    let complete = sweep.time_again()?;
    sweep.finish(complete)
}

/// Opens the images of a recipe, which is completed by them.
fn opened(recipe: &mut TrainConfig, control: &mut Control) -> Result<Splits> {
    let images = open_images(recipe)?;
    for note in &images.notes {
        (control.report)(&Event::Note(note));
    }
    Ok(images.splits)
}

/// A sweep in progress.
pub(super) struct Sweep<'a, 'c> {
    pub(super) config: &'a SweepConfig,
    pub(super) recipe: &'a TrainConfig,
    /// The images of every model, loaded once.
    pub(super) data: &'a Splits,
    pub(super) out: &'a Path,
    pub(super) control: Control<'c>,
    /// Written into the folder, which belongs to a sweep of these settings from then on.
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
        out: &'a Path,
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

    /// Measures the points that are missing; false if it was stopped.
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
            // A sweep that is killed leaves the curves of the points so far.
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
        self.warn_of_other_machines();
        let points = self.found();
        Ok(Efficiency {
            comparisons: write::curves(self.config, &points, self.out)?,
            points,
            complete,
        })
    }

    /// Names the points whose speeds cannot be compared with those that are measured here.
    fn warn_of_other_machines(&mut self) {
        let here = &self.machine;
        let points = self.points.iter().flatten();
        let others = points.filter(|point| !point.speeds.is_empty() && point.machine != *here);
        let names: Vec<&str> = others.map(|point| point.name.as_str()).collect();
        if names.is_empty() {
            return;
        }
        let text = format!(
            "the speeds of {} were measured on another machine than {here}, so they do not compare; \
             measure the speeds of all models again",
            names.join(", "),
        );
        (self.control.report)(&Event::Warning(&text));
    }

    pub(super) fn points_folder(&self) -> PathBuf {
        self.out.join(POINTS)
    }

    pub(super) fn run(&self, name: &str) -> PathBuf {
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
}
