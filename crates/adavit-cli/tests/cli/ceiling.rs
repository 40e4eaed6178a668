//! `--max-macs`: no image costs more, what cannot be kept is refused, and reports say it. `--budget`:
//! an elastic checkpoint is asked for it.

use std::fs;
use std::path::Path;

use adavit_decision::DecisionConfig;
use adavit_model::{
    BudgetCurve, Checkpoint, CurvePoint, ModelConfig, initial_tensors, is_budget_tensor,
};

use super::helpers::{
    adavit, assert_refusal, assert_refused, data_tests, json, made_images, picture_model, stdout,
};

/// Saves a small adaptive model for the made images, and returns its configuration.
fn model(folder: &Path) -> ModelConfig {
    let config = ModelConfig {
        embed_dim: 16,
        depth: 2,
        num_heads: 2,
        ..ModelConfig::preset("nano_patch7_28").unwrap()
    }
    .with_decisions(DecisionConfig::default());
    let tensors = initial_tensors(&config, 1, 3.0).unwrap();
    let checkpoint = Checkpoint { config, tensors };
    checkpoint.save(&folder.join("model")).unwrap();
    checkpoint.config
}

#[test]
fn eval_keeps_every_image_below_the_ceiling_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    made_images(path, 0);
    let config = model(path);
    let dense = config.geometry().dense_macs();
    let eval = |more: &[&str]| {
        let args = ["eval", "model", "--data", "images"];
        adavit(path, &[&args[..], more].concat())
    };
    let free = json(&eval(&["--json"]));
    assert!(free["max_macs"].is_null());
    let most = config
        .geometry()
        .most_macs(config.decisions.as_ref().unwrap());
    assert_eq!(free["macs_max"], most);
    let macs = (dense as f64 * 0.6) as u64;
    for exec in ["sparse", "masked"] {
        for ceiling in [
            "0.6".to_string(),
            macs.to_string(),
            format!("{}K", macs as f64 / 1e3),
        ] {
            let args = [
                "--json",
                "--exec",
                exec,
                "--max-macs",
                &ceiling,
                "--per-image",
                "x",
            ];
            let found = json(&eval(&args));
            assert_eq!(found["max_macs"], macs, "{ceiling}");
            assert!(found["macs_max"].as_u64().unwrap() <= macs);
            for line in fs::read_to_string(path.join("x")).unwrap().lines() {
                let image: serde_json::Value = serde_json::from_str(line).unwrap();
                assert!(image["macs"].as_u64().unwrap() <= macs, "{line}");
            }
        }
    }
    let text = stdout(&eval(&["--max-macs", "0.6"]));
    assert!(
        text.contains("largest ") && text.contains("ceiling "),
        "{text}"
    );
}

#[test]
fn predict_keeps_every_picture_below_the_ceiling() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    picture_model(&path.join("model"), &["ant", "bee", "cat"]);
    let picture = data_tests().join("pictures/rgb.png");
    let picture = picture.to_str().unwrap();
    let config = Checkpoint::load(&path.join("model")).unwrap().config;
    let floor = config.floor_macs();
    let floor_text = floor.to_string();
    let args = [
        "predict",
        "model",
        picture,
        "--json",
        "--max-macs",
        &floor_text,
    ];
    let found = json(&adavit(path, &args));
    assert_eq!(found["predictions"][0]["macs"], floor);
    let below = (floor - 1).to_string();
    let args = [
        "predict",
        "model",
        picture,
        "--max-macs",
        &below,
        "--overlay",
        "drawn",
    ];
    assert_refusal(&adavit(path, &args), &format!("expected at least {floor}"));
    assert!(!path.join("drawn").exists(), "nothing is written");
}

#[test]
fn ceilings_that_cannot_be_kept_are_refused() {
    for (ceiling, what) in [
        ("0", "expected a share"),
        ("1.5", "expected a share"),
        ("-1", "expected a share"),
        ("much", "expected a share"),
        ("M", "expected a share"),
        ("nan", "expected a share"),
        // A letter of several bytes, whose capitals end with a unit.
        ("1\u{fb05}", "expected a share"),
        ("0.01", "with every gate off"),
        ("3K", "with every gate off"),
    ] {
        let option = format!("--max-macs={ceiling}");
        let args = ["eval", "model", "--data", "images", &option];
        assert_refused(&args, what, |path| {
            model(path);
        });
    }
    // A dense model has nothing to drop.
    let args = ["eval", "model", "--data", "images", "--max-macs", "0.9"];
    assert_refused(&args, "with every gate off", |path| {
        let config = ModelConfig::preset("nano_patch7_28").unwrap();
        let tensors = initial_tensors(&config, 1, 0.0).unwrap();
        let checkpoint = Checkpoint { config, tensors };
        checkpoint.save(&path.join("model")).unwrap();
    });
}

/// Saves an elastic model whose gates are off at small budgets and on at large ones.
fn elastic_model(folder: &Path) -> ModelConfig {
    let mut config = model(folder);
    config.decisions.as_mut().unwrap().budget_input = Some(1.0);
    let mut tensors = initial_tensors(&config, 1, 3.0).unwrap();
    for (name, tensor) in &mut tensors {
        if is_budget_tensor(name) {
            *tensor = (&*tensor - 1.0).unwrap();
        }
    }
    let share = config.smallest_budget() - 0.03;
    let point = |asked: f64, share: f64| CurvePoint { asked, share };
    config.budget_curve = Some(BudgetCurve {
        points: vec![point(0.5, share), point(1.0, 1.0)],
    });
    let checkpoint = Checkpoint { config, tensors };
    checkpoint.save(&folder.join("elastic")).unwrap();
    checkpoint.config
}

#[test]
fn an_elastic_checkpoint_is_asked_for_a_budget() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    made_images(path, 0);
    let config = elastic_model(path);
    let eval = |budget: Option<&str>| {
        let mut args = vec!["eval", "elastic", "--data", "images", "--json"];
        args.extend(budget.iter().flat_map(|budget| ["--budget", budget]));
        json(&adavit(path, &args))
    };
    let most = eval(None);
    assert!(most["budget"].is_null());
    assert_eq!(most["macs"], eval(Some("1"))["macs"]);
    let smallest = format!("{}", config.smallest_budget());
    let least = eval(Some(&smallest));
    // By the curve, little more than 0.5 is asked for, where every gate is off.
    assert_eq!(least["macs_max"], config.floor_macs());
    assert!(least["macs"].as_f64() < most["macs"].as_f64());
    assert_eq!(least["budget"], config.smallest_budget());
}

#[test]
fn an_allocator_is_fitted_used_and_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    made_images(path, 0);
    elastic_model(path);
    let fit = |more: &[&str]| {
        let args = [
            "calibrate",
            "elastic",
            "--allocator",
            "--data",
            "images",
            "--held-out",
            "0.5",
        ];
        adavit(path, &[&args[..], more].concat())
    };
    let found = json(&fit(&["--out", "allocated", "--budget", "0.6", "--json"]));
    assert_eq!(found["budget"], 0.6);
    assert_eq!(found["allocator"]["images"], 32);
    assert!(found["allocator"]["knots"][0]["r2"].is_number());
    let config = Checkpoint::load(&path.join("allocated")).unwrap().config;
    let allocator = config.decisions.unwrap().allocator.unwrap();
    assert_eq!((allocator.budget, allocator.knots.len()), (0.6, 2));
    let eval = |more: &[&str]| {
        let args = ["eval", "allocated", "--data", "images", "--json"];
        json(&adavit(path, &[&args[..], more].concat()))
    };
    let own = eval(&[]);
    assert_eq!(own["allocated"], true);
    assert_eq!(own["macs"], found["test"]["macs"]);
    assert_eq!(eval(&["--budget", "0.6"])["macs"], own["macs"]);
    assert_eq!(
        eval(&["--budget", "0.6", "--exec", "masked"])["macs"],
        own["macs"]
    );
    let uniform = eval(&["--budget", "0.6", "--uniform"]);
    assert_eq!(uniform["allocated"], false);
    assert_eq!(uniform["macs"], found["test_uniform"]["macs"]);
    let most = eval(&["--uniform"]);
    assert_eq!(most["macs"].as_f64(), most["macs_max"].as_f64());
    let text = stdout(&fit(&[]));
    assert!(text.contains("allocator written to elastic"), "{text}");
}

#[test]
fn allocators_of_other_checkpoints_are_refused() {
    for args in [
        &["calibrate", "model", "--data", "images", "--allocator"][..],
        &["eval", "model", "--data", "images", "--uniform"],
    ] {
        assert_refused(args, "expected an elastic model", |path| {
            model(path);
        });
    }
    let args = ["calibrate", "model", "--data", "images"];
    assert_refused(&args, "--budget", |path| {
        model(path);
    });
}

#[test]
fn budgets_of_other_checkpoints_or_below_the_floor_are_refused() {
    let args = ["eval", "model", "--data", "images", "--budget", "0.5"];
    assert_refused(&args, "expected an elastic model", |path| {
        model(path);
    });
    for budget in ["0.01", "1.5", "-1", "nan"] {
        let args = ["eval", "elastic", "--data", "images", "--budget", budget];
        assert_refused(&args, "above the floor of", |path| {
            elastic_model(path);
        });
    }
}
