//! A training run: the plain model, the adaptive one from it, both on the test images; with
//! snapshots from which it goes on exactly.

mod test_stage;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use adavit_model::Checkpoint;

use crate::config::TrainConfig;
use crate::data::{batches, epoch_order, make_batch};
use crate::environment::{Start, record_start};
use crate::evaluate::{Evaluation, Mode, calibrate, evaluate};
use crate::event::{Control, Event, Outcome, StepReport};
use crate::folder::RunFolder;
use crate::progress::{EpochSums, KeptEpoch, MetricsRow, Progress, Score, Stage};
use crate::report::write_report;
use crate::session::Session;
use crate::snapshot::{Snapshot, remove};
use crate::stage::{AdaptivePart, Place, StageTrainer, StepOutput};
use crate::summary::{RandomSummary, Summary};
use crate::tensorboard::EventWriter;
use crate::{Error, Result};

/// Steps between two entries of the event files.
const EVENT_STEPS: u64 = 20;

/// How far from the budget MACs may be, relative to it.
const BUDGET_TOLERANCE: f64 = 0.02;

/// Starts a run in the folder `out`, which is made; with `force` what a run left there is removed.
///
/// # Errors
/// Input errors come before anything is written.
pub fn train(config: &TrainConfig, out: &Path, force: bool, control: Control) -> Result<Outcome> {
    let session = Session::prepare(config, None)?;
    let folder = RunFolder::create(out, force, config)?;
    start(&session, folder, control)
}

/// Goes on with the run in `folder`, with its own configuration; `threads` may be another number.
///
/// # Errors
/// If the folder holds no run, or no snapshot in it is whole.
pub fn resume(folder: &Path, control: Control) -> Result<Outcome> {
    let (folder, config) = RunFolder::open(folder)?;
    let dense = folder.dense();
    let kept_dense = dense.exists().then_some(dense.as_path());
    let session = Session::prepare(&config, kept_dense)?;
    start(&session, folder, control)
}

/// Reads the settings of the run in `folder`.
///
/// # Errors
/// If the folder holds no run.
pub fn run_config(folder: &Path) -> Result<TrainConfig> {
    RunFolder::read_config(folder)
}

/// Goes on from the newest whole snapshot, or from the beginning.
fn start(session: &Session, folder: RunFolder, control: Control) -> Result<Outcome> {
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
        loop {
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
        let adaptive = AdaptivePart {
            teacher: dense.model(&self.session.device)?,
            usage: self.session.config.usage_loss(&dense.config.geometry()),
        };
        let start = self.session.initial_adaptive(&dense)?;
        if loaded.is_none() {
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

    /// The rest of the present epoch, with a snapshot from time to time.
    fn train_epoch(&mut self, trainer: &mut StageTrainer, total_steps: u64) -> Result<Flow> {
        let session = self.session;
        let config = &session.config;
        let epoch = self.keyed_epoch();
        let order = epoch_order(&session.split.train, config.seed, epoch);
        let augment = config.augment.keyed(config.seed, epoch);
        let done = self.progress.step_in_epoch as usize;
        for indices in batches(&order, config.batch_size).skip(done) {
            if self.progress.step == total_steps {
                break;
            }
            if self.control.stop.load(Ordering::Relaxed) {
                return Ok(Flow::Stop);
            }
            let start = Instant::now();
            let train = &session.data.train;
            let batch = make_batch(
                train,
                indices,
                Some(&augment),
                &session.stats,
                &session.device,
            )?;
            self.progress.sums.data_seconds += start.elapsed().as_secs_f64();
            let place = Place {
                epoch,
                step: self.progress.step,
            };
            let output = trainer.step(&batch, place)?;
            self.count_step(&output, indices.len() as u64, start.elapsed().as_secs_f64());
            self.report_step(&output, total_steps)?;
            if self.saved.elapsed().as_secs_f64() >= config.snapshot_seconds {
                self.save(trainer)?;
            }
        }
        Ok(Flow::Continue)
    }

    /// The number that keys order, augmentation and noise: no epoch of a run shares it.
    fn keyed_epoch(&self) -> u64 {
        match self.progress.stage {
            Stage::Dense => self.progress.epoch,
            _ => self.session.config.dense.epochs + self.progress.epoch,
        }
    }

    fn count_step(&mut self, output: &StepOutput, images: u64, seconds: f64) {
        let progress = &mut self.progress;
        progress.step += 1;
        progress.step_in_epoch += 1;
        progress.trained_images += images;
        progress.training_seconds += seconds;
        let weight = images as f64;
        let sums = &mut progress.sums;
        sums.images += images;
        sums.task += output.losses.task * weight;
        sums.distillation += output.losses.distillation * weight;
        sums.usage += output.losses.usage * weight;
        sums.right += output.top1 * weight;
        sums.grad_norm += output.grad_norm * weight;
        sums.lr = output.lr;
        sums.seconds += seconds;
    }

    fn report_step(&mut self, output: &StepOutput, total_steps: u64) -> Result<()> {
        let progress = &self.progress;
        let sums = &progress.sums;
        let mean = |sum: f64| sum / sums.images.max(1) as f64;
        let seconds = sums.seconds.max(1e-9);
        let report = StepReport {
            stage: progress.stage,
            epoch: progress.epoch + 1,
            epochs: total_steps.div_ceil(self.session.steps_per_epoch()),
            step: progress.step,
            steps: total_steps,
            task_loss: mean(sums.task),
            distillation_loss: mean(sums.distillation),
            usage_loss: mean(sums.usage),
            lr: output.lr,
            images_per_s: sums.images as f64 / seconds,
            data_wait: sums.data_seconds / seconds,
            seconds_left: (total_steps - progress.step) as f64 * seconds
                / progress.step_in_epoch.max(1) as f64,
        };
        (self.control.report)(&Event::Step(&report));
        if progress.step.is_multiple_of(EVENT_STEPS) {
            let losses = output.losses;
            self.write_events(
                "step",
                &[
                    ("loss", losses.task + losses.distillation + losses.usage),
                    ("lr", output.lr),
                    ("grad_norm", output.grad_norm),
                    ("images_per_s", report.images_per_s),
                ],
            )?;
        }
        Ok(())
    }

    /// Writes values for TensorBoard, named `STAGE_KIND/NAME`, over the steps of both stages.
    fn write_events(&mut self, kind: &str, values: &[(&str, f64)]) -> Result<()> {
        let Some(events) = &mut self.events else {
            return Ok(());
        };
        let stage = self.progress.stage;
        let named = values.iter();
        let named: Vec<(String, f64)> = named
            .map(|(name, value)| (format!("{}_{kind}/{name}", stage.name()), *value))
            .collect();
        events.scalars(self.progress.steps_of_all(), &named)
    }

    /// Measures the epoch's model on the held-out images, keeps it if it is the best so far, and
    /// writes the epoch down.
    fn finish_epoch(&mut self, trainer: &StageTrainer, total_steps: u64) -> Result<()> {
        let session = self.session;
        let mut checkpoint = trainer.averaged()?;
        let images = session.images(&session.data.train, &session.split.held_out);
        let (evaluation, eligible, folder) = if self.progress.stage == Stage::Dense {
            let model = checkpoint.model(&session.device)?;
            let evaluation = evaluate(&model, &images, Mode::Dense)?;
            (evaluation, true, self.folder.dense())
        } else {
            let eligible = self.meets_budget(total_steps);
            let mut model = checkpoint.model(&session.device)?;
            let evaluation = if eligible && session.config.targets.is_none() {
                let evaluation = calibrate(&mut model, &images, session.config.budget)?;
                self.warn_off_budget(evaluation.macs_share);
                evaluation
            } else {
                evaluate(&model, &images, Mode::Masked)?
            };
            checkpoint.config = model.config().clone();
            (evaluation, eligible, self.folder.best())
        };
        let score = Score {
            within_budget: self.within_budget(evaluation.macs_share),
            top1: evaluation.top1,
        };
        let best = eligible && self.progress.best.is_none_or(|best| score.beats(best));
        if best {
            self.folder.keep(&checkpoint, &folder)?;
            self.progress.best = Some(score);
            self.progress.epochs_since_best = 0;
        } else if self.progress.best.is_some() {
            self.progress.epochs_since_best += 1;
        }
        if eligible {
            self.keep_epoch(&checkpoint, score)?;
        }
        let row = self.row(&evaluation, best);
        self.write_events("epoch", &row.values())?;
        (self.control.report)(&Event::EpochFinished(&row));
        let progress = &mut self.progress;
        progress.rows.push(row);
        progress.epoch += 1;
        progress.step_in_epoch = 0;
        progress.sums = EpochSums::default();
        self.folder.write_metrics(&self.progress.rows)
    }

    /// Keeps this epoch's checkpoint if it is one of the best so far, and removes the one that no
    /// longer is.
    fn keep_epoch(&mut self, checkpoint: &Checkpoint, score: Score) -> Result<()> {
        let (stage, keep) = (self.progress.stage, self.session.config.keep);
        let epoch = self.progress.epoch + 1;
        let mut kept: Vec<KeptEpoch> = self.progress.kept.clone();
        // An epoch that a killed run had kept already.
        kept.retain(|kept| (kept.stage, kept.epoch) != (stage, epoch));
        let (mut of_stage, others): (Vec<_>, Vec<_>) =
            kept.into_iter().partition(|kept| kept.stage == stage);
        let better = of_stage
            .iter()
            .filter(|kept| !score.beats(kept.score))
            .count();
        if better >= keep {
            return Ok(());
        }
        self.folder
            .keep(checkpoint, &self.folder.epoch(stage, epoch))?;
        of_stage.insert(
            better,
            KeptEpoch {
                stage,
                epoch,
                score,
            },
        );
        for gone in of_stage.split_off(keep.min(of_stage.len())) {
            remove(&self.folder.epoch(stage, gone.epoch))?;
        }
        self.progress.kept = others.into_iter().chain(of_stage).collect();
        Ok(())
    }

    /// Whether a share of the plain model's MACs is what was asked for; the plain stage and targets
    /// per axis ask for none.
    fn within_budget(&self, share: f64) -> bool {
        let config = &self.session.config;
        self.progress.stage == Stage::Dense
            || config.targets.is_some()
            || share <= config.budget * (1.0 + BUDGET_TOLERANCE)
    }

    fn warn_off_budget(&mut self, share: f64) {
        let budget = self.session.config.budget;
        if (share - budget).abs() > BUDGET_TOLERANCE * budget {
            let text = format!(
                "the gates allow {share:.3} of the plain model's MACs, where {budget:.3} was asked for"
            );
            (self.control.report)(&Event::Warning(&text));
        }
    }

    /// Whether the budget loss has had its full weight, so that this epoch's model may be `best`;
    /// the last epoch's always may.
    fn meets_budget(&self, total_steps: u64) -> bool {
        let done = self.progress.step as f64 / total_steps as f64;
        let ramp = &self.session.config.usage.ramp;
        self.progress.step == total_steps || done >= f64::midpoint(ramp.end, 1.0)
    }

    fn row(&self, evaluation: &Evaluation, best: bool) -> MetricsRow {
        let progress = &self.progress;
        let sums = &progress.sums;
        let mean = |sum: f64| sum / sums.images.max(1) as f64;
        MetricsRow {
            stage: progress.stage,
            epoch: progress.epoch + 1,
            steps: progress.step,
            lr: sums.lr,
            loss: mean(sums.task + sums.distillation + sums.usage),
            task_loss: mean(sums.task),
            distillation_loss: mean(sums.distillation),
            usage_loss: mean(sums.usage),
            grad_norm: mean(sums.grad_norm),
            train_top1: mean(sums.right),
            held_out_top1: evaluation.top1,
            held_out_macs_share: evaluation.macs_share,
            tokens: evaluation.usage.tokens,
            heads: evaluation.usage.heads,
            blocks: evaluation.usage.blocks,
            best,
            images_per_s: sums.images as f64 / sums.seconds.max(1e-9),
            seconds: sums.seconds,
        }
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
