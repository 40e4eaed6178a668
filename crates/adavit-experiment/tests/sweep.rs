//! A sweep: every kind of point, what is written of them, and that it resumes where it was stopped. Longer
//! than 400 lines, since training one sweep serves all of its checks.
#![expect(
    clippy::unwrap_used,
    reason = "the helpers here are test code, which clippy does not see"
)]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use adavit_decision::Thresholds;
use adavit_experiment::Result;
use adavit_experiment::report::write_analysis;
use adavit_experiment::sweep::{
    Efficiency, ModelKind, Point, SmallerModel, SweepConfig, Variant, measure_speeds, sweep,
};
use adavit_model::{Checkpoint, VisionTransformer};
use adavit_testing::{config, loaded, made_images, run, summary};
use adavit_train::{
    Control, Event, Images, Mode, ModelOptions, Stage, TrainConfig, calibrate, calibrate_best,
    evaluate, off_budget, run_config,
};
use candle_core::Device;

fn swept(
    config: &SweepConfig,
    recipe: &TrainConfig,
    out: &Path,
    report: &mut dyn FnMut(&Event, &AtomicBool),
) -> Result<Efficiency> {
    let stop = AtomicBool::new(false);
    let control = Control {
        stop: &stop,
        report: &mut |event| report(event, &stop),
        device: &Device::Cpu,
        commit: "test",
    };
    sweep(config, recipe, out, control)
}

/// What measuring all speeds again finds, and what it warns of.
fn timed_again(
    config: &SweepConfig,
    recipe: &TrainConfig,
    out: &Path,
) -> (Result<Efficiency>, Vec<String>) {
    let mut warnings = Vec::new();
    let stop = AtomicBool::new(false);
    let control = Control {
        stop: &stop,
        report: &mut |event| match event {
            Event::Warning(text) => warnings.push((*text).to_string()),
            Event::Step(_) => panic!("nothing is trained"),
            _ => (),
        },
        device: &Device::Cpu,
        commit: "later",
    };
    let found = measure_speeds(config, recipe, out, control);
    (found, warnings)
}

fn settings() -> SweepConfig {
    SweepConfig {
        seeds: vec![0, 1],
        budgets: vec![0.7],
        calibrated: vec![0.8],
        fine_tune_rivals: true,
        evit_blocks: vec![0, 1],
        smaller_models: vec![SmallerModel {
            name: "narrow".into(),
            budget: 0.7,
            model: ModelOptions {
                embed_dim: Some(8),
                ..ModelOptions::default()
            },
        }],
        variants: vec![Variant {
            name: "tokens".into(),
            budget: 0.7,
            against: None,
            set: "[decisions]\nada_head = \"off\"\nada_layer = false"
                .parse()
                .unwrap(),
        }],
        speed_seconds: 0.01,
        ..SweepConfig::default()
    }
}

fn recipe(data: &Path) -> TrainConfig {
    let mut recipe = config(data);
    // Enough patches for tokens to be merged.
    recipe.model.patch_size = Some(7);
    (recipe.dense.epochs, recipe.adaptive.epochs) = (1, 1);
    recipe
}

fn reduces_tokens(point: &Point) -> bool {
    matches!(
        point.kind,
        ModelKind::Evit | ModelKind::EvitTuned | ModelKind::Tome | ModelKind::TomeTuned
    )
}

/// One of each kind, with its result on each image.
fn check_points(found: &Efficiency) {
    let kinds: Vec<ModelKind> = found.points.iter().map(|point| point.kind).collect();
    for (kind, count) in [
        (ModelKind::Dense, 2),
        (ModelKind::Adaptive, 2),
        (ModelKind::Calibrated, 1),
        (ModelKind::Random, 1),
        (ModelKind::RandomTuned, 1),
        (ModelKind::Evit, 1),
        (ModelKind::EvitTuned, 1),
        (ModelKind::Tome, 1),
        (ModelKind::TomeTuned, 1),
        (ModelKind::Smaller, 1),
        (ModelKind::Variant, 1),
    ] {
        assert_eq!(
            kinds.iter().filter(|k| **k == kind).count(),
            count,
            "{kind:?}"
        );
    }
    for point in &found.points {
        assert_eq!(point.right.len(), 40, "{}", point.name);
        let right: u32 = point
            .right
            .bytes()
            .map(|digit| u32::from(digit - b'0'))
            .sum();
        assert!((f64::from(right) / f64::from(point.draws) / 40.0 - point.top1).abs() < 1e-9);
        assert!(
            point.macs_share > 0.0 && point.macs_share <= 1.01,
            "{}",
            point.name
        );
        assert!(point.speeds.iter().all(|speed| speed.images_per_s > 0.0));
        if reduces_tokens(point) {
            assert!(point.macs_share <= 0.7, "{}", point.name);
        }
        // No prepared path reduces tokens, and another path would not compare.
        let speeds = if reduces_tokens(point) { 0 } else { 2 };
        assert_eq!(point.speeds.len(), speeds, "{}", point.name);
    }
}

fn check_comparisons(found: &Efficiency) {
    let adaptive = found
        .comparisons
        .iter()
        .find(|c| c.against == "dense")
        .unwrap();
    assert_eq!(adaptive.seeds, 2);
    let mean = |kind: ModelKind| {
        let points = found.points.iter().filter(|point| point.kind == kind);
        points.map(|point| point.top1 / 2.0).sum::<f64>()
    };
    let expected = mean(ModelKind::Adaptive) - mean(ModelKind::Dense);
    assert!((adaptive.difference - expected).abs() < 1e-9);
    // Dense, three rivals twice, the smaller model and the variant.
    assert_eq!(found.comparisons.len(), 9);
    assert!(
        found
            .comparisons
            .iter()
            .all(|c| c.low <= c.difference && c.difference <= c.high)
    );
}

fn check_files(out: &Path, found: &Efficiency) {
    let csv = fs::read_to_string(out.join("efficiency.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + found.points.len());
    let json = fs::read_to_string(out.join("efficiency.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["comparisons"].as_array().unwrap().len(), 9);
    assert!(
        fs::read_to_string(out.join("efficiency.svg"))
            .unwrap()
            .starts_with("<svg")
    );
    let tables = fs::read_to_string(out.join("efficiency.md")).unwrap();
    let sections: Vec<&str> = tables.split("\n## ").skip(1).collect();
    assert_eq!(sections.len(), 4);
    let lines = |section: &str| section.lines().filter(|line| line.starts_with('|')).count();
    let of_first_seed = found
        .points
        .iter()
        .filter(|point| point.seed == settings().seeds[0]);
    let models = of_first_seed.filter(|point| point.kind != ModelKind::Variant);
    // Each table has a head and a rule; the seeds have a mean.
    for (section, (title, expected)) in sections.iter().zip([
        ("Models", models.count()),
        ("Comparisons", found.comparisons.len()),
        ("Seeds", 3),
        ("Variants", 1),
    ]) {
        assert_eq!(section.lines().next(), Some(title));
        assert_eq!(lines(section), 2 + expected, "{title}");
    }
}

#[test]
fn every_point_is_measured_once_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(&made_images(folder.path()));
    let (settings, out) = (settings(), folder.path().join("sweep"));
    // Stopped in the middle of the first adaptive model, then gone on with.
    // Data that is not there leaves the folder to another sweep.
    let mistaken = TrainConfig {
        data: folder.path().join("images-").display().to_string(),
        ..recipe.clone()
    };
    let error = swept(&settings, &mistaken, &out, &mut |_, _| ()).unwrap_err();
    assert!(error.is_input_error() && !out.exists(), "{error}");
    let stopped = swept(&settings, &recipe, &out, &mut |event, stop| {
        if matches!(event, Event::Step(step) if step.stage == Stage::Adaptive) {
            stop.store(true, Ordering::Relaxed);
        }
    });
    let stopped = stopped.unwrap();
    assert!(!stopped.complete && stopped.points.len() == 1);
    let mut steps = 0;
    // Another number of threads is no other sweep, nor are snapshots at other times.
    let threaded = TrainConfig {
        threads: Some(1),
        snapshot_seconds: 1.0,
        ..recipe.clone()
    };
    let found = swept(&settings, &threaded, &out, &mut |event, _| {
        steps += u64::from(matches!(event, Event::Step(_)));
    });
    let found = found.unwrap();
    assert!(found.complete && steps > 0);

    check_points(&found);
    check_comparisons(&found);
    check_files(&out, &found);

    let again = swept(&settings, &recipe, &out, &mut |event, _| {
        assert!(!matches!(event, Event::Step(_)), "nothing is left to train");
    });
    assert_eq!(again.unwrap(), found);
    check_stop_in_the_middle(&settings, &recipe, &out, found.points.len());
    check_other_machines(&settings, &recipe, &out);
    check_refusals(&settings, &recipe, &out);
    // The dense checkpoint of a rival is not the model that was measured.
    let rival = out.join("runs").join("evit-tuned-0.7-s0");
    let error = write_analysis(
        &rival,
        loaded(&recipe).test.as_ref(),
        folder.path(),
        &Device::Cpu,
    )
    .unwrap_err();
    assert!(error.to_string().contains("token reduction"), "{error}");
}

/// A budget that no shift of all thresholds meets is met by the tokens alone.
fn check_calibration(run: &Path) {
    let mut trained = Checkpoint::load(&run.join("best")).unwrap();
    let config = run_config(run).unwrap();
    let data = loaded(&config).train;
    let all: Vec<u32> = (0..data.len() as u32).collect();
    let images = Images {
        dataset: data.as_ref(),
        indices: &all,
        normalization: &data.normalization().unwrap(),
        batch_size: 30,
        device: &Device::Cpu,
    };
    trained.config.decisions.as_mut().unwrap().thresholds = Thresholds::default();
    // Heads and sub-layers have one logit, so that they go all at once; the tokens' differ.
    for (name, tensor) in &mut trained.tensors {
        let piece = |piece: &str| name.split('.').any(|other| other == piece);
        let (scale, shift) = match (piece("head_select") || piece("layer_select"), piece("bias")) {
            (true, true) => (0.0, 0.1),
            (true, false) => (0.0, 0.0),
            (false, true) if piece("token_select") => (0.0, 2.0),
            (false, false) if piece("token_select") => (30.0, 0.0),
            _ => continue,
        };
        *tensor = tensor.affine(scale, shift).unwrap();
    }
    let budget = 0.6;
    let met = |share: f64| off_budget(share, budget).is_none();
    let mut model = trained.model(&Device::Cpu).unwrap();
    let thresholds = |model: &VisionTransformer| {
        let decisions = model.config().decisions.as_ref();
        decisions.unwrap().thresholds
    };
    let before = thresholds(&model);
    let together = calibrate(&mut model, &images, budget).unwrap();
    assert!(!met(together.macs_share), "{}", together.macs_share);
    let mut model = trained.model(&Device::Cpu).unwrap();
    let best = calibrate_best(&mut model, &images, budget).unwrap();
    assert!(met(best.macs_share), "{}", best.macs_share);
    let after = thresholds(&model);
    assert_eq!((after.heads, after.blocks), (before.heads, before.blocks));
    assert!(after.tokens > before.tokens);
    // The model has the thresholds of what is returned.
    let again = evaluate(&model, &images, Mode::Masked).unwrap();
    assert_eq!((again.top1, again.macs), (best.top1, best.macs));
}

/// A sweep that is stopped in the middle shows the points behind it.
fn check_stop_in_the_middle(settings: &SweepConfig, recipe: &TrainConfig, out: &Path, all: usize) {
    fs::remove_dir_all(out.join("runs").join("smaller-narrow")).unwrap();
    fs::remove_file(out.join("points").join("smaller-narrow.json")).unwrap();
    let stopped = swept(settings, recipe, out, &mut |event, stop| {
        if matches!(event, Event::Step(_)) {
            stop.store(true, Ordering::Relaxed);
        }
    });
    let stopped = stopped.unwrap();
    assert!(!stopped.complete);
    assert_eq!(stopped.points.len(), all - 1);
    assert!(
        swept(settings, recipe, out, &mut |_, _| ())
            .unwrap()
            .complete
    );
}

/// A point that was measured elsewhere is kept, and named.
fn check_other_machines(settings: &SweepConfig, recipe: &TrainConfig, out: &Path) {
    let path = out.join("points").join("smaller-narrow.json");
    let text = fs::read_to_string(&path).unwrap();
    let mut point: serde_json::Value = serde_json::from_str(&text).unwrap();
    point["machine"]["cpu"] = "another".into();
    fs::write(&path, serde_json::to_vec(&point).unwrap()).unwrap();
    let mut warnings = Vec::new();
    let found = swept(settings, recipe, out, &mut |event, _| {
        if let Event::Warning(text) = event {
            warnings.push((*text).to_string());
        }
    });
    let found = found.unwrap();
    let here = found.points[0].machine.clone();
    assert!(found.points.iter().any(|point| point.machine != here));
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}");
    };
    assert!(warning.contains("smaller-narrow were measured on another machine"));
    check_speeds_again(settings, recipe, out, &found);
}

/// Speeds are measured again without a training, and nothing else of the points changes.
fn check_speeds_again(
    settings: &SweepConfig,
    recipe: &TrainConfig,
    out: &Path,
    before: &Efficiency,
) {
    let stop = AtomicBool::new(true);
    let control = Control {
        stop: &stop,
        report: &mut |_| (),
        device: &Device::Cpu,
        commit: "later",
    };
    let stopped = measure_speeds(settings, recipe, out, control).unwrap();
    assert!(!stopped.complete);
    assert_eq!(stopped.points, before.points);
    // The time of a dense model and of random decisions does not depend on the weights, that of an
    // adaptive model does.
    for gone in ["smaller-narrow", "random-tuned-0.7-s0", "adaptive-0.7-s1"] {
        fs::remove_dir_all(out.join("runs").join(gone)).unwrap();
    }
    let (found, warnings) = timed_again(settings, recipe, out);
    let found = found.unwrap();
    assert!(found.complete);
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}");
    };
    assert!(warning.starts_with("adaptive-0.7-s1: expected its weights"));
    for (now, then) in found.points.iter().zip(&before.points) {
        let kept = now.name == "adaptive-0.7-s1" || reduces_tokens(now);
        let expected = if kept { "test" } else { "later" };
        assert_eq!(now.speeds_commit, expected, "{}", now.name);
        assert_eq!(now.machine, before.points[0].machine);
        assert_eq!((&now.right, &now.commit), (&then.right, &then.commit));
    }
    let empty = out.with_file_name("empty");
    let (nothing, _) = timed_again(settings, recipe, &empty);
    assert!(nothing.unwrap_err().to_string().contains("expected points"));
    assert!(!empty.exists());
}

/// Settings under which the points that are there would be others.
fn check_refusals(settings: &SweepConfig, recipe: &TrainConfig, out: &Path) {
    let refused = |settings: &SweepConfig, recipe: &TrainConfig, expected: &str| {
        let error = swept(settings, recipe, out, &mut |_, _| ()).unwrap_err();
        assert!(error.is_input_error());
        assert!(error.to_string().contains(expected), "{error}");
    };
    let mut changed = settings.clone();
    changed.evit_blocks = vec![0];
    refused(&changed, recipe, "another evit_blocks");
    let mut other = recipe.clone();
    other.batch_size = 16;
    refused(settings, &other, "another recipe");
    // A model that was left out comes back as what it was, or not at all.
    let mut without = settings.clone();
    without.variants.clear();
    assert!(
        swept(&without, recipe, out, &mut |_, _| ())
            .unwrap()
            .complete
    );
    let mut back = settings.clone();
    back.variants[0].set = "[decisions]\nada_layer = false".parse().unwrap();
    refused(&back, recipe, "another variant model");
    fs::write(out.join("sweep.toml"), "sweep = ").unwrap();
    refused(settings, recipe, "sweep.toml");
}

#[test]
fn a_run_of_a_sweep_is_analysed() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(&made_images(folder.path()));
    let settings = SweepConfig {
        budgets: vec![0.7],
        rivals: Vec::new(),
        speed_seconds: 0.01,
        ..SweepConfig::default()
    };
    let out = folder.path().join("sweep");
    let found = swept(&settings, &recipe, &out, &mut |_, _| ()).unwrap();
    // The same models as those of a run, on the same images.
    let trained = TrainConfig {
        budget: 0.7,
        ..recipe
    };
    let trained = run(&trained, &folder.path().join("run"), &mut |_| ()).unwrap();
    let trained = summary(trained);
    assert_eq!(found.points[0].top1, trained.dense.top1);
    assert_eq!(found.points[1].top1, trained.adaptive.top1);
    assert_eq!(found.points[1].macs, trained.adaptive.macs);

    let run = out.join("runs").join("adaptive-0.7-s0");
    check_calibration(&run);
    let pictures = folder.path().join("analysis");
    let test = loaded(&run_config(&run).unwrap()).test;
    let analysis = write_analysis(&run, test.as_ref(), &pictures, &Device::Cpu).unwrap();
    assert_eq!(analysis.images, 40);
    assert!((analysis.top1 - found.points[1].top1).abs() < 1e-9);
    assert!((-1.0..=1.0).contains(&analysis.macs_and_dense_loss));
    assert_eq!(
        analysis
            .classes
            .iter()
            .map(|class| class.images)
            .sum::<u64>(),
        40
    );
    for name in [
        "analysis.json",
        "usage.svg",
        "least.png",
        "most.png",
        "easiest.png",
        "hardest.png",
    ] {
        assert!(
            fs::metadata(pictures.join(name)).unwrap().len() > 100,
            "{name}"
        );
    }
}

#[test]
fn every_shipped_sweep_is_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let paths = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let sweeps: Vec<_> = paths
        .filter(|path| path.to_string_lossy().ends_with("_sweep.toml"))
        .map(|path| SweepConfig::read(&path).unwrap())
        .collect();
    assert_eq!(sweeps.len(), 1);
}
