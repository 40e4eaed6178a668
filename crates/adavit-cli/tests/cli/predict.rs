//! `adavit predict`: every kind of input and output, broken files, overlays.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::helpers::{adavit, assert_refusal, data_tests, json, picture_model, stderr, stdout};

/// A folder with a model and `photos/` of `good` pictures, named in order.
fn photos(good: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    picture_model(&folder.path().join("model"), &["ant", "bee", "cat"]);
    let photos = folder.path().join("photos");
    fs::create_dir(&photos).unwrap();
    let names = ["rgb.png", "grey.png", "rgb.jpg", "rgb.webp"];
    for number in 0..good {
        let name = names[number % names.len()];
        let ending = name.rsplit('.').next().unwrap();
        let target = photos.join(format!("good-{number:04}.{ending}"));
        fs::copy(data_tests().join("pictures").join(name), target).unwrap();
    }
    folder
}

/// Adds `each` files of ten broken kinds.
fn break_some(photos: &Path, each: usize) {
    let png = fs::read(data_tests().join("pictures/rgb.png")).unwrap();
    let jpg = fs::read(data_tests().join("pictures/rgb.jpg")).unwrap();
    let mut huge = png.clone();
    huge[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
    let mut damaged = png.clone();
    for byte in &mut damaged[60..90] {
        *byte ^= 0x5a;
    }
    for number in 0..each {
        let at = |kind: &str| photos.join(format!("bad-{kind}-{number}.png"));
        fs::write(at("empty"), "").unwrap();
        fs::write(at("cut"), &png[..png.len() / 2]).unwrap();
        fs::write(at("header"), &png[..20]).unwrap();
        fs::write(at("text"), "a text with the ending of a picture").unwrap();
        fs::write(at("huge"), &huge).unwrap();
        fs::write(at("damaged"), &damaged).unwrap();
        fs::write(at("zeros"), [0; 4096]).unwrap();
        fs::write(photos.join(format!("bad-jpeg-{number}.jpg")), &jpg[..40]).unwrap();
        fs::create_dir(at("folder")).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("nowhere.png", at("link")).unwrap();
        #[cfg(not(unix))]
        fs::write(at("link"), "").unwrap();
    }
}

#[test]
fn broken_files_among_a_thousand_are_reported_and_skipped() {
    let folder = photos(900);
    break_some(&folder.path().join("photos"), 10);
    let predict = [
        "predict",
        "model",
        "photos",
        "--jsonl",
        "--batch-size",
        "16",
    ];
    let output = adavit(folder.path(), &predict);
    assert_eq!(output.status.code(), Some(1));
    let told = stderr(&output);
    assert_eq!(told.matches("skipped photos/bad-").count(), 100);
    assert!(
        told.contains("900 pictures in") && told.contains("100 skipped"),
        "{told}"
    );
    let lines: Vec<Value> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let paths: Vec<&str> = lines
        .iter()
        .map(|line| line["path"].as_str().unwrap())
        .collect();
    assert_eq!(paths.len(), 1000);
    assert!(paths.is_sorted());
    let predicted = lines.iter().filter(|line| line["error"].is_null());
    assert_eq!(predicted.count(), 900);
}

#[test]
fn every_format_says_the_same() {
    let folder = photos(3);
    let predict = ["predict", "model", "photos", "--top-k", "2"];
    let with = |more: &[&str]| adavit(folder.path(), &[&predict[..], more].concat());
    let found = json(&with(&["--json"]));
    assert_eq!(
        (&found["images"], &found["skipped"]),
        (&Value::from(3), &Value::from(0))
    );
    let predictions = found["predictions"].as_array().unwrap();
    let lines = with(&["--jsonl"]).stdout;
    for (line, expected) in String::from_utf8_lossy(&lines).lines().zip(predictions) {
        assert_eq!(&serde_json::from_str::<Value>(line).unwrap(), expected);
    }
    let csv = String::from_utf8_lossy(&with(&["--csv"]).stdout).into_owned();
    let table = String::from_utf8_lossy(&with(&[]).stdout).into_owned();
    assert!(csv.starts_with("path,class_1,probability_1,class_2,probability_2,macs,saved,error"));
    for ((row, line), expected) in csv.lines().skip(1).zip(table.lines()).zip(predictions) {
        let (path, name) = (
            expected["path"].as_str(),
            expected["top"][0]["name"].as_str(),
        );
        let macs = expected["macs"].to_string();
        assert!(
            row.starts_with(&format!("{},{},", path.unwrap(), name.unwrap())),
            "{row}"
        );
        assert!(row.contains(&macs));
        assert!(
            line.starts_with(&format!("{}: {} ", path.unwrap(), name.unwrap())),
            "{line}"
        );
    }
    let both: f64 = predictions[0]["top"]
        .as_array()
        .unwrap()
        .iter()
        .map(|class| class["probability"].as_f64().unwrap())
        .sum();
    assert!(both > 0.66 && both <= 1.0, "{both}");
}

/// Predicts what a list on standard input names.
fn listed(folder: &Path, list: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_adavit"))
        .args(["predict", "model", "-", "--json"])
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(list).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn files_patterns_and_lists_are_inputs_and_the_batch_does_not_matter() {
    let folder = photos(9);
    let found = |args: &[&str]| {
        let output = adavit(
            folder.path(),
            &[&["predict", "model", "--json"], args].concat(),
        );
        json(&output)["predictions"].clone()
    };
    let all = found(&["photos"]);
    assert_eq!(found(&["photos", "--batch-size", "2"]), all);
    let pattern = found(&["photos/*.jpg"]);
    assert_eq!(pattern.as_array().unwrap().len(), 2);
    assert_eq!(
        found(&["photos/good-0002.jpg", "photos/good-0006.jpg"]),
        pattern
    );
    let list = b"photos/good-0002.jpg\n\nphotos/good-0006.jpg\n";
    assert_eq!(json(&listed(folder.path(), list))["predictions"], pattern);
    for args in [
        &["model"][..],
        &["photos/*.gif"],
        &["photos/*.jpg", "typo/*.jpg"],
    ] {
        let output = adavit(
            folder.path(),
            &[&["predict", "model", "--json"], args].concat(),
        );
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found["skipped"], 1);
    }
    let mut nothing = Command::new(env!("CARGO_BIN_EXE_adavit"));
    nothing.args(["predict", "model", "-", "--json"]);
    let nothing = nothing.current_dir(folder.path()).stdin(Stdio::null());
    assert_refusal(&nothing.output().unwrap(), "no pictures");
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let name = std::ffi::OsStr::from_bytes(b"photos/\xff.jpg");
        fs::copy(
            folder.path().join("photos/good-0002.jpg"),
            folder.path().join(name),
        )
        .unwrap();
        let list = b"photos/\xff.jpg\nphotos/good-0006.jpg\n";
        assert_eq!(json(&listed(folder.path(), list))["images"], 2);
    }
    let missing = adavit(folder.path(), &["predict", "model", "nothing.png"]);
    assert_eq!(missing.status.code(), Some(1));
}

#[test]
fn overlays_are_drawn_for_each_picture() {
    let folder = photos(2);
    let predict = ["predict", "model", "photos", "--overlay", "drawn"];
    assert!(adavit(folder.path(), &predict).status.success());
    let drawn = fs::read(folder.path().join("drawn/000001-good-0000.png")).unwrap();
    assert!(drawn.starts_with(b"\x89PNG"));
    assert!(folder.path().join("drawn/000002-good-0001.png").exists());
}
