//! Runs that are extended by more epochs, trial runs, and what a checkpoint records of its images.
#![expect(
    clippy::unwrap_used,
    reason = "the helpers here are test code, which clippy does not see"
)]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use adavit_model::Checkpoint;
use adavit_testing::{config, copy_folder, loaded, made_images, run, summary};
use adavit_train::{
    Control, Destination, Event, Outcome, Result, TrainConfig, extend, resume, run_config, train,
    trained_on,
};
use candle_core::Device;

/// What a run does, step by step.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    steps: usize,
    /// Stage and number of the finished epochs.
    epochs: Vec<String>,
    tests: Vec<String>,
    warnings: Vec<String>,
}

impl Seen {
    fn see(&mut self, event: &Event) {
        match event {
            Event::Step(_) => self.steps += 1,
            Event::EpochFinished(row) => {
                let name = format!("{} {}", row.stage.name(), row.epoch);
                self.epochs.push(name);
            }
            Event::Tested { what, .. } => self.tests.push((*what).to_string()),
            Event::Warning(text) => self.warnings.push((*text).to_string()),
            _ => {}
        }
    }
}

/// What is done to a run that exists.
#[derive(Clone, Copy)]
enum Then {
    Resume,
    Extend(u64),
}

/// Works on a run until `stop_after` steps.
fn work(out: &Path, then: Then, stop_after: usize) -> (Result<Outcome>, Seen) {
    work_and(out, then, stop_after, &mut |_| ())
}

/// As [`work`], with more that is done at each event.
fn work_and(
    out: &Path,
    then: Then,
    stop_after: usize,
    watch: &mut dyn FnMut(&Event),
) -> (Result<Outcome>, Seen) {
    let (stop, mut seen) = (AtomicBool::new(false), Seen::default());
    let data = loaded(&run_config(out).unwrap());
    let control = Control {
        stop: &stop,
        report: &mut |event| {
            seen.see(event);
            watch(event);
            stop.store(seen.steps >= stop_after, Ordering::Relaxed);
        },
        device: &Device::Cpu,
        commit: "test",
    };
    let outcome = match then {
        Then::Resume => resume(out, &data, control),
        Then::Extend(epochs) => extend(out, epochs, &data, control),
    };
    (outcome, seen)
}

fn finished(out: &Path, then: Then) -> Seen {
    let (outcome, seen) = work(out, then, usize::MAX);
    summary(outcome.unwrap());
    seen
}

/// Starts a run and stops it after some steps.
fn started(config: &TrainConfig, out: &Path, stop_after: usize) {
    let (stop, mut steps) = (AtomicBool::new(false), 0);
    let control = Control {
        stop: &stop,
        report: &mut |event| {
            steps += usize::from(matches!(event, Event::Step(_)));
            stop.store(steps >= stop_after, Ordering::Relaxed);
        },
        device: &Device::Cpu,
        commit: "test",
    };
    train(config, &loaded(config), Destination::Folder(out), control).unwrap();
}

/// The weights that a run leaves, and the state of its optimizer.
fn weights(out: &Path) -> Vec<Vec<u8>> {
    let files = [
        "dense/model.safetensors",
        "best/model.safetensors",
        "best/config.json",
        "last/model.safetensors",
        "last/state.safetensors",
    ];
    let read = |file| fs::read(out.join(file)).unwrap();
    files.into_iter().map(read).collect()
}

/// Steps of an epoch: 81 images are not held out.
const PER_EPOCH: usize = 3;

#[test]
fn a_finished_run_trains_only_the_epochs_that_it_is_extended_by() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&made_images(folder.path()));
    let out = folder.path().join("run");
    run(&config, &out, &mut |_| ()).unwrap();
    fs::write(out.join("report.html"), "of two epochs").unwrap();
    let dense = fs::read(out.join("dense/model.safetensors")).unwrap();
    let before = fs::read_to_string(out.join("metrics.csv")).unwrap();

    let seen = finished(&out, Then::Extend(4));
    assert_eq!(seen.epochs, ["adaptive 3", "adaptive 4"]);
    assert_eq!(seen.steps, 2 * PER_EPOCH);
    // Every model is tested again.
    assert_eq!(seen.tests.len(), 3 + 2 * config.random_policies);
    assert_eq!(
        fs::read(out.join("dense/model.safetensors")).unwrap(),
        dense
    );
    let after = fs::read_to_string(out.join("metrics.csv")).unwrap();
    assert!(after.starts_with(&before) && after.lines().count() == before.lines().count() + 2);
    let now = run_config(&out).unwrap();
    assert_eq!((now.dense.epochs, now.adaptive.epochs), (2, 4));
    // The report is of the shorter run: whoever draws reports makes it again.
    assert!(out.join("summary.json").exists() && !out.join("report.html").exists());
    // The learning rate is that of the longer schedule.
    let rate = |line: &str| line.split(',').nth(3).unwrap().parse::<f64>().unwrap();
    let rows: Vec<&str> = after.lines().skip(1).collect();
    assert!(rate(rows[4]) > rate(rows[3]), "{rows:?}");

    // As many epochs as there are: nothing is done, and the results stay.
    let results = fs::read(out.join("summary.json")).unwrap();
    assert_eq!(finished(&out, Then::Extend(4)), Seen::default());
    assert_eq!(fs::read(out.join("summary.json")).unwrap(), results);
}

#[test]
fn fewer_epochs_than_are_begun_are_refused_and_nothing_changes() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&made_images(folder.path()));
    let out = |name: &str| folder.path().join(name);
    run(&config, &out("finished"), &mut |_| ()).unwrap();
    started(&config, &out("stopped"), PER_EPOCH + 1);
    for (name, stage) in [("finished", "adaptive"), ("stopped", "dense")] {
        let before = fs::read(out(name).join("config.toml")).unwrap();
        let (outcome, seen) = work(&out(name), Then::Extend(1), usize::MAX);
        let error = outcome.unwrap_err();
        assert!(error.is_input_error());
        let expected =
            format!("epochs: expected at least 2, which the {stage} stage has begun, found 1");
        assert_eq!(error.to_string(), expected);
        assert_eq!(seen, Seen::default());
        assert_eq!(fs::read(out(name).join("config.toml")).unwrap(), before);
    }
    summary(work(&out("stopped"), Then::Resume, usize::MAX).0.unwrap());
    assert_eq!(weights(&out("finished")), weights(&out("stopped")));
}

#[test]
fn an_interrupted_run_that_is_extended_equals_one_that_was_started_so_long() {
    let folder = tempfile::tempdir().unwrap();
    let short = config(&made_images(folder.path()));
    let mut long = short.clone();
    (long.dense.epochs, long.adaptive.epochs) = (3, 3);
    // The learning rate of the first step is the same: it is warming up.
    let out = |name: &str| folder.path().join(name);
    run(&long, &out("long"), &mut |_| ()).unwrap();
    started(&short, &out("short"), 1);
    let seen = finished(&out("short"), Then::Extend(3));
    assert_eq!(seen.epochs.len(), 6);
    assert_eq!(
        run_config(&out("short")).unwrap(),
        run_config(&out("long")).unwrap()
    );
    assert_eq!(weights(&out("short")), weights(&out("long")));
}

#[test]
fn an_extended_run_resumes_to_the_same_weights_wherever_it_was_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&made_images(folder.path()));
    let out = |name: &str| folder.path().join(name);
    run(&config, &out("finished"), &mut |_| ()).unwrap();
    copy_folder(&out("finished"), &out("whole"));
    finished(&out("whole"), Then::Extend(4));
    // Before the first step, in an epoch, at its end.
    for steps in [0, 1, PER_EPOCH, PER_EPOCH + 1] {
        let stopped = out(&format!("stopped-{steps}"));
        copy_folder(&out("finished"), &stopped);
        let (outcome, _) = work(&stopped, Then::Extend(4), steps);
        assert!(matches!(outcome.unwrap(), Outcome::Interrupted));
        assert!(!stopped.join("summary.json").exists());
        let seen = finished(&stopped, Then::Resume);
        // The budget may be missed; no snapshot is refused.
        let of_budget = |warning: &String| warning.contains("gates allow");
        assert!(seen.warnings.iter().all(of_budget), "{seen:?}");
        assert_eq!(weights(&stopped), weights(&out("whole")), "{steps}");
    }
}

#[test]
fn a_process_that_dies_while_it_extends_a_run_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&made_images(folder.path()));
    let out = |name: &str| folder.path().join(name);
    run(&config, &out("finished"), &mut |_| ()).unwrap();
    copy_folder(&out("finished"), &out("extended"));
    let (outcome, _) = work_and(&out("extended"), Then::Extend(3), 0, &mut |event| {
        if matches!(event, Event::Resumed { .. }) {
            copy_folder(&out("extended"), &out("died"));
        }
    });
    assert!(matches!(outcome.unwrap(), Outcome::Interrupted));
    // The snapshot was written, the settings had not been replaced yet.
    let settings = out("finished").join("config.toml");
    fs::copy(settings, out("died").join("config.toml")).unwrap();
    let results = fs::read(out("finished").join("summary.json")).unwrap();
    let seen = finished(&out("died"), Then::Resume);
    assert_eq!((seen.steps, seen.warnings.len()), (0, 1), "{seen:?}");
    assert_eq!(fs::read(out("died").join("summary.json")).unwrap(), results);
    // And it is extended as if nothing had happened.
    finished(&out("died"), Then::Extend(3));
    finished(&out("extended"), Then::Resume);
    assert_eq!(weights(&out("died")), weights(&out("extended")));
}

#[test]
fn a_run_that_patience_ended_is_extended_with_patience_afresh() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&made_images(folder.path()));
    config.patience = Some(1);
    config.adaptive.epochs = 9;
    // Nothing is better than before where nothing is learnt.
    config.adaptive.optimizer.lr = 1e-12;
    config.adaptive.optimizer.decision_lr = 1e-12;
    let out = folder.path().join("run");
    let mut seen = Seen::default();
    run(&config, &out, &mut |event| seen.see(event)).unwrap();
    let done = seen
        .epochs
        .iter()
        .filter(|name| name.starts_with("adaptive"))
        .count();
    assert!(done < 9, "{seen:?}");
    let seen = finished(&out, Then::Extend(9));
    assert_eq!(seen.epochs, [format!("adaptive {}", done + 1)]);
}

#[test]
fn a_trial_run_measures_one_random_policy_of_each_kind_and_cannot_be_extended() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&made_images(folder.path()));
    config.random_policies = 4;
    let passes = |config: &TrainConfig, name: &str| {
        let mut seen = Seen::default();
        run(config, &folder.path().join(name), &mut |event| {
            seen.see(event);
        })
        .unwrap();
        seen.tests.len()
    };
    config.max_steps = Some(PER_EPOCH as u64 - 1);
    assert_eq!(passes(&config, "trial"), 3 + 2);
    let (outcome, _) = work(&folder.path().join("trial"), Then::Extend(9), usize::MAX);
    let error = outcome.unwrap_err();
    assert!(
        error.is_input_error() && error.to_string().contains("max_steps"),
        "{error}"
    );
    config.max_steps = Some(PER_EPOCH as u64);
    assert_eq!(passes(&config, "epoch"), 3 + 2 * 4);
}

#[test]
fn checkpoints_of_a_run_record_its_images_and_a_given_dense_one_keeps_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&made_images(folder.path()));
    let out = |name: &str| folder.path().join(name);
    let recorded = |path: &Path| Checkpoint::load(path).unwrap().config.trained_on;
    run(&config, &out("first"), &mut |_| ()).unwrap();
    let expected =
        trained_on(loaded(&config).train.as_ref(), config.held_out, config.seed).unwrap();
    for name in ["dense", "best", "last"] {
        assert_eq!(recorded(&out("first").join(name)), Some(expected.clone()));
    }
    let adapted = TrainConfig {
        dense_checkpoint: Some(out("first").join("dense")),
        seed: 5,
        ..config
    };
    let mut notes = Vec::new();
    run(&adapted, &out("second"), &mut |event| {
        if let Event::Note(text) = event {
            notes.push((*text).to_string());
        }
    })
    .unwrap();
    assert_eq!(recorded(&out("second/dense")), Some(expected));
    assert_eq!(recorded(&out("second/best")).unwrap().seed, 5);
    assert!(
        notes.iter().any(|note| note.contains("seed 0, not 5")),
        "{notes:?}"
    );
}

#[test]
fn a_run_without_a_lock_file_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&made_images(folder.path()));
    let out = folder.path().join("run");
    started(&config, &out, 1);
    fs::remove_file(out.join(".lock")).unwrap();
    finished(&out, Then::Resume);
    assert!(out.join(".lock").exists());
}
