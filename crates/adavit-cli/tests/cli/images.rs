//! Your own images: trained on in every format, fine-tuned in one line, looked at and packed.

use std::fs;
use std::path::Path;

use adavit_model::Checkpoint;
use image::{GrayImage, Luma, Rgb, RgbImage};

use super::helpers::{adavit, assert_refusal, json, picture_model, stderr, stdout};

/// A model of a moment for pictures of 24x24 pixels.
const TINY: &str = "budget = 0.9\nbatch_size = 8\nrandom_policies = 1\nmax_steps = 3\n\
                    [model]\nimg_size = [24, 24]\npatch_size = 8\nembed_dim = 8\ndepth = 2\nnum_heads = 2\n\
                    [dense]\nepochs = 1\n[adaptive]\nepochs = 1\n";

/// A picture of a class: its colour, and noise that differs from picture to picture.
fn picture(class: u32, number: u32, size: (u32, u32)) -> RgbImage {
    RgbImage::from_fn(size.0, size.1, |x, y| {
        let noise = ((x * 7 + y * 13 + number * 29) % 60) as u8;
        let mut pixel = [noise; 3];
        pixel[class as usize % 3] += 150;
        Rgb(pixel)
    })
}

/// Writes `train/CLASS/N.png` and `PART/CLASS/N.png` of three classes, of different sizes.
fn made_folder(folder: &Path, parts: &[(&str, u32)]) {
    for (part, n) in parts {
        for (class, name) in ["ant", "bee", "cat"].into_iter().enumerate() {
            let place = folder.join(part).join(name);
            fs::create_dir_all(&place).unwrap();
            for number in 0..*n {
                let size = (24 + 4 * (number % 3), 20 + 4 * (number % 2));
                let seed = number + 100 * part.len() as u32;
                let file = place.join(format!("{number:03}.png"));
                picture(class as u32, seed, size).save(file).unwrap();
            }
        }
    }
}

/// Trains on `data` into `out`, and returns the weights of the adaptive model.
fn trained(folder: &Path, data: &str, out: &str, more: &[&str]) -> Vec<u8> {
    let train = [
        "train",
        data,
        "--config",
        "tiny.toml",
        "--threads",
        "1",
        "--out",
        out,
    ];
    let output = adavit(folder, &[&train[..], more].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    fs::read(folder.join(out).join("best/model.safetensors")).unwrap()
}

#[test]
fn folders_tar_and_parquet_train_the_same_weights_with_any_number_of_workers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    made_folder(&path.join("photos"), &[("train", 10), ("val", 4)]);
    fs::write(
        path.join("tiny.toml"),
        format!("{TINY}[augment]\ntrain_crop_mode = \"rrc\"\nhflip = 0.5\nreprob = 0.5\n"),
    )
    .unwrap();
    for format in ["tar", "parquet"] {
        let packed = adavit(path, &["data", "photos", "--to", format, format]);
        assert!(packed.status.success(), "{}", stderr(&packed));
    }
    let expected = trained(path, "photos", "plain", &["--workers", "0"]);
    for (data, workers) in [
        ("photos", "1"),
        ("photos", "4"),
        ("tar", "2"),
        ("parquet", "2"),
    ] {
        let out = format!("{data}-{workers}");
        assert!(
            trained(path, data, &out, &["--workers", workers]) == expected,
            "{out}"
        );
    }
    let config = Checkpoint::load(&path.join("plain/best")).unwrap().config;
    assert_eq!((config.num_classes, config.in_chans), (3, 3));
    assert_eq!(config.class_names, ["ant", "bee", "cat"]);
    // The run's own images serve the other commands, too.
    let eval = json(&adavit(path, &["eval", "plain", "--data", "tar", "--json"]));
    assert_eq!(
        (eval["images"].as_u64(), eval["left_out"].as_u64()),
        (Some(12), Some(0))
    );
    let calibrated = adavit(
        path,
        &["calibrate", "plain", "--budget", "0.95", "--out", "cheap"],
    );
    assert!(
        stderr(&calibrated).contains("calibrating on 3 held-out"),
        "{}",
        stderr(&calibrated)
    );
    let report = adavit(path, &["report", "plain", "--out", "report.html"]);
    assert!(report.status.success(), "{}", stderr(&report));
}

#[test]
fn a_checkpoint_of_other_classes_is_fine_tuned_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    made_folder(&path.join("photos"), &[("train", 8), ("test", 3)]);
    fs::write(
        path.join("tiny.toml"),
        TINY.split("[model]").next().unwrap(),
    )
    .unwrap();
    let from = |name: &str, classes: &[&str]| {
        picture_model(&path.join(name), classes);
        let mut checkpoint = Checkpoint::load(&path.join(name)).unwrap();
        checkpoint.config.decisions = None;
        let decides = adavit_model::is_decision_tensor;
        checkpoint.tensors.retain(|name, _| !decides(name));
        checkpoint.save(&path.join(name)).unwrap();
    };
    from("others", &["x", "y", "z"]);
    from("same", &["cat", "ant", "bee"]);
    let train = |from: &str, more: &[&str]| {
        let line = [
            "train",
            "photos",
            "--from",
            from,
            "--config",
            "tiny.toml",
            "--out",
        ];
        let output = adavit(path, &[&line[..], &[&format!("run-{from}")], more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    let said = train("others", &[]);
    assert!(
        said.contains("a new head for 3 classes: the checkpoint has other classes"),
        "{said}"
    );
    assert!(said.contains("dense stage:"), "{said}");
    let said = train("same", &[]);
    assert!(said.contains("the dense stage is skipped"), "{said}");
    assert!(!said.contains("dense stage:"), "{said}");
    let config = Checkpoint::load(&path.join("run-same/best"))
        .unwrap()
        .config;
    assert_eq!(config.class_names, ["cat", "ant", "bee"]);
    fs::remove_dir_all(path.join("run-same")).unwrap();
    let said = train("same", &["--epochs", "1"]);
    assert!(
        said.contains("since epochs are set") && said.contains("dense stage:"),
        "{said}"
    );
    // A run that is finished says so; it needs the original checkpoint no more.
    fs::remove_dir_all(path.join("others")).unwrap();
    let resumed = adavit(path, &["train", "--resume", "run-others"]);
    assert!(resumed.status.success(), "{}", stderr(&resumed));
}

#[test]
fn folders_are_matched_with_classes_or_questioned() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    made_folder(path, &[("two", 2)]);
    fs::remove_dir_all(path.join("two/ant")).unwrap();
    picture_model(&path.join("unnamed"), &[]);
    picture_model(&path.join("named"), &["cat", "ant", "bee"]);
    let refused = adavit(path, &["eval", "unnamed", "--data", "two"]);
    assert_refusal(&refused, "bee");
    let eval = adavit(
        path,
        &["eval", "named", "--data", "two", "--per-class", "--json"],
    );
    let images = |value: &serde_json::Value, class: usize| {
        value["per_class"][class]["images"].as_u64().unwrap()
    };
    let found = json(&eval);
    assert_eq!([0, 1, 2].map(|class| images(&found, class)), [2, 0, 2]);
    fs::write(path.join("map.csv"), "bee,2\ncat,0\n").unwrap();
    let mapped = [
        "eval",
        "unnamed",
        "--data",
        "two",
        "--class-map",
        "map.csv",
        "--per-class",
        "--json",
    ];
    let found = json(&adavit(path, &mapped));
    assert_eq!([0, 1, 2].map(|class| images(&found, class)), [2, 0, 2]);
}

#[test]
fn broken_pictures_stop_an_evaluation_or_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    made_folder(path, &[("photos", 3)]);
    picture_model(&path.join("model"), &["ant", "bee", "cat"]);
    let whole = fs::read(path.join("photos/bee/001.png")).unwrap();
    fs::write(path.join("photos/bee/001.png"), &whole[..whole.len() / 2]).unwrap();
    fs::write(path.join("photos/bee/note.heic"), "x").unwrap();
    let stopped = adavit(path, &["eval", "model", "--data", "photos"]);
    assert_eq!(stopped.status.code(), Some(2));
    assert!(stderr(&stopped).contains("001.png"), "{}", stderr(&stopped));
    let skipped = adavit(
        path,
        &[
            "eval",
            "model",
            "--data",
            "photos",
            "--skip-broken",
            "--json",
        ],
    );
    assert_eq!(skipped.status.code(), Some(1));
    let found: serde_json::Value = serde_json::from_slice(&skipped.stdout).unwrap();
    let counts = ["images", "skipped", "left_out"].map(|name| found[name].as_u64().unwrap());
    assert_eq!(counts, [8, 1, 1]);
    assert!(stderr(&skipped).contains("001.png"), "{}", stderr(&skipped));
    let predicted = adavit(path, &["predict", "model", "photos"]);
    assert_eq!(predicted.status.code(), Some(1));
    assert!(
        stderr(&predicted).contains("HEIC: 1"),
        "{}",
        stderr(&predicted)
    );
}

#[test]
fn data_says_what_is_there_and_draws_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    made_folder(&path.join("photos"), &[("train", 4), ("val", 2)]);
    let grey = GrayImage::from_pixel(30, 10, Luma([7]));
    grey.save(path.join("photos/train/ant/grey.png")).unwrap();
    fs::copy(
        path.join("photos/train/bee/000.png"),
        path.join("photos/val/cat/copy.png"),
    )
    .unwrap();
    fs::write(path.join("photos/train/bee/empty.jpg"), "").unwrap();
    fs::write(path.join("photos/train/bee/text.jpg"), "no picture").unwrap();
    let data = adavit(path, &["data", "photos", "--sheet", "sheet.png", "--json"]);
    assert_eq!(data.status.code(), Some(1));
    let found: serde_json::Value = serde_json::from_slice(&data.stdout).unwrap();
    let train = &found["parts"][0];
    assert_eq!(train["pictures"], 14);
    assert_eq!(train["per_class"], serde_json::json!([5, 5, 4]));
    assert_eq!(
        (train["grey"].as_u64(), train["broken"].as_u64()),
        (Some(1), Some(1))
    );
    assert_eq!(found["duplicates"][0]["other_label"], 1);
    assert_eq!(found["left_out"][0]["reason"], "Empty");
    assert!(image::open(path.join("sheet.png")).unwrap().width() > 100);
    let text = stdout(&adavit(path, &["data", "photos"]));
    assert!(
        text.contains("folders") && text.contains("ant") && text.contains("text.jpg"),
        "{text}"
    );
    assert_refusal(&adavit(path, &["data", "nothing"]), "nothing");
}

#[test]
fn calibration_takes_the_classes_of_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    made_folder(&root.join("data"), &[("train", 4), ("val", 2), ("test", 2)]);
    // In another order than that of the folders' names.
    picture_model(&root.join("model"), &["cat", "ant", "bee"]);
    let calibrate = ["calibrate", "model", "--budget", "0.9", "--out", "own"];
    let with = |data: &str| adavit(root, &[&calibrate[..], &["--data", data]].concat());
    let output = with("data");
    assert!(matches!(output.status.code(), Some(0 | 1)));
    let text = stderr(&output);
    assert!(
        text.contains("3 folders by the names of the 3 classes"),
        "{text}"
    );
    for part in ["train", "val", "test"] {
        let class = root.join("data").join(part);
        fs::rename(class.join("cat"), class.join("dog")).unwrap();
    }
    assert_refusal(&with("data"), "no classes of the model: dog");
}

#[test]
fn a_folder_above_the_classes_is_not_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let pets = folder.path().join("data/pets/ant");
    fs::create_dir_all(&pets).unwrap();
    for number in 0..4 {
        picture(0, number, (24, 24))
            .save(pets.join(format!("{number}.png")))
            .unwrap();
    }
    let output = adavit(folder.path(), &["train", "data", "--out", "run"]);
    assert_refusal(&output, "at least 2 classes");
}

#[test]
fn grey_idx_files_have_the_classes_that_are_named_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    made_folder(&root.join("data"), &[("train", 4), ("test", 2)]);
    for (part, class) in ["train", "test"]
        .iter()
        .flat_map(|part| [(part, 0), (part, 1), (part, 2)])
    {
        let name = ["ant", "bee", "cat"][class];
        for entry in fs::read_dir(root.join("data").join(part).join(name)).unwrap() {
            let path = entry.unwrap().path();
            let grey = GrayImage::from_pixel(24, 24, Luma([class as u8 * 90]));
            grey.save(path).unwrap();
        }
    }
    let packed = adavit(root, &["data", "data", "--to", "idx", "packed"]);
    assert!(packed.status.success(), "{}", stderr(&packed));
    picture_model(&root.join("model"), &["cat", "ant", "bee"]);
    let top1 = |data: &str| {
        let output = adavit(
            root,
            &["eval", "model", "--data", data, "--per-class", "--json"],
        );
        json(&output)["per_class"].clone()
    };
    assert_eq!(top1("packed"), top1("data"));
}
