//! `adavit macs` and `adavit throughput`: of presets and of checkpoints.

use std::fs;

use serde_json::Value;

use super::helpers::{adavit, assert_refusal, json, picture_model, stdout};

#[test]
fn macs_are_the_known_values_in_both_accountings() {
    let folder = tempfile::tempdir().unwrap();
    let preset = ["macs", "--preset", "deit_small_patch16_224"];
    let exact = json(&adavit(folder.path(), &[&preset[..], &["--json"]].concat()));
    assert_eq!(exact["dense"]["macs"], 4_598_882_304_u64);
    assert_eq!(exact["adaptive_all_kept"]["macs"], 4_599_819_264_u64);
    for part in [
        "patch_embed",
        "decisions",
        "qkv",
        "attention",
        "proj",
        "mlp",
        "head",
    ] {
        assert!(exact["dense"]["parts"][part].is_u64(), "{part}");
    }
    let table = ["--accounting", "paper", "--table", "table.safetensors"];
    let paper = adavit(folder.path(), &[&preset[..], &table].concat());
    // The header, and 7 x 198 x 2 x 2 floats.
    let size = fs::metadata(folder.path().join("table.safetensors")).unwrap();
    assert!(size.len() > 4 * 7 * 198 * 4);
    let exact = adavit(folder.path(), &[&preset[..], &table[2..]].concat());
    assert_eq!(exact.status.code(), Some(2));
    let t2t = ["macs", "--preset", "t2t_vit_19"];
    let found = json(&adavit(
        folder.path(),
        &[&t2t[..], &table, &["--rounding", "exact", "--json"]].concat(),
    ));
    assert_eq!(found["parts"]["full_block"], 431_042_304_u64);
    assert_eq!(found["macs"], 19 * 431_042_304_u64 + 330_000_000);
    let text = stdout(&paper);
    assert!(
        text.contains("4.61 G") && text.contains("0.37915 G"),
        "{text}"
    );
    let unknown = [
        "macs",
        "--preset",
        "nano_patch4_28",
        "--accounting",
        "paper",
    ];
    assert_eq!(adavit(folder.path(), &unknown).status.code(), Some(2));
}

#[test]
fn throughput_reports_speed_memory_and_where_the_time_goes() {
    let folder = tempfile::tempdir().unwrap();
    let args = "throughput --preset nano_patch7_28 --batch-size 2 --seconds 0.01 --threads 2 --train --profile --json";
    let found = json(&adavit(folder.path(), &args.split(' ').collect::<Vec<_>>()));
    assert_eq!(found["preset"], "nano_patch7_28");
    assert_eq!(
        (found["batch"].as_u64(), found["threads"].as_u64()),
        (Some(2), Some(2))
    );
    assert_eq!(found["dense"]["macs"], 5_286_272);
    for key in ["dense", "train"] {
        assert!(found[key]["images_per_s"].as_f64().unwrap() > 0.0);
        let share = found[key]["share_of_peak"].as_f64().unwrap();
        assert!(share > 0.0 && share.is_finite());
        let profile = found[key]["profile"].as_array().unwrap();
        let operations: Vec<&str> = profile
            .iter()
            .map(|row| row["operation"].as_str().unwrap())
            .collect();
        assert!(operations.contains(&"attention") && operations.contains(&"rest"));
        let shares: f64 = profile
            .iter()
            .map(|row| row["share"].as_f64().unwrap())
            .sum();
        assert!((shares - 1.0).abs() < 1e-6, "{shares}");
    }
    let text = adavit(
        folder.path(),
        &args
            .split(' ')
            .filter(|arg| *arg != "--json")
            .collect::<Vec<_>>(),
    );
    let text = stdout(&text);
    assert!(
        text.contains("images/s") && text.contains("mlp backward"),
        "{text}"
    );
}

#[test]
fn throughput_compares_the_paths_under_a_usage() {
    let folder = tempfile::tempdir().unwrap();
    let args = "throughput --preset nano_patch7_28 --batch-size 2 --seconds 0.01 --threads 2 --json --profile \
                --usage heads=0.5,tokens=0.7";
    let args: Vec<&str> = args.split_whitespace().collect();
    let found = json(&adavit(folder.path(), &args));
    let number = |value: &Value| value.as_f64().unwrap();
    for path in ["dense", "masked", "sparse"] {
        assert!(number(&found[path]["images_per_s"]) > 0.0, "{path}");
    }
    let macs = number(&found["sparse"]["macs"]);
    assert!((macs - number(&found["sparse"]["macs_executed"])).abs() < 0.5);
    assert!(macs < number(&found["dense"]["macs"]));
    assert!(number(&found["realised"]) > 0.0);
    let latency = &found["latency_ms"];
    assert!(number(&latency["p50"]) <= number(&latency["p99"]));
    let profile = found["sparse"]["profile"].as_array().unwrap();
    assert!(profile.iter().any(|row| row["operation"] == "decisions"));
    for usage in ["heads=0", "heads=1.5", "width=0.5", "tokens", ""] {
        let args = ["throughput", "--preset", "nano_patch7_28", "--usage", usage];
        let refused = adavit(folder.path(), &args);
        assert_eq!(refused.status.code(), Some(2), "{usage}");
    }
}

#[test]
fn a_checkpoint_is_counted_and_timed_in_place_of_a_preset() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    picture_model(&folder.join("model"), &[]);
    let inspected = json(&adavit(folder, &["inspect", "model", "--json"]));
    let macs = json(&adavit(folder, &["macs", "model", "--json"]));
    assert_eq!(macs["checkpoint"], "model");
    assert_eq!(macs["dense"]["macs"], inspected["dense_macs"]);
    let usage = ["--usage", "tokens=0.5", "--train", "--json"];
    let small = [
        "throughput",
        "model",
        "--batch-size",
        "2",
        "--seconds",
        "0.01",
    ];
    let timed = json(&adavit(folder, &[&small[..], &usage].concat()));
    assert_eq!(timed["checkpoint"], "model");
    assert_eq!(timed["dense"]["macs"], inspected["dense_macs"]);
    for path in ["dense", "masked", "sparse", "train"] {
        assert!(
            timed[path]["images_per_s"].as_f64().unwrap() > 0.0,
            "{path}"
        );
    }
    let both = ["macs", "model", "--preset", "nano_patch7_28"];
    assert_refusal(&adavit(folder, &both), "cannot be used with");
    let paper = ["macs", "model", "--accounting", "paper"];
    assert_refusal(&adavit(folder, &paper), "paper");
}

#[test]
fn another_image_size_or_number_of_classes_costs_other_macs() {
    let folder = tempfile::tempdir().unwrap();
    let total = |more: &[&str]| {
        let preset = ["macs", "--preset", "deit_small_patch16_224", "--json"];
        let found = json(&adavit(folder.path(), &[&preset[..], more].concat()));
        found["dense"]["macs"].as_u64().unwrap()
    };
    let published = total(&[]);
    assert_eq!(total(&["--num-classes", "10"]), published - 990 * 384);
    assert!(total(&["--img-size", "384"]) > 3 * published);
    let odd = [
        "macs",
        "--preset",
        "deit_small_patch16_224",
        "--img-size",
        "50",
    ];
    assert_refusal(&adavit(folder.path(), &odd), "not divisible");
}
