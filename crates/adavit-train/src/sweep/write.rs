//! The files of a sweep.

use std::path::Path;

use adavit_model::write_file;
use serde::Serialize;

use super::compare::{Comparison, comparisons};
use super::point::Point;
use super::speed::BATCHES;
use super::{Kind, SweepConfig};
use crate::config::TrainConfig;
use crate::report::{CurvePoint, efficiency_chart};
use crate::{Error, Result};

/// The resolved settings, which bind the folder.
const SETTINGS: &str = "sweep.toml";

/// All settings of a sweep, for one file.
#[derive(Serialize)]
struct Settings<'a> {
    sweep: &'a SweepConfig,
    recipe: TrainConfig,
}

/// Writes the settings into the folder of a new sweep, or checks that they are those of the sweep
/// that is there.
pub(super) fn bind(config: &SweepConfig, recipe: &TrainConfig, out: &Path) -> Result<()> {
    let mut recipe = recipe.clone();
    // Where, and with how many threads, is no part of what is measured.
    (recipe.threads, recipe.data_dir) = (None, None);
    // More seeds or models may be asked for later; points that are there stay as they are.
    let settings = Settings {
        sweep: config,
        recipe,
    };
    let text = toml::to_string(&settings).map_err(|error| Error::Input(error.to_string()))?;
    let path = out.join(SETTINGS);
    if path.exists() {
        let found = std::fs::read_to_string(&path).map_err(Error::io("reading", &path))?;
        if let Some(changed) = changed(&found, &text) {
            return Err(Error::Input(format!(
                "{}: holds a sweep with another {changed}; give another folder by --out",
                out.display()
            )));
        }
    }
    std::fs::create_dir_all(out).map_err(Error::io("making", out))?;
    Ok(write_file(&path, text.as_bytes())?)
}

/// What of the settings that points depend on is not what it was. Seeds, budgets, rivals and named
/// models may be added.
fn changed(before: &str, now: &str) -> Option<String> {
    let (before, now): (toml::Table, toml::Table) = (before.parse().ok()?, now.parse().ok()?);
    if before.get("recipe") != now.get("recipe") {
        return Some("recipe".into());
    }
    let of = |table: &toml::Table, key: &str| table.get("sweep")?.get(key).cloned();
    let first = |table: &toml::Table| of(table, "seeds")?.get(0).cloned();
    if first(&before) != first(&now) {
        return Some("first seed".into());
    }
    if of(&before, "evit_blocks") != of(&now, "evit_blocks") {
        return Some("evit_blocks".into());
    }
    let named = |table: &toml::Table, key: &str| {
        let list = of(table, key).and_then(|list| list.as_array().cloned());
        list.unwrap_or_default()
    };
    for key in ["smaller", "variant"] {
        for model in named(&now, key) {
            let name = model.get("name");
            let same = |old: &&toml::Value| old.get("name") == name;
            if named(&before, key)
                .iter()
                .find(same)
                .is_some_and(|old| *old != model)
            {
                return Some(format!("{key} model of the name {}", name?));
            }
        }
    }
    None
}

/// What `efficiency.json` holds.
#[derive(Serialize)]
struct Curves<'a> {
    points: Vec<Row<'a>>,
    comparisons: &'a [Comparison],
}

/// A line of `efficiency.csv`.
#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    kind: Kind,
    seed: u64,
    budget: Option<f64>,
    top1: f64,
    macs: f64,
    macs_p10: u64,
    macs_p90: u64,
    macs_share: f64,
    images_per_s_batch_1: Option<f64>,
    images_per_s_batch_32: Option<f64>,
    time_saved_batch_1: Option<f64>,
    time_saved_batch_32: Option<f64>,
    tokens: Option<f64>,
    heads: Option<f64>,
    blocks: Option<f64>,
    train_seconds: f64,
    commit: &'a str,
}

impl<'a> Row<'a> {
    fn of(point: &'a Point) -> Self {
        let [one, many] = BATCHES.map(|batch| point.speed(batch));
        let usage = point.usage.as_ref();
        Self {
            name: &point.name,
            kind: point.kind,
            seed: point.seed,
            budget: point.budget,
            top1: point.top1,
            macs: point.macs,
            macs_p10: point.macs_p10,
            macs_p90: point.macs_p90,
            macs_share: point.macs_share,
            images_per_s_batch_1: one.map(|speed| speed.images_per_s),
            images_per_s_batch_32: many.map(|speed| speed.images_per_s),
            time_saved_batch_1: one.map(|speed| speed.time_saved),
            time_saved_batch_32: many.map(|speed| speed.time_saved),
            tokens: usage.map(|usage| usage.tokens),
            heads: usage.map(|usage| usage.heads),
            blocks: usage.map(|usage| usage.blocks),
            train_seconds: point.train_seconds,
            commit: &point.commit,
        }
    }
}

/// Writes `efficiency.{csv,json,svg}` of the points so far, and returns the comparisons.
pub(super) fn curves(
    config: &SweepConfig,
    points: &[Point],
    out: &Path,
) -> Result<Vec<Comparison>> {
    let failed = |error: &dyn std::fmt::Display| Error::Input(format!("efficiency: {error}"));
    let mut csv = csv::Writer::from_writer(Vec::new());
    for point in points {
        csv.serialize(Row::of(point))
            .map_err(|error| failed(&error))?;
    }
    let csv = csv.into_inner().map_err(|error| failed(&error))?;
    write_file(&out.join("efficiency.csv"), &csv)?;
    let comparisons = comparisons(config, points);
    let curves = Curves {
        points: points.iter().map(Row::of).collect(),
        comparisons: &comparisons,
    };
    let json = serde_json::to_vec_pretty(&curves).map_err(|error| failed(&error))?;
    write_file(&out.join("efficiency.json"), &json)?;
    // Variants are a table, not a curve; other seeds lie on top of the first.
    let drawn = points
        .iter()
        .filter(|point| point.kind != Kind::Variant && point.seed == config.seeds[0]);
    let drawn: Vec<CurvePoint> = drawn
        .map(|point| CurvePoint {
            series: point.kind.title(),
            macs_share: point.macs_share,
            ms: point
                .speed(BATCHES[1])
                .map_or(f64::NAN, |speed| 1e3 / speed.images_per_s),
            top1: point.top1,
        })
        .collect();
    let svg = efficiency_chart(&drawn)?;
    write_file(&out.join("efficiency.svg"), svg.as_bytes())?;
    Ok(comparisons)
}
