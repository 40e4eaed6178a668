//! `fashion-scenes` in every command that takes data: looked at, trained on, evaluated with its truth,
//! calibrated on its held-out scenes and reported.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::helpers::{adavit, assert_refused, json, stderr};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// Checks what each scene's line says of its garments.
fn assert_truths(folder: &Path) {
    let lines = fs::read_to_string(folder.join("images.jsonl")).unwrap();
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 10_000);
    for line in &lines {
        let boxes = line["boxes"].as_array().unwrap();
        assert_eq!(line["garments"], boxes.len());
        let of_label = boxes.iter().filter(|one| one["class"] == line["label"]);
        assert!(2 * of_label.count() > boxes.len(), "{line}");
        let area: u64 = boxes.iter().map(|one| one["area"].as_u64().unwrap()).sum();
        assert_eq!(line["area"], area);
    }
}

#[test]
fn a_model_is_trained_evaluated_calibrated_and_reported_on_scenes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let repository = repository();
    let data = [
        "--data",
        "fashion-scenes",
        "--data-dir",
        repository.to_str().unwrap(),
    ];
    // Nine patches, and a budget that any gates keep: seconds on many scenes.
    let small = [
        "model.img_size=[72, 72]",
        "model.patch_size=24",
        "model.embed_dim=8",
        "model.depth=2",
        "model.num_heads=2",
        "random_policies=1",
    ];
    let set = small.iter().flat_map(|value| ["--set", *value]);
    let train = [
        "train",
        "--out",
        "run",
        "--max-steps",
        "1",
        "--budget",
        "1",
        "--json",
    ];
    let args: Vec<&str> = train.into_iter().chain(data).chain(set).collect();
    let output = adavit(folder, &args);
    assert_eq!(json(&output)["dataset"], "fashion-scenes");

    let eval = ["eval", "run", "--per-image", "images.jsonl", "--json"];
    let found = json(&adavit(folder, &[&eval[..], &data].concat()));
    assert_eq!(found["images"], 10_000);
    assert_truths(folder);

    let calibrate = [
        "calibrate",
        "run",
        "--budget",
        "1",
        "--out",
        "own",
        "--json",
    ];
    let found = json(&adavit(folder, &calibrate));
    assert_eq!(found["held_out"]["images"], 4_000);
    let report = adavit(folder, &["report", "run", "--out", "again.html"]);
    assert!(report.status.success(), "{}", stderr(&report));
    assert!(folder.join("again.html").exists());
}

#[test]
fn scenes_are_counted_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let repository = repository();
    let data_dir = repository.to_str().unwrap();
    let data = [
        "data",
        "fashion-scenes",
        "--data-dir",
        data_dir,
        "--sheet",
        "sheet.png",
        "--json",
    ];
    let found = json(&adavit(folder.path(), &data));
    assert_eq!(found["duplicates"], Value::Array(Vec::new()));
    for (part, (name, pictures)) in [("train", 40_000), ("val", 4_000), ("test", 10_000)]
        .into_iter()
        .enumerate()
    {
        let part = &found["parts"][part];
        assert_eq!(
            (&part["part"], &part["pictures"]),
            (&name.into(), &pictures.into())
        );
        assert_eq!((&part["broken"], &part["colours"]), (&0.into(), &0.into()));
    }
    let drawn = image::open(folder.path().join("sheet.png")).unwrap();
    assert!(drawn.width() > 8 * 72 && drawn.height() > 10 * 72);
}

#[test]
fn what_scenes_cannot_use_is_refused() {
    let scenes = ["data", "fashion-scenes"];
    assert_refused(
        &[&scenes[..], &["--data-dir", "images"]].concat(),
        "class 2 (Pullover)",
        |_| (),
    );
    assert_refused(
        &[&scenes[..], &["--class-map", "map.csv"]].concat(),
        "--class-map",
        |_| (),
    );
    assert_refused(
        &["data", "images", "--data-dir", "images"],
        "--data-dir",
        |_| (),
    );
    assert_refused(&scenes, "fashion-scenes is built from garments", |_| ());
    let train = ["train", "--data", "fashion-scenes", "--data-dir", "none"];
    assert_refused(&train, "four IDX files", |_| ());
}
