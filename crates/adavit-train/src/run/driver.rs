//! A training run: the dense model, the adaptive one from it, both on the test images; with snapshots
//! from which it resumes to bit-identical weights.

use std::path::{Path, PathBuf};
use std::time::Instant;

use adavit_data::{Loader, Splits};
use adavit_model::Checkpoint;
use candle_core::Device;

use crate::config::train_config::TrainConfig;
use crate::error::{Error, Result};
use crate::run::destination::Destination;
use crate::run::environment::{Start, record_start};
use crate::run::event::{Control, Event, Outcome};
use crate::run::folder::RunFolder;
use crate::run::places::with_absolute_paths;
use crate::run::progress::{Progress, Stage};
use crate::run::session::Session;
use crate::run::snapshot::Snapshot;
use crate::run::stage::{AdaptivePart, StageParts, StageTrainer};
use crate::run::summary::{RandomSummary, Summary};
use crate::run::targets::BudgetLosses;
use crate::run::teacher::Teacher;
use crate::run::tensorboard::EventWriter;

/// Starts a run on `data` in a new folder, which it reports. Paths in the settings are kept as absolute
/// paths.
///
/// # Errors
/// Input errors come before anything is written.
pub fn train(
    config: &TrainConfig,
    data: &Splits,
    out: Destination,
    control: Control,
) -> Result<Outcome> {
    config.method.expect_learned()?;
    let config = with_absolute_paths(config);
    let session = Session::prepare(&config, data, control.device, None)?;
    let folder = out.create(&config)?;
    (control.report)(&Event::Started {
        folder: folder.path(),
    });
    start(&session, folder, control, Stage::Done)
}

/// Resumes the run in `folder` with its own settings, whose images are `data` (see
/// [`load_data`](crate::load_data)); `threads` may be another number.
///
/// # Errors
/// If the folder holds no run, or no snapshot in it is whole.
pub fn resume(folder: &Path, data: &Splits, control: Control) -> Result<Outcome> {
    let (folder, config) = RunFolder::open(folder)?;
    config.method.expect_learned()?;
    let session = kept_session(&folder, &config, data, control.device)?;
    start(&session, folder, control, Stage::Done)
}

/// Trains in the folder `out` up to the end of the stage `last`, and nothing after it; resumes a
/// run of the same settings that was stopped.
///
/// # Errors
/// As for [`train`], or if the folder holds a run of other settings.
pub fn train_through(
    config: &TrainConfig,
    data: &Splits,
    out: &Path,
    last: Stage,
    control: Control,
) -> Result<Outcome> {
    let config = with_absolute_paths(config);
    if !RunFolder::holds_run(out) {
        let session = Session::prepare(&config, data, control.device, None)?;
        let folder = Destination::Folder(out).create(&config)?;
        return start(&session, folder, control, last);
    }
    let (folder, found) = RunFolder::open(out)?;
    if with_absolute_paths(&found).learnt()? != config.learnt()? {
        return Err(Error::Folder {
            path: out.to_path_buf(),
            message: "holds a run of other settings; choose another folder, or remove this one"
                .into(),
        });
    }
    let session = kept_session(&folder, &config, data, control.device)?;
    start(&session, folder, control, last)
}

/// The session of a run that is resumed: it starts from the dense model that it keeps itself.
pub(super) fn kept_session<'d>(
    folder: &RunFolder,
    config: &TrainConfig,
    data: &'d Splits,
    device: &Device,
) -> Result<Session<'d>> {
    let dense = folder.dense();
    let kept = dense.exists().then_some(dense.as_path());
    Session::prepare(config, data, device, kept)
}

/// Reads the settings of the run in `folder`.
///
/// # Errors
/// If the folder holds no run.
pub fn run_config(folder: &Path) -> Result<TrainConfig> {
    RunFolder::read_config(folder)
}

/// Reads the settings of the run that a checkpoint belongs to: `checkpoint` is the run's folder, or
/// lies in it. None if there is no such run.
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

/// Resumes from the newest whole snapshot, or starts at the beginning, and runs to the end of `last`.
pub(super) fn start(
    session: &Session<'_>,
    folder: RunFolder,
    control: Control,
    last: Stage,
) -> Result<Outcome> {
    let mark = session.mark(folder.mark())?;
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
    if progress.stage < Stage::Done {
        // They are of the run before it was extended.
        folder.remove_results()?;
    }
    let config = &session.config;
    let starts = Start::now(control.commit, &config.device, config.seed);
    record_start(&folder.starts(), starts)?;
    let events = config
        .tensorboard
        .then(|| EventWriter::create(folder.path(), progress.steps_of_all()))
        .transpose()?;
    let mut run = Run {
        session,
        loader: session.loader()?,
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

/// A run that is in progress.
#[derive(Debug)]
pub(crate) struct Run<'s, 'c> {
    pub(crate) session: &'s Session<'s>,
    /// Makes the batches of both stages.
    pub(crate) loader: Loader,
    /// For TensorBoard, if asked for.
    pub(crate) events: Option<EventWriter>,
    pub(crate) folder: RunFolder,
    /// What binds snapshots to this run.
    pub(crate) mark: u32,
    pub(crate) control: Control<'c>,
    pub(crate) progress: Progress,
    seconds_before: f64,
    /// The stage after which it ends.
    pub(crate) last: Stage,
    started: Instant,
    pub(crate) saved: Instant,
}

/// Whether to continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
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
            if self.session.config.fine_tune.is_off() {
                self.folder.keep(given, &self.folder.dense())?;
                self.progress.enter(Stage::Adaptive);
                return Ok(Flow::Continue);
            }
        }
        let start = match &self.session.given_dense {
            Some(given) => self.session.described(given)?,
            None => self.session.initial_dense()?,
        };
        let trainer = self.trainer(start, None, loaded)?;
        self.train_stage(trainer, Stage::Adaptive)
    }

    fn adaptive_stage(&mut self, loaded: Option<Snapshot>) -> Result<Flow> {
        let dense = Checkpoint::load(&self.folder.dense())?;
        let config = &self.session.config;
        let adaptive = AdaptivePart {
            teacher: Teacher::new(&dense, &config.distillation, &self.session.device)?,
            budget: BudgetLosses::new(config, &dense.config.geometry())?,
        };
        let start = self.session.initial_adaptive(&dense)?;
        if loaded.is_none() && config.method.is_learned() {
            let new = start.num_parameters() - dense.num_parameters();
            let note = format!(
                "the decision networks, {new} parameters, start untrained; all else is the dense model's"
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
        let parts = StageParts {
            schedule,
            adaptive,
            class_weights: session.class_weights()?,
        };
        let mut trainer = StageTrainer::new(&session.config, &start, parts, &session.device)?;
        if let Some(state) = state {
            trainer.load_state(&state, self.progress.step)?;
        }
        Ok(trainer)
    }

    fn train_stage(&mut self, mut trainer: StageTrainer, next: Stage) -> Result<Flow> {
        let stage = self.progress.stage;
        let total_steps = self.session.schedule(stage).total_steps;
        let per_epoch = self.session.steps_per_epoch(stage);
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

    pub(crate) fn save(&mut self, trainer: &StageTrainer) -> Result<()> {
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
    pub(crate) fn stamped(&self) -> Progress {
        Progress {
            seconds: self.seconds_before + self.started.elapsed().as_secs_f64(),
            ..self.progress.clone()
        }
    }

    /// What the adaptive stage saved at its end.
    pub(crate) fn last_snapshot(&self) -> Result<Snapshot> {
        let found = Snapshot::find(self.folder.path(), self.mark)?;
        found.snapshot.ok_or_else(|| Error::Snapshot {
            path: PathBuf::from(self.folder.path()),
            message: "the last snapshot is gone; was the folder changed?".into(),
        })
    }

    fn finish(&mut self) -> Result<Outcome> {
        // A finished run that is started again keeps the account of the program that ran it.
        if let Some(summary) = self.folder.read_summary() {
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
            allocator: test.allocator.clone(),
        };
        self.folder.write_summary(&summary)?;
        Ok(Outcome::Finished(Box::new(summary)))
    }
}
