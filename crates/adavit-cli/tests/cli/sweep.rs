//! `adavit sweep`, and `adavit report` of one of its runs.

use std::fs;

use serde_json::json;

use super::helpers::{adavit, assert_refusal, json, made_images, stderr, stdout};

#[test]
fn a_sweep_resumes_is_timed_again_and_its_runs_are_analysed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    made_images(folder, 0);
    let recipe = "data = \"images\"\nbatch_size = 32\n[model]\npatch_size = 14\nembed_dim = 16\n\
                  depth = 3\nnum_heads = 2\n[dense]\nepochs = 1\n[adaptive]\nepochs = 1\n";
    fs::write(folder.join("tiny.toml"), recipe).unwrap();
    let settings = "recipe = \"tiny.toml\"\nbudgets = [0.7]\nrivals = []\nspeed_seconds = 0.01\n";
    fs::write(folder.join("curves.toml"), settings).unwrap();
    let sweep = [
        "sweep",
        "--config",
        "curves.toml",
        "--threads",
        "1",
        "--set",
        "batch_size=16",
    ];
    let with = |more: &[&str]| adavit(folder, &[&sweep[..], more].concat());

    let stopped = with(&["--max-hours", "0.0000001"]);
    assert_eq!(stopped.status.code(), Some(130));
    assert!(stderr(&stopped).contains("resume with the same command"));
    let found = json(&with(&["--json"]));
    assert_eq!(
        (&found["out"], &found["complete"]),
        (&json!("runs/curves"), &json!(true))
    );
    let comparison = &found["comparisons"][0];
    assert_eq!(
        (&comparison["model"], &comparison["against"]),
        (&json!("adaptive"), &json!("dense"))
    );
    let csv = fs::read_to_string(folder.join("runs/curves/efficiency.csv")).unwrap();
    assert_eq!(csv.lines().count(), 3);

    assert_eq!(json(&with(&["--speeds", "--json"])), found);
    let run = folder.join("runs/curves/runs/adaptive-0.7-s0/config.toml");
    let config = fs::read_to_string(run).unwrap();
    assert!(config.contains("batch_size = 16"), "{config}");
    assert_refusal(&with(&["--set", "budgte=1"]), "did you mean budget");
    let timed = with(&["--speeds", "--max-hours", "0.0000001"]);
    assert_eq!(timed.status.code(), Some(130));
    assert!(stderr(&timed).contains("starts over"));
    let table = with(&[]);
    assert!(table.status.success());
    let table = stdout(&table);
    assert!(
        table.contains("adaptive-0.7-s0") && table.contains("1 seed"),
        "{table}"
    );

    let run = "runs/curves/runs/adaptive-0.7-s0";
    let report = ["report", run, "--analysis", "pictures"];
    let found = json(&adavit(folder, &[&report[..], &["--json"]].concat()));
    assert_eq!(found["analysis"]["images"], 20);
    assert!(folder.join(found["report"].as_str().unwrap()).exists());
    let told = adavit(folder, &report);
    let told = stdout(&told);
    assert_eq!(
        told.lines().collect::<Vec<_>>(),
        [&format!("{run}/report.html"), "pictures"]
    );
    assert!(folder.join("pictures/least.png").exists());
}
