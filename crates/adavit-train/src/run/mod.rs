//! A training run: the plain model, the adaptive one from it, both on the test images; with
//! snapshots from which it goes on exactly.

mod epoch;
mod test_stage;

use std::path::{Path, PathBuf};
use std::time::Instant;

use adavit_model::Checkpoint;

use crate::budget::Budget;
use crate::config::TrainConfig;
use crate::environment::{Start, record_start};
use crate::event::{Control, Event, Outcome};
use crate::folder::RunFolder;
use crate::progress::{Progress, Stage};
use crate::report::write_report;
use crate::session::Session;
use crate::snapshot::Snapshot;
use crate::stage::{AdaptivePart, StageTrainer};
use crate::summary::{RandomSummary, Summary};
use crate::teacher::Teacher;
use crate::tensorboard::EventWriter;
use crate::{Error, Result};

/// Starts a run in the folder `out`, which is made; with `force` what a run left there is removed.
///
/// # Errors
/// Input errors come before anything is written.
pub fn train(config: &TrainConfig, out: &Path, force: bool, control: Control) -> Result<Outcome> {
    config.method.expect_learned()?;
    let session = Session::prepare(config, None)?;
    let folder = RunFolder::create(out, force, config)?;
    start(&session, folder, control, Stage::Done)
}

/// Goes on with the run in `folder`, with its own configuration; `threads` may be another number.
///
/// # Errors
/// If the folder holds no run, or no snapshot in it is whole.
pub fn resume(folder: &Path, control: Control) -> Result<Outcome> {
    let (folder, config) = RunFolder::open(folder)?;
    config.method.expect_learned()?;
    let dense = folder.dense();
    let kept_dense = dense.exists().then_some(dense.as_path());
    let session = Session::prepare(&config, kept_dense)?;
    start(&session, folder, control, Stage::Done)
}

/// Trains in the folder `out` up to the end of the stage `last`, and nothing after it; goes on where
/// a run of the same settings was stopped.
///
/// # Errors
/// As for [`train`], or if the folder holds a run of other settings.
pub(crate) fn train_through(
    config: &TrainConfig,
    out: &Path,
    last: Stage,
    control: Control,
) -> Result<Outcome> {
    if !RunFolder::holds_run(out) {
        let session = Session::prepare(config, None)?;
        let folder = RunFolder::create(out, false, config)?;
        return start(&session, folder, control, last);
    }
    let (folder, found) = RunFolder::open(out)?;
    if found.learnt()? != config.learnt()? {
        return Err(Error::Input(format!(
            "{}: holds a run of other settings; give another folder by --out, or remove it",
            out.display()
        )));
    }
    let dense = folder.dense();
    let session = Session::prepare(config, dense.exists().then_some(dense.as_path()))?;
    start(&session, folder, control, last)
}

/// Reads the settings of the run in `folder`.
///
/// # Errors
/// If the folder holds no run.
pub fn run_config(folder: &Path) -> Result<TrainConfig> {
    RunFolder::read_config(folder)
}

/// Reads the settings of the run that a checkpoint is of: `checkpoint` is the run's folder, or lies in
/// it; none where there is no such run.
///
/// # Errors
/// If the settings cannot be read.
pub fn run_config_of(checkpoint: &Path) -> Result<Option<TrainConfig>> {
    let Ok(checkpoint) = checkpoint.canonicalize() else {
        return Ok(None);
    };
    let run = RunFolder::around(&checkpoint);
    run.map(RunFolder::read_config).transpose()
}

/// Goes on from the newest whole snapshot, or from the beginning, to the end of `last`.
fn start(session: &Session, folder: RunFolder, control: Control, last: Stage) -> Result<Outcome> {
    let mark = session.mark(folder.mark());
    let found = Snapshot::find(folder.path(), mark)?;
    if let Some(warning) = &found.warning {
        (control.report)(&Event::Warning(warning));
    }
    let (progress, loaded) = match found.snapshot {
        Some(snapshot) => {
            (control.report)(&Event::Resumed {
                stage: snapshot.progress.stage,
                epoch: snapshot.progress.epoch,
                step: snapshot.progress.step,
            });
            (snapshot.progress.clone(), Some(snapshot))
        }
        None => (Progress::new(Stage::Dense), None),
    };
    let config = &session.config;
    let starts = Start::now(control.commit, &config.device, config.seed);
    record_start(&folder.starts(), starts)?;
    let events = config
        .tensorboard
        .then(|| EventWriter::create(folder.path(), progress.steps_of_all()))
        .transpose()?;
    let mut run = Run {
        session,
        events,
        folder,
        mark,
        control,
        seconds_before: progress.seconds,
        progress,
        last,
        started: Instant::now(),
        saved: Instant::now(),
    };
    run.go(loaded)
}

/// A run that is going.
#[derive(Debug)]
struct Run<'s, 'c> {
    session: &'s Session,
    /// For TensorBoard, if asked for.
    events: Option<EventWriter>,
    folder: RunFolder,
    /// What binds snapshots to this run.
    mark: u32,
    control: Control<'c>,
    progress: Progress,
    seconds_before: f64,
    /// The stage after which it ends.
    last: Stage,
    started: Instant,
    saved: Instant,
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Continue,
    Stop,
}

impl Run<'_, '_> {
    fn go(&mut self, mut loaded: Option<Snapshot>) -> Result<Outcome> {
        while self.progress.stage <= self.last {
            let flow = match self.progress.stage {
                Stage::Dense => self.dense_stage(loaded.take())?,
                Stage::Adaptive => self.adaptive_stage(loaded.take())?,
                Stage::Test => self.test_stage(loaded.take())?,
                Stage::Done => return self.finish(),
            };
            if flow == Flow::Stop {
                return Ok(Outcome::Interrupted);
            }
        }
        Ok(Outcome::Reached {
            seconds: self.stamped().seconds,
        })
    }

    fn dense_stage(&mut self, loaded: Option<Snapshot>) -> Result<Flow> {
        if let Some(given) = &self.session.given_dense {
            for note in &self.session.notes {
                (self.control.report)(&Event::Note(note));
            }
            self.folder.keep(given, &self.folder.dense())?;
            self.progress.enter(Stage::Adaptive);
            return Ok(Flow::Continue);
        }
        let start = self.session.initial_dense()?;
        let trainer = self.trainer(start, None, loaded)?;
        self.train_stage(trainer, Stage::Adaptive)
    }

    fn adaptive_stage(&mut self, loaded: Option<Snapshot>) -> Result<Flow> {
        let dense = Checkpoint::load(&self.folder.dense())?;
        let config = &self.session.config;
        let adaptive = AdaptivePart {
            teacher: Teacher::new(&dense, &config.distillation, &self.session.device)?,
            budget: Budget::new(config, &dense.config.geometry())?,
        };
        let start = self.session.initial_adaptive(&dense)?;
        if loaded.is_none() && config.method.is_learned() {
            let new = start.num_parameters() - dense.num_parameters();
            let note = format!(
                "decision networks of {new} parameters start anew, all else from the plain model"
            );
            (self.control.report)(&Event::Note(&note));
        }
        let trainer = self.trainer(start, Some(adaptive), loaded)?;
        self.train_stage(trainer, Stage::Test)
    }

    /// A stage's trainer, at its start or where a snapshot left it.
    fn trainer(
        &self,
        start: Checkpoint,
        adaptive: Option<AdaptivePart>,
        loaded: Option<Snapshot>,
    ) -> Result<StageTrainer> {
        let (start, state) = match loaded {
            Some(snapshot) => (snapshot.model, Some(snapshot.state)),
            None => (start, None),
        };
        let session = self.session;
        let schedule = session.schedule(self.progress.stage);
        let mut trainer =
            StageTrainer::new(&session.config, &start, schedule, adaptive, &session.device)?;
        if let Some(state) = state {
            trainer.load_state(&state, self.progress.step)?;
        }
        Ok(trainer)
    }

    fn train_stage(&mut self, mut trainer: StageTrainer, next: Stage) -> Result<Flow> {
        let stage = self.progress.stage;
        let total_steps = self.session.schedule(stage).total_steps;
        let per_epoch = self.session.steps_per_epoch();
        (self.control.report)(&Event::StageStarted {
            stage,
            epochs: total_steps.div_ceil(per_epoch),
            steps: total_steps,
            parameters: trainer.num_parameters(),
        });
        if self.progress.step == 0 {
            self.save(&trainer)?;
        }
        while !self.is_stage_done(total_steps) {
            let flow = self.train_epoch(&mut trainer, total_steps)?;
            self.save(&trainer)?;
            if flow == Flow::Stop {
                return Ok(Flow::Stop);
            }
            self.finish_epoch(&trainer, total_steps)?;
            self.save(&trainer)?;
        }
        self.progress.enter(next);
        if next == Stage::Test {
            self.save(&trainer)?;
        }
        Ok(Flow::Continue)
    }

    /// Whether every epoch is finished, or enough of them brought nothing better.
    fn is_stage_done(&mut self, total_steps: u64) -> bool {
        let progress = &self.progress;
        // A snapshot may be of the moment after an epoch's last step: the epoch is still to finish.
        if progress.step_in_epoch > 0 {
            return false;
        }
        let patience = self.session.config.patience;
        let waited = patience.is_some_and(|patience| progress.epochs_since_best >= patience);
        if waited && progress.step < total_steps {
            let text = format!(
                "no better checkpoint for {} epochs: the {} stage ends",
                progress.epochs_since_best,
                progress.stage.name()
            );
            (self.control.report)(&Event::Note(&text));
        }
        waited || progress.step >= total_steps
    }

    fn save(&mut self, trainer: &StageTrainer) -> Result<()> {
        let snapshot = Snapshot {
            progress: self.stamped(),
            model: trainer.checkpoint()?,
            state: trainer.state()?,
        };
        snapshot.write(self.folder.path(), self.mark)?;
        self.saved = Instant::now();
        Ok(())
    }

    /// The progress with the seconds of this start.
    fn stamped(&self) -> Progress {
        Progress {
            seconds: self.seconds_before + self.started.elapsed().as_secs_f64(),
            ..self.progress.clone()
        }
    }

    /// What the adaptive stage saved at its end.
    fn last_snapshot(&self) -> Result<Snapshot> {
        let found = Snapshot::find(self.folder.path(), self.mark)?;
        found.snapshot.ok_or_else(|| Error::Snapshot {
            path: PathBuf::from(self.folder.path()),
            message: "the last snapshot is gone; was the folder changed?".into(),
        })
    }

    fn finish(&mut self) -> Result<Outcome> {
        // A finished run that is started again keeps the account of the program that ran it.
        if let Some(summary) = self.folder.read_summary() {
            if !self.folder.has_report() {
                self.report();
            }
            return Ok(Outcome::Finished(Box::new(summary)));
        }
        let test = &self.progress.test;
        let (Some(dense), Some(adaptive)) = (test.dense_summary(), test.adaptive_summary()) else {
            return Err(Error::Snapshot {
                path: PathBuf::from(self.folder.path()),
                message: "the run is done, but its results are not in the snapshot".into(),
            });
        };
        let config = &self.session.config;
        let summary = Summary {
            dataset: self.session.data.train.name().into(),
            seed: config.seed,
            threads: adavit_kernels::threads(),
            commit: self.control.commit.into(),
            seconds: self.stamped().seconds,
            train_images_per_s: self.progress.trained_images as f64
                / self.progress.training_seconds.max(1e-9),
            batch: config.eval_batch_size,
            budget: config.targets.is_none().then_some(config.budget),
            dense,
            adaptive,
            random_policy: RandomSummary::mean(&test.random),
            random_policy_per_block: RandomSummary::mean(&test.random_per_block),
        };
        self.folder.write_summary(&summary)?;
        self.report();
        Ok(Outcome::Finished(Box::new(summary)))
    }

    /// Draws the report; a run is no worse for one that could not be drawn.
    fn report(&mut self) {
        if let Err(error) = write_report(self.folder.path(), None, &self.session.device) {
            let text = format!("no report: {error}");
            (self.control.report)(&Event::Warning(&text));
        }
    }
}
