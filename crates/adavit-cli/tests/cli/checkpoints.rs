//! Checkpoints of others, recordings and pictures: verify, inspect, convert, eval, and training from a
//! dense one.

use std::fs;

use adavit_model::{ModelConfig, initial_tensors, write_tensors};
use serde_json::Value;

use super::helpers::{
    adavit, assert_refusal, data_tests, json, made_images, model_tests, picture_model, stderr,
    stdout,
};

fn path(name: &str) -> String {
    model_tests().join(name).display().to_string()
}

#[test]
fn recordings_pass_by_every_path_and_another_checkpoint_fails() {
    let folder = tempfile::tempdir().unwrap();
    let (evaluation, training) = (
        path("recordings/deit_ada_eval.safetensors"),
        path("recordings/t2t_ada_train.safetensors"),
    );
    let found = json(&adavit(
        folder.path(),
        &["verify", &evaluation, &training, "--json"],
    ));
    assert_eq!(found["passed"], true);
    let kinds = |index: usize| -> Vec<String> {
        let comparisons = found["recordings"][index]["comparisons"]
            .as_array()
            .unwrap();
        let kinds = comparisons
            .iter()
            .map(|c| c["kind"].as_str().unwrap().to_string());
        kinds.collect()
    };
    assert_eq!(kinds(0), ["gates", "gate logits", "hidden", "logits"]);
    assert_eq!(kinds(1)[4..], ["losses", "gradients"]);
    let sparse = adavit(folder.path(), &["verify", &evaluation, "--exec", "sparse"]);
    assert!(sparse.status.success());
    let text = stdout(&sparse);
    assert!(text.contains("deit_ada_eval.safetensors: pass"), "{text}");

    let expected = path("published/timm_saver_ema_expected.safetensors");
    let checkpoint = path("published/timm_saver_ema.pth");
    let with = ["verify", &expected, "--checkpoint", &checkpoint];
    assert!(adavit(folder.path(), &with).status.success());
    // Other weights of the same shapes.
    let other = ["verify", &evaluation, "--checkpoint", &checkpoint];
    let failed = adavit(folder.path(), &other);
    assert_eq!(failed.status.code(), Some(1));
    assert!(stdout(&failed).contains("FAIL"));

    for (args, part) in [
        (
            ["verify", &training, "--exec", "sparse"],
            "evaluations only",
        ),
        (
            ["verify", &checkpoint, "--exec", "masked"],
            "not a whole safetensors file",
        ),
    ] {
        let refused = adavit(folder.path(), &args);
        assert_refusal(&refused, part);
    }
}

#[test]
fn files_of_torch_save_are_inspected_and_converted() {
    let folder = tempfile::tempdir().unwrap();
    let found = json(&adavit(
        folder.path(),
        &["inspect", &path("published/timm_saver_ema.pth"), "--json"],
    ));
    assert_eq!(found["wrapper"], "state_dict_ema");
    assert_eq!(found["config"]["num_heads"], 3);
    assert_eq!(found["config"]["decisions"]["ada_token"], true);
    let legacy = path("published/deit_fused_qkv_legacy.pth");
    assert_refusal(&adavit(folder.path(), &["inspect", &legacy]), "num_heads");
    let convert = [
        "convert",
        &legacy,
        "own",
        "--num-heads",
        "3",
        "--num-classes",
        "7",
        "--img-size",
        "48x64",
    ];
    let told = adavit(folder.path(), &convert);
    let notes = stderr(&told);
    assert!(notes.contains("the head is new for 7 classes"), "{notes}");
    assert!(notes.contains("from 4x4 patches to 6x8"), "{notes}");
    let found = json(&adavit(folder.path(), &["inspect", "own", "--json"]));
    assert_eq!(found["config"]["num_classes"], 7);
    assert_eq!(found["config"]["img_size"][1], 64);
    for (args, part) in [
        (vec!["--drop-distillation"], "no distillation token"),
        (vec!["--img-size", "50"], "not divisible"),
        (vec!["--img-size", "0x8"], "expected pixels"),
        (vec!["--num-classes", "0"], "expected between 1 and"),
    ] {
        let refused = adavit(folder.path(), &[vec!["inspect", "own"], args].concat());
        assert_refusal(&refused, part);
    }
}

#[test]
fn tensors_that_do_not_fit_are_reported_with_those_that_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let config = ModelConfig::preset("nano_patch7_28").unwrap();
    let mut tensors = initial_tensors(&config, 1, 0.0).unwrap();
    let norm = tensors.remove("norm.weight").unwrap();
    tensors.insert("reg_token".into(), norm);
    tensors.remove("head.bias");
    write_tensors(&folder.path().join("vit.safetensors"), &tensors).unwrap();
    let inspect = ["inspect", "vit.safetensors"];
    let found = adavit(folder.path(), &[&inspect[..], &["--json"]].concat());
    assert_eq!(found.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!(
        found["missing"],
        serde_json::json!(["head.bias", "norm.weight"])
    );
    assert_eq!(found["unused"], serde_json::json!(["reg_token"]));
    assert_eq!(found["config"]["depth"], 6);
    let convert = adavit(folder.path(), &["convert", "vit.safetensors", "own"]);
    assert_refusal(
        &convert,
        "2 tensors missing: head.bias, norm.weight; 1 tensor without",
    );
    // A new head takes the place of what is left of the old one.
    let head = ["--num-classes", "3", "--json"];
    let found = adavit(folder.path(), &[&inspect[..], &head].concat());
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!(found["missing"], serde_json::json!(["norm.weight"]));
}

#[test]
fn a_configuration_that_describes_no_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    picture_model(&folder.path().join("model"), &[]);
    let config = folder.path().join("model/config.json");
    let text = fs::read_to_string(&config).unwrap();
    for (from, to) in [
        ("\"patch_size\": 8", "\"patch_size\": 0"),
        ("\"num_heads\": 2", "\"num_heads\": 0"),
        ("\"num_heads\": 2", "\"num_heads\": 5"),
        ("\"depth\": 2", "\"depth\": 99999999"),
    ] {
        assert!(text.contains(from));
        fs::write(&config, text.replace(from, to)).unwrap();
        assert_refusal(
            &adavit(folder.path(), &["inspect", "model"]),
            "configuration",
        );
    }
}

#[test]
fn pictures_are_evaluated_through_the_preprocessing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (class, names) in [
        ("cat", ["rgb.png", "grey.png"]),
        ("dog", ["rgb.jpg", "rgb.webp"]),
    ] {
        fs::create_dir_all(at("photos/val").join(class)).unwrap();
        for name in names {
            let target = at("photos/val").join(class).join(name);
            fs::copy(data_tests().join("pictures").join(name), target).unwrap();
        }
    }
    fs::write(at("photos/val/dog/notes.txt"), "no picture").unwrap();
    picture_model(&at("model"), &["ant", "dog", "cat"]);
    let eval = [
        "eval",
        "--checkpoint",
        "model",
        "--data",
        "photos",
        "--per-image",
        "out",
    ];
    let found = json(&adavit(folder.path(), &[&eval[..], &["--json"]].concat()));
    assert_eq!(found["images"], 4);
    let lines = fs::read_to_string(at("out")).unwrap();
    let labels: Vec<u64> = lines
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["label"]
                .as_u64()
                .unwrap()
        })
        .collect();
    // The places of the names in the checkpoint, which order the pictures.
    assert_eq!(labels, [1, 1, 2, 2]);
    // A folder that holds itself, and one without test pictures.
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(".", at("photos/val/dog/loop")).unwrap();
        assert_refusal(&adavit(folder.path(), &eval), "loop");
        fs::remove_file(at("photos/val/dog/loop")).unwrap();
    }
    fs::rename(at("photos/val"), at("photos/train")).unwrap();
    assert_refusal(&adavit(folder.path(), &eval), "a part to train on only");
    fs::rename(at("photos/train"), at("photos/val")).unwrap();
    // A broken picture is named.
    fs::write(at("photos/val/dog/broken.png"), "no picture").unwrap();
    assert_refusal(&adavit(folder.path(), &eval), "broken.png");
}

#[test]
fn training_starts_from_a_dense_checkpoint_of_others() {
    let folder = tempfile::tempdir().unwrap();
    made_images(folder.path(), 0);
    let config = ModelConfig {
        num_classes: 2,
        ..ModelConfig::preset("nano_patch7_28").unwrap()
    };
    let tensors = initial_tensors(&config, 1, 0.0).unwrap();
    write_tensors(&folder.path().join("vit.safetensors"), &tensors).unwrap();
    fs::write(folder.path().join("two.toml"), "[model]\nnum_classes = 2\n").unwrap();
    let train = [
        "train",
        "--data",
        "images",
        "--config",
        "two.toml",
        "--max-steps",
        "1",
        "--batch-size",
        "32",
        "--preset",
    ];
    let from = ["--dense-checkpoint", "vit.safetensors"];
    let told = adavit(
        folder.path(),
        &[&train[..], &["nano_patch7_28"], &from].concat(),
    );
    let text = stderr(&told);
    assert!(told.status.success(), "{text}");
    assert!(text.contains("note: no config.json"), "{text}");
    assert!(
        text.contains("the decision networks, 2340 parameters, start untrained"),
        "{text}"
    );
    let other = adavit(
        folder.path(),
        &[&train[..], &["nano_patch4_28"], &from].concat(),
    );
    assert_refusal(&other, "nano_patch4_28");
    // Another number of classes replaces the head.
    let three = [
        "nano_patch7_28",
        "--out",
        "three",
        "--set",
        "random_policies=1",
        "--num-classes",
        "3",
    ];
    let told = adavit(folder.path(), &[&train[..], &three, &from].concat());
    let text = stderr(&told);
    assert!(told.status.success(), "{text}");
    assert!(text.contains("for 3 classes"), "{text}");
}

#[test]
fn several_checkpoints_are_compared_class_by_class() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (class, name) in [("ant", "rgb.png"), ("bee", "grey.png"), ("cat", "rgb.jpg")] {
        fs::create_dir_all(at("photos").join(class)).unwrap();
        let target = at("photos").join(class).join(name);
        fs::copy(data_tests().join("pictures").join(name), target).unwrap();
    }
    picture_model(&at("a"), &["ant", "bee", "cat"]);
    picture_model(&at("b"), &["ant", "bee", "cat"]);
    let eval = ["eval", "--data", "photos", "--checkpoint", "a", "b"];
    let more = ["--json", "--per-class", "--confusion", "--csv", "found.csv"];
    let found = json(&adavit(folder.path(), &[&eval[..], &more].concat()));
    let found = found["checkpoints"].as_array().unwrap();
    assert_eq!(found.len(), 2);
    for one in found {
        let confusion = one["confusion"].as_array().unwrap();
        let all: u64 = confusion
            .iter()
            .flat_map(|row| row.as_array().unwrap())
            .map(|count| count.as_u64().unwrap())
            .sum();
        assert_eq!((all, confusion.len()), (3, 3));
        assert_eq!(one["per_class"][1]["name"], "bee");
        assert_eq!(one["per_class"][1]["images"], 1);
    }
    let csv = fs::read_to_string(at("found.csv")).unwrap();
    assert_eq!(csv.lines().count(), 3);
    let table = adavit(folder.path(), &eval);
    assert!(stdout(&table).contains("images/s  checkpoint"));
    // High thresholds keep less.
    let macs = |threshold: &str| {
        let eval = [
            "eval",
            "--data",
            "photos",
            "--checkpoint",
            "a",
            "--json",
            "--threshold",
            threshold,
        ];
        json(&adavit(folder.path(), &eval))["macs"]
            .as_f64()
            .unwrap()
    };
    assert!(macs("0.999999") < macs("0.000001"));
    assert!(macs("tokens=0.999999") < macs("0.000001"));
    let refused = [
        "eval",
        "--data",
        "photos",
        "--checkpoint",
        "a",
        "--threshold",
        "1.5",
    ];
    assert_refusal(&adavit(folder.path(), &refused), "(0, 1)");
}

#[test]
fn a_converted_checkpoint_is_read_without_notes() {
    let folder = tempfile::tempdir().unwrap();
    let config = ModelConfig {
        embed_dim: 64,
        num_heads: 1,
        ..ModelConfig::preset("nano_patch7_28").unwrap()
    };
    let tensors = initial_tensors(&config, 1, 0.0).unwrap();
    write_tensors(&folder.path().join("vit.safetensors"), &tensors).unwrap();
    let found = json(&adavit(
        folder.path(),
        &["inspect", "vit.safetensors", "--json"],
    ));
    assert_eq!(found["source"], "timm");
    assert_eq!(found["config"]["num_heads"], 1);
    assert_eq!(found["tensors"], tensors.len());
    let convert = ["convert", "vit.safetensors", "own"];
    let told = adavit(folder.path(), &convert);
    assert!(told.status.success());
    assert!(stderr(&told).contains("note: "));
    let found = json(&adavit(folder.path(), &["inspect", "own", "--json"]));
    assert_eq!(
        (&found["source"], found["notes"].as_array().unwrap().len()),
        (&Value::from("adavit"), 0)
    );
    // What is there is not overwritten unasked.
    assert_eq!(adavit(folder.path(), &convert).status.code(), Some(2));
    assert!(
        adavit(folder.path(), &[&convert[..], &["--force"]].concat())
            .status
            .success()
    );
    fs::write(folder.path().join("broken.safetensors"), "no tensors").unwrap();
    assert_eq!(
        adavit(folder.path(), &["inspect", "broken.safetensors"])
            .status
            .code(),
        Some(2)
    );
}
