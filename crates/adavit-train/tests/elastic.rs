//! An elastic model: one checkpoint that spends what it is asked for.
#![expect(clippy::unwrap_used, reason = "a failure anywhere here fails its test")]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use adavit_decision::{Allocation, AllocatorConfig, Allowance, Budgets};
use adavit_model::{Checkpoint, is_budget_tensor};
use adavit_testing::{config, control, loaded, made_images, resumed, run, summary};
use adavit_train::{
    Allocated, Destination, Elastic, Evaluator, Event, Outcome, Ramp, Session, Summary,
    TrainConfig, fit_allocator, train,
};
use candle_core::{Device, Tensor};

/// The settings of an elastic run that takes seconds.
fn elastic(folder: &Path) -> TrainConfig {
    let mut config = TrainConfig {
        elastic: Some(Elastic::default()),
        held_out: 0.3,
        ..config(&made_images(folder))
    };
    config.usage.macs = 20.0;
    (config.usage.tokens, config.usage.heads, config.usage.blocks) = (0.0, 0.0, 0.0);
    config
}

#[test]
fn a_trained_model_spends_what_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = elastic(folder.path());
    config.adaptive.epochs = 40;
    config.usage.ramp.end = 0.2;
    config.gates.noise_end = Ramp {
        start: 0.3,
        end: 0.6,
    };
    let out = folder.path().join("run");
    let found = summary(run(&config, &out, &mut |_| ()).unwrap());

    let checkpoint = Checkpoint::load(&out.join("best")).unwrap();
    let own = checkpoint.config.decisions.as_ref().unwrap().budget_input;
    let curve = checkpoint.config.budget_curve.clone().unwrap();
    // The smallest budget, and the six above it.
    assert_eq!(curve.points.len(), 7, "{curve:?}");
    assert_eq!(own, Some(curve.asked_for(config.budget)));
    let learnt = checkpoint.tensors.iter().filter(|(name, tensor)| {
        let sum = tensor.abs().unwrap().sum_all().unwrap();
        is_budget_tensor(name) && sum.to_scalar::<f32>().unwrap() > 0.0
    });
    assert!(learnt.count() > 0);

    // On the images that measured the curve.
    let data = loaded(&config);
    let session = Session::prepare(&config, &data, &Device::Cpu, None).unwrap();
    let model = checkpoint.prepared(&Device::Cpu).unwrap();
    let images = session.held_out();
    let share = |budget: f64| {
        let input = checkpoint.config.input_for_budget(budget).unwrap();
        let evaluator = Evaluator::prepared(&model, &images).unwrap();
        let evaluator = evaluator.within(Allowance::of_budget(input)).unwrap();
        evaluator.finish().unwrap().macs_share
    };
    let shares: Vec<f64> = [0.4, 0.6, 0.8, 1.0].into_iter().map(share).collect();
    assert!(
        shares.windows(2).all(|pair| pair[0] <= pair[1]),
        "{shares:?}"
    );
    assert!(shares[3] - shares[0] > 0.3, "{shares:?}");
    // A call that asks for nothing has the budget of the run.
    let dense = found.dense.macs as f64;
    let share = found.adaptive.macs / dense;
    assert!((share - config.budget).abs() < 0.15, "{share}");
    check_allocator(&config, &checkpoint, &found);
}

/// Checks the allocator that a run fitted: its curve is what it spends, and the fit is one of its kind.
fn check_allocator(config: &TrainConfig, checkpoint: &Checkpoint, found: &Summary) {
    let decisions = checkpoint.config.decisions.as_ref().unwrap();
    let allocator = decisions.allocator.as_ref().unwrap();
    let report = found.allocator.as_ref().unwrap();
    assert_eq!(allocator.budget, config.budget);
    assert_eq!(report.images, 27);
    assert_eq!(report.knots.len(), allocator.knots.len());
    assert_eq!(report.points.len(), allocator.curve.len());
    assert!(report.knots.iter().all(|knot| knot.r2 <= 1.0));

    let data = loaded(config);
    let session = Session::prepare(config, &data, &Device::Cpu, None).unwrap();
    let images = session.held_out();
    let model = checkpoint.prepared(&Device::Cpu).unwrap();
    for (point, reported) in allocator.curve.iter().zip(&report.points) {
        let allowance = Allowance {
            budget: Some(Budgets::Allocated {
                first: point.first,
                price: point.price,
            }),
            ..Allowance::default()
        };
        let evaluator = Evaluator::prepared(&model, &images).unwrap();
        let evaluation = evaluator.within(allowance).unwrap().finish().unwrap();
        assert!((evaluation.macs_share - point.share).abs() < 1e-12);
        assert_eq!(evaluation.top1, reported.top1);
    }
    // The fit made again, in place of the allocator, is the same.
    let mut again = checkpoint.clone();
    let fitted = fit_allocator(&mut again, &images, Some(config.budget)).unwrap();
    assert_eq!(fitted, Allocated::Fitted(report.clone()));
    assert_eq!(again.config, checkpoint.config);
    for (name, tensor) in &checkpoint.tensors {
        let values =
            |tensor: &Tensor| -> Vec<f32> { tensor.flatten_all().unwrap().to_vec1().unwrap() };
        assert!(values(tensor) == values(&again.tensors[name]), "{name}");
    }
    // By default it keeps the budget of a call that asks for none.
    fit_allocator(&mut again, &images, None).unwrap();
    assert_eq!(again.config, checkpoint.config);
}

#[test]
fn a_run_fits_an_allocator_only_if_there_is_something_to_allocate() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = elastic(folder.path());
    let run_to = |name: &str, config: &TrainConfig| {
        let mut notes = String::new();
        let mut watch = |event: &Event| {
            if let Event::Note(note) = event {
                notes.push_str(note);
            }
        };
        let out = folder.path().join(name);
        let found = summary(run(config, &out, &mut watch).unwrap());
        let checkpoint = Checkpoint::load(&out.join("best")).unwrap();
        let decisions = checkpoint.config.decisions.unwrap();
        assert_eq!(decisions.allocator.is_some(), found.allocator.is_some());
        (found.allocator, notes)
    };
    // Six held-out images are too few for five folds.
    config.held_out = 0.07;
    let (allocator, notes) = run_to("few", &config);
    assert!(
        allocator.is_none() && notes.contains("no allocator"),
        "{notes}"
    );
    config.held_out = 0.3;
    config.elastic = Some(Elastic {
        allocator: false,
        ..Elastic::default()
    });
    let (allocator, notes) = run_to("off", &config);
    assert!(
        allocator.is_none() && !notes.contains("allocator"),
        "{notes}"
    );
}

#[test]
fn a_stopped_elastic_run_goes_on_to_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    let config = elastic(folder.path());
    let (whole, stopped) = (folder.path().join("whole"), folder.path().join("stopped"));
    run(&config, &whole, &mut |_| ()).unwrap();
    let stop = AtomicBool::new(false);
    let mut steps = 0;
    let mut watch = |event: &Event| {
        if matches!(event, Event::Step { .. }) {
            steps += 1;
            stop.store(steps >= 8, Ordering::Relaxed);
        }
    };
    let data = loaded(&config);
    let to = Destination::Folder(&stopped);
    let outcome = train(&config, &data, to, control(&stop, &mut watch)).unwrap();
    assert!(!matches!(outcome, Outcome::Finished(_)), "{outcome:?}");
    summary(resumed(&stopped, &mut |_| ()).unwrap());
    for file in [
        "best/model.safetensors",
        "best/config.json",
        "last/model.safetensors",
    ] {
        let bytes = |run: &Path| fs::read(run.join(file)).unwrap();
        assert!(bytes(&whole) == bytes(&stopped), "{file}");
    }
}

#[test]
fn settings_that_do_not_fit_an_elastic_model_are_refused() {
    type Change = fn(&mut TrainConfig);
    let folder = tempfile::tempdir().unwrap();
    let good = elastic(folder.path());
    good.validate().unwrap();
    let text = good.to_toml().unwrap();
    assert_eq!(TrainConfig::from_toml(&text).unwrap(), good);
    let wrong: [(&str, Change); 7] = [
        ("elastic.smallest: ", |c| {
            c.elastic = Some(Elastic {
                smallest: Some(0.001),
                ..Elastic::default()
            });
        }),
        ("elastic.power: ", |c| {
            c.elastic = Some(Elastic {
                power: 0.0,
                ..Elastic::default()
            });
        }),
        ("usage.macs: ", |c| c.usage.macs = 0.0),
        ("usage.heads: ", |c| c.usage.heads = 1.0),
        ("decisions.budget_input: ", |c| {
            c.decisions.budget_input = Some(0.5);
        }),
        ("decisions.allocator: ", |c| {
            c.decisions.allocator = Some(AllocatorConfig {
                knots: Vec::new(),
                curve: vec![Allocation {
                    first: 0.5,
                    price: 0.0,
                    share: 0.5,
                }],
                budget: 0.5,
            });
        }),
        ("decisions.budget_input: ", |c| {
            c.elastic = None;
            c.decisions.budget_input = Some(0.5);
        }),
    ];
    for (part, change) in wrong {
        let mut config = good.clone();
        change(&mut config);
        let error = config.validate().unwrap_err();
        assert!(error.is_input_error());
        assert!(error.to_string().starts_with(part), "{error}");
    }
}
