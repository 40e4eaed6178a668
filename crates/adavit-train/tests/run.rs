//! Whole runs on a few made images: what a killed, an interrupted and an untouched run leave. Longer than
//! 400 lines, since these runs are compared with one another by the same helpers.
#![expect(
    clippy::unwrap_used,
    reason = "the helpers here are test code, which clippy does not see"
)]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use adavit_testing::{config, copy_folder, loaded, made_images, resumed, run, summary};
use adavit_train::{
    Control, Destination, Event, Method, ModelOptions, Outcome, Result, Summary, TrainConfig, train,
};
use candle_core::Device;

/// Everything that a run leaves and that does not depend on the time it took.
fn results(out: &Path) -> Vec<(String, Vec<u8>)> {
    let mut results: Vec<(String, Vec<u8>)> = ["dense", "best", "last"]
        .iter()
        .flat_map(|folder| {
            ["model.safetensors", "config.json"].map(|file| format!("{folder}/{file}"))
        })
        .chain(["last/state.safetensors".to_string()])
        .map(|name| {
            let bytes = fs::read(out.join(&name)).unwrap();
            (name, bytes)
        })
        .collect();
    let metrics = fs::read_to_string(out.join("metrics.csv")).unwrap();
    let without_times: Vec<String> = metrics
        .lines()
        .map(|line| {
            let columns: Vec<&str> = line.split(',').collect();
            columns[..columns.len() - 2].join(",")
        })
        .collect();
    results.push(("metrics".into(), without_times.join("\n").into_bytes()));
    let summary = fs::read_to_string(out.join("summary.json")).unwrap();
    let timed = ["_per_s\"", "\"realised\"", "\"seconds\""];
    let without_times: Vec<&str> = summary
        .lines()
        .filter(|line| !timed.iter().any(|name| line.contains(name)))
        .collect();
    results.push(("summary".into(), without_times.join("\n").into_bytes()));
    results
}

fn assert_same_results(a: &Path, b: &Path, when: &str) {
    for ((name, ours), (_, theirs)) in results(a).into_iter().zip(results(b)) {
        assert!(ours == theirs, "{when}: {name} differs");
    }
}

#[test]
fn every_shipped_recipe_is_valid_and_the_main_job_is_the_default() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let mut found = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().ends_with("_sweep.toml") {
            continue;
        }
        let config = TrainConfig::from_toml(&fs::read_to_string(&path).unwrap()).unwrap();
        config.validate().unwrap();
        if path.ends_with("fashion_mnist_subset_nano.toml") {
            assert_eq!(config, TrainConfig::default());
            found += 1;
        }
    }
    assert_eq!(found, 1);
}

#[test]
fn a_run_leaves_what_its_summary_says() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&made_images(folder.path()));
    let out = folder.path().join("run");
    let mut left = None;
    let summary = summary(
        run(&config, &out, &mut |event| {
            if let (Event::Step(step), None) = (event, left) {
                left = Some((step.seconds_left * step.images_per_s / 32.0, step.steps));
            }
        })
        .unwrap(),
    );
    // After the first step: the others of the dense stage, and as many of the adaptive one.
    let (left, steps) = left.unwrap();
    assert!(
        (left - (2 * steps - 1) as f64).abs() < 1e-6,
        "{left} steps of {steps}"
    );
    let text = fs::read_to_string(out.join("summary.json")).unwrap();
    assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), summary);
    assert!(summary.adaptive.macs < summary.dense.macs as f64);
    let time_saved = summary.adaptive.images_per_s.unwrap() / summary.dense.images_per_s;
    let compute_saved = summary.dense.macs as f64 / summary.adaptive.macs;
    let realised = summary.adaptive.realised.unwrap();
    assert!(realised > 0.0 && (realised - time_saved / compute_saved).abs() < 1e-6);
    let metrics = fs::read_to_string(out.join("metrics.csv")).unwrap();
    let epochs: Vec<String> = metrics
        .lines()
        .skip(1)
        .map(|line| line.split(',').take(2).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(epochs, ["dense 1", "dense 2", "adaptive 1", "adaptive 2"]);
    let text = fs::read_to_string(out.join("config.toml")).unwrap();
    assert_eq!(TrainConfig::from_toml(&text).unwrap(), config);
    for folder in ["dense", "best", "last"] {
        adavit_model::Checkpoint::load(&out.join(folder)).unwrap();
    }
}

#[test]
fn one_seed_gives_one_result_and_another_seed_another() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&made_images(folder.path()));
    let out = |name: &str| folder.path().join(name);
    run(&config, &out("a"), &mut |_| ()).unwrap();
    run(&config, &out("b"), &mut |_| ()).unwrap();
    assert_same_results(&out("a"), &out("b"), "same seed");
    let other = TrainConfig { seed: 1, ..config };
    run(&other, &out("c"), &mut |_| ()).unwrap();
    let weights = |name| fs::read(out(name).join("last/model.safetensors")).unwrap();
    assert_ne!(weights("a"), weights("c"));
}

#[test]
fn a_run_killed_anywhere_goes_on_to_the_same_result() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&made_images(folder.path()));
    // A snapshot after every step, so that the copies below are of different moments.
    config.snapshot_seconds = 1e-9;
    let whole = folder.path().join("whole");
    let mut copies = 0;
    // A copy of the folder in the middle of the run is what a kill at that moment leaves.
    run(&config, &whole, &mut |event| {
        if matches!(
            event,
            Event::Step { .. } | Event::EpochFinished(_) | Event::Tested { .. }
        ) {
            copy_folder(&whole, &folder.path().join(format!("killed-{copies}")));
            copies += 1;
        }
    })
    .unwrap();
    assert!(copies > 15, "{copies}");
    for copy in 0..copies {
        let out = folder.path().join(format!("killed-{copy}"));
        summary(resumed(&out, &mut |_| ()).unwrap());
        assert_same_results(&whole, &out, &format!("copy {copy}"));
    }
}

#[test]
fn a_run_killed_before_its_first_snapshot_starts_again() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&made_images(folder.path()));
    let out = |name: &str| folder.path().join(name);
    run(&config, &out("whole"), &mut |_| ()).unwrap();
    fs::create_dir(out("killed")).unwrap();
    fs::copy(
        out("whole").join("config.toml"),
        out("killed").join("config.toml"),
    )
    .unwrap();
    summary(resumed(&out("killed"), &mut |_| ()).unwrap());
    assert_same_results(&out("whole"), &out("killed"), "no snapshot");
}

#[test]
fn a_stopped_run_is_saved_and_goes_on_to_the_same_result() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&made_images(folder.path()));
    let out = |name: &str| folder.path().join(name);
    run(&config, &out("whole"), &mut |_| ()).unwrap();
    for stop_after in [1, 4, 8] {
        let name = format!("stopped-{stop_after}");
        let stop = AtomicBool::new(false);
        let mut steps = 0;
        let mut watch = |event: &Event| {
            if matches!(event, Event::Step { .. }) {
                steps += 1;
                stop.store(steps >= stop_after, Ordering::Relaxed);
            }
        };
        let control = Control {
            stop: &stop,
            report: &mut watch,
            device: &Device::Cpu,
            commit: "test",
        };
        let outcome = train(
            &config,
            &loaded(&config),
            Destination::Folder(&out(&name)),
            control,
        )
        .unwrap();
        assert!(matches!(outcome, Outcome::Interrupted));
        summary(resumed(&out(&name), &mut |_| ()).unwrap());
        assert_same_results(&out("whole"), &out(&name), &name);
    }
}

#[test]
fn a_damaged_last_snapshot_is_named_and_the_previous_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&made_images(folder.path()));
    config.snapshot_seconds = 1e-9;
    let (whole, damaged) = (folder.path().join("whole"), folder.path().join("damaged"));
    let mut steps = 0;
    run(&config, &whole, &mut |event| {
        steps += usize::from(matches!(event, Event::Step { .. }));
        if steps == 5 && !damaged.exists() {
            copy_folder(&whole, &damaged);
        }
    })
    .unwrap();
    let file = damaged.join("last/state.safetensors");
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let mut warnings = Vec::new();
    let outcome = resumed(&damaged, &mut |event| {
        if let Event::Warning(text) = event {
            warnings.push((*text).to_string());
        }
    });
    summary(outcome.unwrap());
    assert!(
        warnings[0].contains("last/state.safetensors: damaged"),
        "{warnings:?}"
    );
    assert_same_results(&whole, &damaged, "damaged");
}

#[test]
fn a_finished_run_has_nothing_left_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&made_images(folder.path()));
    let out = folder.path().join("run");
    let first = summary(run(&config, &out, &mut |_| ()).unwrap());
    let mut steps = 0;
    let again = resumed(&out, &mut |event| {
        steps += usize::from(matches!(event, Event::Step { .. }));
    });
    assert_eq!(summary(again.unwrap()).adaptive, first.adaptive);
    assert_eq!(steps, 0);
}

#[test]
fn adapting_a_given_plain_checkpoint_equals_the_run_that_trained_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&made_images(folder.path()));
    let out = |name: &str| folder.path().join(name);
    run(&config, &out("whole"), &mut |_| ()).unwrap();
    let from_dense = TrainConfig {
        dense_checkpoint: Some(out("whole").join("dense")),
        ..config
    };
    run(&from_dense, &out("adapted"), &mut |_| ()).unwrap();
    let weights = |name| fs::read(out(name).join("best/model.safetensors")).unwrap();
    assert_eq!(weights("whole"), weights("adapted"));
    // The same checkpoint does not fit another width.
    let mut wider = from_dense;
    wider.model.embed_dim = Some(32);
    let error = run(&wider, &out("wider"), &mut |_| ()).unwrap_err();
    assert!(error.is_input_error());
    assert!(!out("wider").exists());
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&made_images(folder.path()));
    config.dense.optimizer.lr = 1e30;
    config.dense.optimizer.max_grad_norm = 0.0;
    config.dense.warmup_epochs = 0.0;
    let out = folder.path().join("run");
    let error = run(&config, &out, &mut |_| ()).unwrap_err();
    assert!(!error.is_input_error());
    assert!(error.to_string().contains("not finite"), "{error}");
    // What was saved before is whole.
    adavit_model::Checkpoint::load(&out.join("last")).unwrap();
}

#[test]
fn weights_that_the_last_step_of_an_epoch_ruins_are_a_failure_of_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&made_images(folder.path()));
    config.max_steps = Some(1);
    config.dense.optimizer.lr = 1e30;
    config.dense.optimizer.max_grad_norm = 0.0;
    config.dense.warmup_epochs = 0.0;
    config.dense.ema_decay = 0.0;
    let error = run(&config, &folder.path().join("run"), &mut |_| ()).unwrap_err();
    assert!(!error.is_input_error(), "{error}");
    assert!(
        error.to_string().contains("logit of the held-out images"),
        "{error}"
    );
}

#[test]
fn two_processes_never_work_on_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&made_images(folder.path()));
    let out = folder.path().join("run");
    let mut refused = Vec::new();
    run(&config, &out, &mut |event| {
        if matches!(event, Event::Tested { .. }) && refused.is_empty() {
            let again = resumed(&out, &mut |_| ());
            refused = [again, forced(&config, &out)]
                .map(|other| other.unwrap_err().to_string())
                .into();
        }
    })
    .unwrap();
    assert_eq!(refused.len(), 2);
    assert!(
        refused
            .iter()
            .all(|error| error.contains("another process")),
        "{refused:?}"
    );
    // Nothing of it was removed.
    assert!(resumed(&out, &mut |_| ()).is_ok());
}

#[test]
fn other_data_under_the_same_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = made_images(folder.path());
    let config = config(&data);
    let out = folder.path().join("run");
    run(&config, &out, &mut |_| ()).unwrap();
    for name in ["images-idx3-ubyte.gz", "labels-idx1-ubyte.gz"] {
        fs::copy(
            data.join(format!("train-{name}")),
            data.join(format!("t10k-{name}")),
        )
        .unwrap();
    }
    let error = resumed(&out, &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("other data"), "{error}");
}

/// Starts a run with force.
fn forced(config: &TrainConfig, out: &Path) -> Result<Outcome> {
    let stop = AtomicBool::new(false);
    let control = Control {
        stop: &stop,
        report: &mut |_| (),
        device: &Device::Cpu,
        commit: "test",
    };
    train(config, &loaded(config), Destination::Replace(out), control)
}

#[test]
fn force_removes_no_folder_that_is_not_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&made_images(folder.path()));
    let out = folder.path().join("mine");
    fs::create_dir_all(out.join("best")).unwrap();
    fs::write(out.join("best/photo.txt"), "mine").unwrap();
    assert!(forced(&config, &out).unwrap_err().is_input_error());
    assert!(out.join("best/photo.txt").exists());
}

#[test]
fn force_removes_no_event_files_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&made_images(folder.path()));
    let out = folder.path().join("logs");
    fs::create_dir(&out).unwrap();
    let events = out.join("events.out.tfevents.0.else.1");
    fs::write(&events, "of another program").unwrap();
    assert!(forced(&config, &out).unwrap_err().is_input_error());
    assert!(events.exists());
}

#[test]
fn bad_input_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let good = config(&made_images(folder.path()));
    let out = folder.path().join("run");
    let wrong: [fn(&mut TrainConfig); 5] = [
        // What the adaptive model is compared with is a sweep's to train.
        |c| c.method = Method::Random { usage: Vec::new() },
        |c| c.device = "cuda".into(),
        |c| c.budget = 2.0,
        |c| c.model.patch_size = Some(5),
        |c| c.dense_checkpoint = Some("/no/such/checkpoint".into()),
    ];
    for change in wrong {
        let mut config = good.clone();
        change(&mut config);
        let error = run(&config, &out, &mut |_| ()).unwrap_err();
        assert!(error.is_input_error(), "{error}");
        assert!(!error.to_string().contains('\n'));
        assert!(!out.exists());
    }
}

#[test]
fn a_folder_of_other_files_is_refused_even_with_force() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&made_images(folder.path()));
    let out = folder.path().join("run");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("notes.txt"), "mine").unwrap();
    for refused in [run(&config, &out, &mut |_| ()), forced(&config, &out)] {
        let error = refused.unwrap_err();
        assert!(error.is_input_error(), "{error}");
    }
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(out.join("notes.txt")).unwrap(), "mine");
}

#[test]
fn a_t2t_model_trains_and_its_fixed_tensors_stay() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&made_images(folder.path()));
    config.preset = "t2t_vit_7".into();
    config.model = ModelOptions {
        img_size: Some((28, 28)),
        in_chans: Some(1),
        num_classes: Some(2),
        ..config.model
    };
    config.model.patch_size = None;
    (config.dense.epochs, config.adaptive.epochs) = (6, 4);
    // Of so small a model the token module is nearly all.
    config.budget = 0.997;
    let out = folder.path().join("run");
    summary(run(&config, &out, &mut |_| {}).unwrap());
    let metrics = fs::read_to_string(out.join("metrics.csv")).unwrap();
    let mut lines = metrics.lines();
    let column = |name: &str, header: &str| header.split(',').position(|c| c == name).unwrap();
    let header = lines.next().unwrap();
    let (stage, loss) = (column("stage", header), column("loss", header));
    let losses = |name: &str| -> Vec<f64> {
        let rows = metrics
            .lines()
            .map(|line| line.split(',').collect::<Vec<_>>());
        rows.filter(|row| row[stage] == name)
            .map(|row| row[loss].parse().unwrap())
            .collect()
    };
    let dense = losses("dense");
    assert_eq!(dense.len(), 6);
    assert!(dense[5] < 0.7 * dense[0], "{dense:?}");
    let model = config.dense_model().unwrap();
    let initial = adavit_model::initial_tensors(&model, config.seed, 0.0).unwrap();
    let trained = adavit_model::read_tensors(&out.join("best/model.safetensors")).unwrap();
    let values = |tensor: &candle_core::Tensor| {
        let flat = tensor.flatten_all().unwrap();
        flat.to_vec1::<f32>().unwrap()
    };
    for (name, tensor) in &initial {
        let fixed = name == "pos_embed" || adavit_model::is_random_features(name);
        assert_eq!(values(tensor) == values(&trained[name]), fixed, "{name}");
    }
}
