//! One epoch of a stage: its steps, their reports, and what becomes of its model.

use std::sync::atomic::Ordering;
use std::time::Instant;

use adavit_model::Checkpoint;

use crate::config::method::Method;
use crate::config::train_config::TrainConfig;
use crate::error::{Error, Result};
use crate::eval::calibration::{BUDGET_TOLERANCE, calibrate, off_budget};
use crate::eval::evaluate::evaluate;
use crate::eval::evaluation::Evaluation;
use crate::eval::mode::Mode;
use crate::run::driver::{Flow, Run};
use crate::run::elastic::evaluate_budgets;
use crate::run::event::{Event, StepReport};
use crate::run::progress::{EpochSums, KeptEpoch, MetricsRow, Score, Stage};
use crate::run::snapshot::remove;
use crate::run::stage::{Place, StageTrainer, StepGroup, StepOutput};
use adavit_data::BatchPlan;

/// Steps between two entries of the event files.
const EVENT_STEPS: u64 = 20;

impl Run<'_, '_> {
    /// The rest of the present epoch, with a snapshot from time to time.
    pub(crate) fn train_epoch(
        &mut self,
        trainer: &mut StageTrainer,
        total_steps: u64,
    ) -> Result<Flow> {
        let session = self.session;
        let config = &session.config;
        let epoch = self.keyed_epoch();
        let order = session.order(epoch);
        let per_step = session.stage_settings(self.progress.stage).accum_steps;
        let done = self.progress.step_in_epoch as usize * per_step;
        let mut plan = BatchPlan {
            augment: Some(config.augment.keyed(config.seed, epoch)),
            targets: Some(trainer.target_options()),
            ..BatchPlan::of_order(&order, config.batch_size, done)
        };
        let steps = (total_steps - self.progress.step) as usize;
        plan.batches.truncate(steps * per_step);
        let mut batches = self.loader.batches(plan)?;
        loop {
            let start = Instant::now();
            let place = Place {
                epoch,
                step: self.progress.step,
            };
            let (mut group, mut waited) = (StepGroup::default(), 0.0);
            for _ in 0..per_step {
                // What a group has so far is lost then, and done again by the resumed run.
                if self.control.stop.load(Ordering::Relaxed) {
                    return Ok(Flow::Stop);
                }
                let waiting = Instant::now();
                let Some(batch) = batches.next().transpose()? else {
                    break;
                };
                waited += waiting.elapsed().as_secs_f64();
                trainer.accumulate(&mut group, &batch, place)?;
            }
            let images = group.images();
            if images == 0 {
                return Ok(Flow::Continue);
            }
            self.progress.sums.data_seconds += waited;
            let output = trainer.step(group, place)?;
            self.count_step(&output, images, start.elapsed().as_secs_f64());
            self.report_step(&output, total_steps)?;
            if self.saved.elapsed().as_secs_f64() >= config.snapshot_seconds {
                self.save(trainer)?;
            }
        }
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
            epochs: total_steps.div_ceil(self.session.steps_per_epoch(progress.stage)),
            step: progress.step,
            steps: total_steps,
            task_loss: mean(sums.task),
            distillation_loss: mean(sums.distillation),
            usage_loss: mean(sums.usage),
            lr: output.lr,
            images_per_s: sums.images as f64 / seconds,
            data_wait: sums.data_seconds / seconds,
            seconds_left: ((total_steps - progress.step) as f64 + self.steps_of_later_stages())
                * seconds
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

    /// Optimizer steps that follow the present stage, as many as they are worth of its own.
    fn steps_of_later_stages(&self) -> f64 {
        if self.progress.stage != Stage::Dense || self.last < Stage::Adaptive {
            return 0.0;
        }
        let batches = |stage| self.session.stage_settings(stage).accum_steps as f64;
        let steps = self.session.schedule(Stage::Adaptive).total_steps as f64;
        steps * batches(Stage::Adaptive) / batches(Stage::Dense)
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
    /// writes a row of `metrics.csv`.
    pub(crate) fn finish_epoch(&mut self, trainer: &StageTrainer, total_steps: u64) -> Result<()> {
        let mut checkpoint = trainer.averaged()?;
        let (folder, eligible) = match self.progress.stage {
            Stage::Dense => (self.folder.dense(), true),
            _ => (self.folder.best(), self.may_be_best(total_steps)),
        };
        let evaluation = self.evaluate_epoch(&mut checkpoint, eligible);
        let evaluation = evaluation.map_err(|error| self.diverged(error))?;
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

    /// Names the step after which the model gives logits that are not finite.
    fn diverged(&self, error: Error) -> Error {
        match error {
            Error::Model(adavit_model::Error::NonFiniteLogit { .. }) => Error::NonFinite {
                what: "a logit of the held-out images".into(),
                step: self.progress.step.saturating_sub(1),
            },
            other => other,
        }
    }

    /// Evaluates a model on the held-out images. One that may be the best gets thresholds for the
    /// budget first.
    fn evaluate_epoch(
        &mut self,
        checkpoint: &mut Checkpoint,
        eligible: bool,
    ) -> Result<Evaluation> {
        let session = self.session;
        let config = &session.config;
        let images = session.held_out();
        let mut model = checkpoint.model(&session.device)?;
        if self.progress.stage == Stage::Dense {
            return evaluate(&model, &images, Mode::Dense);
        }
        if let Some(elastic) = &config.elastic {
            let evaluation = evaluate_budgets(config, elastic, checkpoint, &images, eligible)?;
            if eligible {
                self.warn_of_reach(checkpoint);
            }
            return Ok(evaluation);
        }
        let evaluation = match &config.method {
            Method::Learned if eligible && config.targets.is_none() => {
                let evaluation = calibrate(&mut model, &images, config.budget)?;
                if let Some(text) = off_budget(evaluation.macs_share, config.budget) {
                    (self.control.report)(&Event::Warning(&text));
                }
                evaluation
            }
            Method::Learned => evaluate(&model, &images, Mode::Masked)?,
            Method::Random { usage } => {
                let (seed, draw) = (config.seed, 0);
                evaluate(&model, &images, Mode::Random { usage, seed, draw })?
            }
            Method::Reduced { reduction } => evaluate(&model, &images, Mode::Reduced(reduction))?,
        };
        checkpoint.config = model.config().clone();
        Ok(evaluation)
    }

    /// Warns if an elastic model cannot spend as little or as much as the run's budget.
    fn warn_of_reach(&mut self, checkpoint: &Checkpoint) {
        let budget = self.session.config.budget;
        let curve = checkpoint.config.budget_curve.iter();
        let shares = curve
            .flat_map(|curve| &curve.points)
            .map(|point| point.share);
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for share in shares {
            (least, most) = (least.min(share), most.max(share));
        }
        if let Some(text) = off_budget(budget.max(least).min(most), budget) {
            (self.control.report)(&Event::Warning(&text));
        }
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

    /// Whether a share of the dense model's MACs is within the budget; the dense stage and targets
    /// per axis have none.
    fn within_budget(&self, share: f64) -> bool {
        self.progress.stage == Stage::Dense || within_budget(&self.session.config, share)
    }

    /// Whether the budget loss has reached its full weight, so that this epoch's model may be `best`.
    /// The last epoch's model always may.
    fn may_be_best(&self, total_steps: u64) -> bool {
        let done = self.progress.step as f64 / total_steps as f64;
        let config = &self.session.config;
        self.progress.step == total_steps
            || !config.method.is_learned()
            || done >= config.usage.settled_from()
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
}

/// Whether an adaptive model of this share of the dense model's MACs keeps the budget, if it has one.
pub(super) fn within_budget(config: &TrainConfig, share: f64) -> bool {
    config.targets.is_some()
        || config.elastic.is_some()
        || !config.method.is_learned()
        || share <= config.budget * (1.0 + BUDGET_TOLERANCE)
}
