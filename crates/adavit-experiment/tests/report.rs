//! Contract: the report of a run holds every figure, table and picture, in one file without scripts
//! and addresses, and the same run gives the same report.
#![expect(
    clippy::unwrap_used,
    reason = "the helpers here are test code, which clippy does not see"
)]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use adavit_data::Labelled;
use adavit_experiment::report::write_report;
use adavit_testing::{config, loaded, made_images, run, summary};
use adavit_train::TrainConfig;
use candle_core::Device;
use tempfile::TempDir;

/// A finished run, and its report.
struct Reported {
    folder: TempDir,
    out: PathBuf,
    test: Arc<dyn Labelled>,
    html: String,
}

fn reported(change: fn(&mut TrainConfig)) -> Reported {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&made_images(folder.path()));
    change(&mut config);
    let out = folder.path().join("run");
    summary(run(&config, &out, &mut |_| ()).unwrap());
    let test = loaded(&config).test;
    let report = write_report(&out, test.as_ref(), None, &Device::Cpu).unwrap();
    assert_eq!(report, out.join("report.html"));
    let html = fs::read_to_string(report).unwrap();
    Reported {
        folder,
        out,
        test,
        html,
    }
}

fn count(html: &str, text: &str) -> usize {
    html.matches(text).count()
}

#[test]
fn a_report_holds_every_part_and_no_address() {
    let Reported {
        folder,
        out,
        test,
        html,
    } = reported(|_| ());
    for part in [
        "Test images",
        "Accuracy against compute",
        "Settings",
        "Loss of the dense model",
        "Accuracy of the dense model",
        "Losses of the adaptive model",
        "Accuracy of the adaptive model",
        "What the adaptive model keeps",
        "Learning rate of each epoch",
        "Usage of each block",
        "Test images by their MACs",
        "Confusion",
        "Wrong predictions",
        "Images that take the least compute",
        "Images that take the most compute",
        "attention ran",
    ] {
        assert!(html.contains(part), "{part}");
    }
    // Eight charts; six overlays of each group, and up to twelve wrong predictions.
    assert_eq!(count(&html, "role=\"img\""), 8);
    let pictures = count(&html, "data:image/png;base64,");
    assert!((12..=24).contains(&pictures), "{pictures}");
    assert!(
        !html.contains("<script") && !html.contains("src=\"http") && !html.contains("href=\"http")
    );
    // The same run gives the same page, elsewhere too.
    let copy = folder.path().join("copy.html");
    write_report(&out, test.as_ref(), Some(&copy), &Device::Cpu).unwrap();
    assert!(fs::read_to_string(copy).unwrap() == html);
}

#[test]
fn the_settings_of_a_run_are_in_its_report() {
    let html = reported(|config| {
        config.budget = 0.625;
        config.seed = 1234;
        config.adaptive.optimizer.lr = 0.00123;
        config.augment.flip = true;
        config.distillation.temperature = 2.75;
        config.adaptive.drop_path = 0.125;
        config.class_weights = Some(adavit_train::ClassWeights::Balanced);
    })
    .html;
    for text in [
        "0.625 of the dense model",
        "1234",
        "0.00123",
        "horizontal flip",
        "soft targets 0.5 at temperature 2.75",
        "first logit 3",
        "batch size",
        "stochastic depth",
        "0.125",
        "balanced",
        "depth = 3",
        "config.toml",
    ] {
        assert!(html.contains(text), "{text}");
    }
    assert!(!html.contains("batches of a step"), "a default is shown");
}

#[test]
fn a_report_says_where_calibration_begins() {
    // From 0.65 of two epochs on.
    let html = reported(|_| ()).html;
    assert!(html.contains("Calibration begins with epoch 2"));
    assert!(html.contains(">calibration</text>"));
    let targets = reported(|config| {
        config.targets = Some(adavit_train::Targets {
            tokens: 0.8,
            heads: 0.8,
            blocks: 0.8,
        });
    })
    .html;
    assert!(!targets.contains("Calibration begins"));
    assert!(targets.contains("targets per axis"));
}

#[test]
fn every_table_scrolls_and_every_picture_names_label_and_prediction() {
    let html = reported(|_| ()).html;
    let tables = count(&html, "<table");
    assert!(tables >= 6, "{tables}");
    assert_eq!(
        count(&html, "<div class=\"scroll\" tabindex=\"0\"><table"),
        tables
    );
    assert!(html.contains(".scroll{overflow-x:auto"));
    assert!(html.contains("prefers-color-scheme:dark"));
    let pictures = count(&html, "<img");
    assert_eq!(count(&html, "<figcaption>label: "), pictures);
    assert_eq!(count(&html, "predicted: <span"), pictures);
}

#[test]
fn a_run_without_epochs_has_a_report() {
    let run = reported(|_| ());
    let (out, test) = (&run.out, run.test.as_ref());
    for name in ["metrics.csv", "summary.json"] {
        fs::remove_file(out.join(name)).unwrap();
    }
    fs::remove_dir_all(out.join("best")).unwrap();
    let report = write_report(out, test, None, &Device::Cpu).unwrap();
    let html = fs::read_to_string(report).unwrap();
    assert!(html.contains("No epoch is finished yet.") && html.contains("Settings"));
}
