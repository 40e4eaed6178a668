//! The files of the efficiency curve.

use std::path::{Path, PathBuf};
use std::process::Command;

use adavit_experiment::report::{CurvePoint, efficiency_chart};
use adavit_model::write_file;
use adavit_train::Machine;
use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::shipped::{ShippedPoint, workspace};

/// Another processor rounds differently, so a borderline image may be decided differently: one in 500.
const TOP1_TOLERANCE: f64 = 0.002;

/// A model of the curve. Ratios are in [0, 1], multiply-adds and milliseconds per image.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The model's name in benches.
    pub name: String,
    /// Its budget; none for the dense model.
    pub budget: Option<f64>,
    /// Accuracy on the shipped test images.
    pub top1: f64,
    /// Mean multiply-adds.
    pub macs: f64,
    /// Over those of the dense model.
    pub macs_share: f64,
    /// Those of the dense model over these.
    pub macs_saved: f64,
    /// Median time at batch 1.
    pub ms_batch_1: f64,
    /// Median time at batch 32.
    pub ms_batch_32: f64,
}

/// The curve, and where it was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Curve {
    /// Number of test images of the accuracy.
    pub test_images: usize,
    /// The measured commit; `-dirty` where files differ from it.
    pub commit: String,
    /// The machine that it was measured on.
    #[serde(flatten)]
    pub machine: Machine,
    /// The models.
    pub rows: Vec<Row>,
}

impl Curve {
    /// Returns the curve of `rows`, measured on this machine.
    pub fn new(rows: Vec<Row>, test_images: usize) -> Self {
        Self {
            test_images,
            commit: commit(),
            machine: Machine::this("cpu"),
            rows,
        }
    }
}

/// What git calls the present files.
fn commit() -> String {
    let output = Command::new("git")
        .args([
            "describe",
            "--always",
            "--dirty",
            "--abbrev=12",
            "--exclude",
            "*",
        ])
        .current_dir(workspace())
        .output();
    let found = output.ok().filter(|output| output.status.success());
    found.map_or_else(
        || "unknown".into(),
        |output| String::from_utf8_lossy(&output.stdout).trim().into(),
    )
}

/// Checks that a model is as accurate as it was when it was shipped.
///
/// # Errors
/// If it is not.
pub fn expect_top1(point: &ShippedPoint, found: f64) -> Result<()> {
    ensure!(
        (found - point.top1).abs() <= TOP1_TOLERANCE,
        "{}: expected a top-1 of {:.4} on the shipped test images, found {found:.4}",
        point.name(),
        point.top1
    );
    Ok(())
}

/// The file that criterion writes the estimates of a bench to.
fn estimates(bench: &Path) -> PathBuf {
    let criterion = match std::env::var_os("CRITERION_HOME") {
        Some(folder) => folder.into(),
        None => target().join("criterion"),
    };
    criterion.join(bench).join("new").join("estimates.json")
}

/// Removes criterion's earlier estimates of a bench, so that no old time counts as a new one.
///
/// # Errors
/// If the file exists and cannot be removed.
pub fn forget_time(bench: &Path) -> Result<()> {
    let path = estimates(bench);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| path.display().to_string())
        }
        _ => Ok(()),
    }
}

/// Milliseconds per image, from criterion's estimates of a bench; none if it did not run.
pub fn time_per_image(bench: &Path, batch: usize) -> Option<f64> {
    let bytes = std::fs::read(estimates(bench)).ok()?;
    let estimates: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    let nanoseconds = estimates["median"]["point_estimate"].as_f64()?;
    Some(nanoseconds / 1e6 / batch as f64)
}

/// Writes `efficiency.{csv,json,svg}`, and returns the folder.
///
/// # Errors
/// If a file cannot be written.
pub fn write(curve: &Curve) -> Result<PathBuf> {
    let folder = target().join("efficiency");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let mut csv = csv::Writer::from_writer(Vec::new());
    for row in &curve.rows {
        csv.serialize(row)?;
    }
    write_file(&folder.join("efficiency.csv"), &csv.into_inner()?)?;
    let json = serde_json::to_vec_pretty(curve)?;
    write_file(&folder.join("efficiency.json"), &json)?;
    let dense = curve.rows.iter().find(|row| row.budget.is_none());
    let dense = dense.context("the curve: expected the dense model")?;
    let point = |series, time_share: f64, row: &Row| CurvePoint {
        series,
        macs_share: row.macs_share,
        time_share,
        top1: row.top1,
    };
    let points: Vec<CurvePoint> = curve
        .rows
        .iter()
        .flat_map(|row| {
            [
                point("batch 1", row.ms_batch_1 / dense.ms_batch_1, row),
                point("batch 32", row.ms_batch_32 / dense.ms_batch_32, row),
            ]
        })
        .collect();
    write_file(
        &folder.join("efficiency.svg"),
        efficiency_chart(&points).as_bytes(),
    )?;
    Ok(folder)
}

/// The folder that cargo builds in and criterion writes to.
fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => workspace().join(folder),
        None => workspace().join("target"),
    }
}
