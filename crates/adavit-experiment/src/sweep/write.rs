//! The files of a sweep.

use std::path::Path;

use adavit_model::write_file;
use adavit_train::{TrainConfig, merge, without_places};
use serde::Serialize;
use toml::{Table, Value};

use crate::error::{Error, Result};
use crate::report::efficiency::{CurvePoint, efficiency_chart};
use crate::sweep::compare::{PairedComparison, comparisons};
use crate::sweep::config::SweepConfig;
use crate::sweep::point::{BATCHES, ModelKind, Point};
use crate::sweep::tables::tables;

/// The resolved settings, which bind the folder.
const SETTINGS: &str = "sweep.toml";

/// All settings of a sweep, for one file.
#[derive(Serialize)]
struct Settings<'a> {
    sweep: &'a SweepConfig,
    recipe: Table,
}

/// The lists of named models, whose points stay when they are left out of the file.
const NAMED: [&str; 2] = ["smaller", "variant"];

fn unwritable(error: &dyn std::fmt::Display) -> Error {
    Error::Encode {
        what: SETTINGS,
        message: error.to_string(),
    }
}

/// The settings for the folder of a sweep, checked against those of the sweep that is there.
pub(super) fn settings(config: &SweepConfig, recipe: &TrainConfig, out: &Path) -> Result<Table> {
    let settings = Settings {
        sweep: config,
        recipe: recipe.learnt()?,
    };
    let mut now = Table::try_from(&settings).map_err(|error| unwritable(&error))?;
    let path = out.join(SETTINGS);
    if path.exists() {
        let text = std::fs::read_to_string(&path).map_err(Error::io("reading", &path))?;
        let before: Table = text.parse().map_err(|error| Error::File {
            path: path.clone(),
            message: format!(
                "{error}; remove the file if the points of the folder are of these settings"
            ),
        })?;
        if let Some(changed) = changed(&before, &now) {
            return Err(Error::File {
                path: out.into(),
                message: format!("holds a sweep with another {changed}; choose another folder"),
            });
        }
        keep_left_out(&before, &mut now);
    }
    Ok(now)
}

/// Writes the settings into the folder, which holds a sweep of them from now on.
pub(super) fn bind(settings: &Table, out: &Path) -> Result<()> {
    std::fs::create_dir_all(out).map_err(Error::io("making", out))?;
    let text = toml::to_string(settings).map_err(|error| unwritable(&error))?;
    Ok(write_file(&out.join(SETTINGS), text.as_bytes())?)
}

/// A setting of the sweep itself.
fn setting<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    table.get("sweep")?.get(key)
}

/// The named models of a list.
fn named<'a>(table: &'a Table, key: &str) -> &'a [Value] {
    let list = setting(table, key).and_then(Value::as_array);
    list.map_or(&[], Vec::as_slice)
}

/// The model of a list that has the name of another.
fn namesake<'a>(list: &'a [Value], model: &Value) -> Option<&'a Value> {
    list.iter()
        .find(|other| other.get("name") == model.get("name"))
}

/// What of the settings that points depend on is not what it was. Seeds, budgets, rivals and named
/// models may be added or left out.
fn changed(before: &Table, now: &Table) -> Option<String> {
    if let Some(key) = changed_recipe(before, now) {
        return Some(format!("recipe ({key})"));
    }
    let first = |table| setting(table, "seeds")?.get(0);
    if first(before) != first(now) {
        return Some("first seed".into());
    }
    if setting(before, "evit_blocks") != setting(now, "evit_blocks") {
        return Some("evit_blocks".into());
    }
    for key in NAMED {
        for model in named(now, key) {
            if namesake(named(before, key), model).is_some_and(|old| old != model) {
                return Some(format!("{key} model of the name {}", model.get("name")?));
            }
        }
    }
    None
}

/// The first key of the recipe that has another value; one that was not there yet had its default.
fn changed_recipe(before: &Table, now: &Table) -> Option<String> {
    let recipe = |table: &Table| table.get("recipe").and_then(Value::as_table).cloned();
    let (found, now) = (recipe(before).unwrap_or_default(), recipe(now)?);
    let mut before = TrainConfig::default().learnt().ok()?;
    merge(&mut before, without_places(found));
    let differs = |key: &&String| before.get(*key) != now.get(*key);
    before.keys().chain(now.keys()).find(differs).cloned()
}

/// Adds the named models that are left out to the settings to write, so that none comes back later
/// as something else.
fn keep_left_out(before: &Table, now: &mut Table) {
    for key in NAMED {
        let list = named(now, key);
        let gone = named(before, key).iter();
        let gone = gone.filter(|old| namesake(list, old).is_none());
        let all: Vec<Value> = list.iter().chain(gone).cloned().collect();
        if let Some(Value::Table(sweep)) = now.get_mut("sweep") {
            sweep.insert(key.into(), Value::Array(all));
        }
    }
}

/// What `efficiency.json` holds.
#[derive(Serialize)]
struct Curves<'a> {
    points: Vec<Row<'a>>,
    comparisons: &'a [PairedComparison],
}

/// A line of `efficiency.csv`.
#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    kind: ModelKind,
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
    cpu: &'a str,
    simd: &'a str,
    device: &'a str,
    threads: usize,
    speeds_commit: &'a str,
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
            cpu: &point.machine.cpu,
            simd: &point.machine.simd,
            device: &point.machine.device,
            threads: point.machine.threads,
            speeds_commit: &point.speeds_commit,
            tokens: usage.map(|usage| usage.tokens),
            heads: usage.map(|usage| usage.heads),
            blocks: usage.map(|usage| usage.blocks),
            train_seconds: point.train_seconds,
            commit: &point.commit,
        }
    }
}

/// Writes `efficiency.{csv,json,md,svg}` of the points so far, and returns the comparisons.
pub(super) fn curves(
    config: &SweepConfig,
    points: &[Point],
    out: &Path,
) -> Result<Vec<PairedComparison>> {
    let failed = |error: &dyn std::fmt::Display| Error::Encode {
        what: "the curves of a sweep",
        message: error.to_string(),
    };
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
    let text = tables(config, points, &comparisons);
    write_file(&out.join("efficiency.md"), text.as_bytes())?;
    // Variants are a table, not a curve; other seeds lie on top of the first.
    let drawn = points
        .iter()
        .filter(|point| point.kind != ModelKind::Variant && point.seed == config.seeds[0]);
    let drawn: Vec<&Point> = drawn.collect();
    let svg = efficiency_chart(&curve_points(&drawn));
    write_file(&out.join("efficiency.svg"), svg.as_bytes())?;
    Ok(comparisons)
}

/// The points of the chart. Times of different machines do not lie on one axis: those of another than
/// the dense model's are left out.
fn curve_points<'a>(points: &[&'a Point]) -> Vec<CurvePoint<'a>> {
    let dense = points.iter().find(|point| point.kind == ModelKind::Dense);
    let time_share = |point: &Point| {
        let speed = point.speed(BATCHES[1])?;
        (dense?.machine == point.machine).then(|| speed.time_saved.recip())
    };
    points
        .iter()
        .map(|point| CurvePoint {
            series: point.kind.title(),
            macs_share: point.macs_share,
            time_share: time_share(point).unwrap_or(f64::NAN),
            top1: point.top1,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_another_machine_are_not_drawn() {
        let dense = Point::made("dense-s0", ModelKind::Dense, "10");
        let near = Point::made("adaptive-0.5-s0", ModelKind::Adaptive, "11");
        let mut far = near.clone();
        far.machine.cpu = "another".into();
        let [dense, near, far] = curve_points(&[&dense, &near, &far])[..] else {
            panic!("expected a point for each model");
        };
        assert_eq!((dense.time_share, near.time_share), (0.5, 0.5));
        assert!(far.time_share.is_nan());
        assert_eq!((far.macs_share, far.top1), (near.macs_share, near.top1));
    }
}
