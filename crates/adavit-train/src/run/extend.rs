//! More epochs for a run that is finished or interrupted.
//!
//! The stages that are not over get the new number of epochs, and resume under the schedules of that
//! length: learning rate, temperature, noise and budget ramp all depend on the part of the stage that is
//! done. A finished run is reopened at the end of its adaptive stage; its best checkpoint stays the one to
//! beat, patience counts from there, and the test stage runs again.
//!
//! The snapshot of the new settings is written first, `config.toml` after it. If the process dies between
//! the two, the snapshot before is the one that belongs to `config.toml`, and nothing is lost.

use std::path::Path;

use adavit_data::Splits;

use crate::config::train_config::TrainConfig;
use crate::error::{Error, Result};
use crate::run::driver::{kept_session, start};
use crate::run::epoch::within_budget;
use crate::run::event::{Control, Event, Outcome};
use crate::run::folder::{RunFolder, config_mark};
use crate::run::progress::{MetricsRow, Progress, Score, Stage, TestResults};
use crate::run::session::Session;
use crate::run::snapshot::Snapshot;

/// Resumes the run in `folder` with `epochs` passes over the training images in each stage that is not
/// over; in a finished run that is the adaptive stage. A finished run of so many epochs stays as it is.
///
/// # Errors
/// As for [`resume`](crate::resume), or if a stage has begun more epochs than `epochs`, or `max_steps`
/// leaves nothing to train: input errors, before anything is written.
pub fn extend(folder: &Path, epochs: u64, data: &Splits, control: Control) -> Result<Outcome> {
    let (mut folder, config) = RunFolder::open(folder)?;
    config.method.expect_learned()?;
    let session = kept_session(&folder, &config, data, control.device)?;
    let found = Snapshot::find(folder.path(), session.mark(folder.mark())?)?;
    if let Some(warning) = &found.warning {
        (control.report)(&Event::Warning(warning));
    }
    let mut snapshot = found.snapshot;
    let progress = snapshot.as_ref().map(|snapshot| &snapshot.progress);
    let config = with_epochs(&session, progress, epochs)?;
    let reopens = progress.is_some_and(|progress| needs_reopening(progress, epochs));
    if config == session.config && !reopens {
        return start(&session, folder, control, Stage::Done);
    }
    let longer = kept_session(&folder, &config, data, control.device)?;
    let text = config.to_toml()?;
    if let Some(snapshot) = &mut snapshot {
        if reopens {
            reopen(&mut snapshot.progress, &config)?;
        }
        snapshot.write(folder.path(), longer.mark(config_mark(&text))?)?;
    }
    folder.replace_config(&text)?;
    start(&longer, folder, control, Stage::Done)
}

/// The settings with so many epochs in the stages that are not over.
fn with_epochs(
    session: &Session<'_>,
    progress: Option<&Progress>,
    epochs: u64,
) -> Result<TrainConfig> {
    let mut config = session.config.clone();
    let stage = progress.map_or(Stage::Dense, |progress| progress.stage);
    if stage == Stage::Dense && session.given_dense.is_none() {
        config.dense.epochs = epochs;
    }
    let begun = progress.map_or(0, begun_epochs);
    if epochs < begun {
        return Err(Error::Setting(format!(
            "epochs: expected at least {begun}, which the {} stage has begun, found {epochs}",
            stage.min(Stage::Adaptive).name()
        )));
    }
    // A finished run may have ended before its last epoch, for want of a better checkpoint.
    if stage <= Stage::Adaptive || epochs > begun {
        config.adaptive.epochs = epochs;
    }
    config.validate()?;
    Ok(config)
}

/// Epochs of the last stage of training that are finished or in progress.
fn begun_epochs(progress: &Progress) -> u64 {
    if is_trained(progress) {
        return adaptive_rows(progress).count() as u64;
    }
    progress.epoch + u64::from(progress.step_in_epoch > 0)
}

fn is_trained(progress: &Progress) -> bool {
    progress.stage > Stage::Adaptive
}

fn needs_reopening(progress: &Progress, epochs: u64) -> bool {
    is_trained(progress) && epochs > begun_epochs(progress)
}

fn adaptive_rows(progress: &Progress) -> impl DoubleEndedIterator<Item = &MetricsRow> {
    let rows = progress.rows.iter();
    rows.filter(|row| row.stage == Stage::Adaptive)
}

/// Puts a run that was trained back to the end of its last adaptive epoch.
fn reopen(progress: &mut Progress, config: &TrainConfig) -> Result<()> {
    let rows: Vec<MetricsRow> = adaptive_rows(progress).cloned().collect();
    let steps = rows.last().map_or(0, |row| row.steps);
    if let Some(max_steps) = config.max_steps.filter(|max_steps| steps >= *max_steps) {
        return Err(Error::Setting(format!(
            "epochs: {} train nothing more, because max_steps of this run ends the adaptive stage after \
             {max_steps} steps",
            config.adaptive.epochs
        )));
    }
    progress.enter(Stage::Adaptive);
    progress.test = TestResults::default();
    progress.epoch = rows.len() as u64;
    progress.step = steps;
    progress.best = rows.iter().rev().find(|row| row.best).map(|row| Score {
        within_budget: within_budget(config, row.held_out_macs_share),
        top1: row.held_out_top1,
    });
    Ok(())
}
