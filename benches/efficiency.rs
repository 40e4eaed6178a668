//! The efficiency curve of the trained checkpoints that ship with the repository: accuracy on the
//! shipped test images, multiply-adds, and measured time per image at batch 1 and 32.
//!
//! `cargo bench --bench efficiency` writes `target/efficiency/efficiency.{csv,json,svg}`;
//! `cargo xtask curves` puts them into the docs. Elements of a throughput are multiply-adds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use adavit_benches::curve::{Curve, Row, expect_top1, forget_time, time_per_image, write};
use adavit_benches::shipped::{Shipped, TestImages};
use adavit_model::{PreparedTransformer, Workspace};
use adavit_train::evaluate_prepared;
use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};

const GROUP: &str = "efficiency";
const BATCHES: [usize; 2] = [1, 32];
/// Images that each measurement goes through in turn.
const IMAGES: usize = 512;

/// A model of the curve.
struct Model {
    name: String,
    budget: Option<f64>,
    prepared: PreparedTransformer,
    top1: f64,
    macs: f64,
    macs_share: f64,
}

impl Model {
    fn forward(&self, images: &Tensor, workspace: &mut Workspace) -> Tensor {
        let logits = match self.budget {
            Some(_) => self.prepared.forward_sparse(images, workspace),
            None => self.prepared.forward_dense(images, workspace),
        };
        logits.expect("images of the model's size")
    }
}

fn models(shipped: &Shipped, test: &TestImages, check: bool) -> Result<Vec<Model>> {
    let dense_macs = shipped.dense.config.geometry().dense_macs() as f64;
    let all = shipped.points.iter().map(|point| {
        let prepared = shipped.prepared(point)?;
        let (top1, macs) = if check {
            let images = test.images(&Device::Cpu);
            let found = evaluate_prepared(&prepared, &images)?;
            expect_top1(point, found.top1)?;
            (found.top1, found.macs)
        } else {
            (point.top1, dense_macs)
        };
        Ok(Model {
            name: point.name(),
            budget: point.budget,
            prepared,
            top1,
            macs,
            macs_share: macs / dense_macs,
        })
    });
    all.collect()
}

fn bench(c: &mut Criterion, models: &[Model], test: &TestImages) -> Result<()> {
    let mut group = c.benchmark_group(GROUP);
    group
        .sample_size(20)
        .sampling_mode(SamplingMode::Flat)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(4));
    for batch in BATCHES {
        let batches = test.batches(IMAGES, batch)?;
        for model in models {
            group.throughput(Throughput::Elements((model.macs * batch as f64) as u64));
            let id = BenchmarkId::new(&model.name, format!("b{batch}"));
            group.bench_function(id, |b| {
                let mut workspace = Workspace::default();
                let mut next = batches.iter().cycle();
                b.iter(|| {
                    let images = next.next().expect("a cycle has no end");
                    model.forward(images, &mut workspace)
                });
            });
        }
    }
    group.finish();
    Ok(())
}

/// The folder of criterion's estimates of a model, within its own.
fn place(model: &Model, batch: usize) -> PathBuf {
    Path::new(GROUP).join(&model.name).join(format!("b{batch}"))
}

/// The measured times, joined with accuracy and multiply-adds.
fn joined(models: &[Model]) -> Vec<Row> {
    let rows = models.iter().filter_map(|model| {
        let [one, many] = BATCHES.map(|batch| time_per_image(&place(model, batch), batch));
        Some(Row {
            name: model.name.clone(),
            budget: model.budget,
            top1: model.top1,
            macs: model.macs,
            macs_share: model.macs_share,
            macs_saved: model.macs_share.recip(),
            ms_batch_1: one?,
            ms_batch_32: many?,
        })
    });
    rows.collect()
}

fn main() -> Result<()> {
    adavit_benches::set_threads();
    let shipped = Shipped::load().context("the shipped checkpoints")?;
    let test = TestImages::load().context("the shipped test images")?;
    // `cargo test --benches` runs everything once, and measures nothing.
    let measuring = std::env::args().any(|arg| arg == "--bench");
    // With a filter, or for a list, some times would be from an earlier run.
    let all = std::env::args().skip(1).all(|arg| arg == "--bench");
    let models = models(&shipped, &test, measuring)?;
    if measuring && all {
        for model in &models {
            for batch in BATCHES {
                forget_time(&place(model, batch))?;
            }
        }
    }
    let mut criterion = Criterion::default().configure_from_args();
    bench(&mut criterion, &models, &test)?;
    criterion.final_summary();
    let rows = joined(&models);
    if !measuring {
        return Ok(());
    }
    adavit_benches::print_note(&if all && rows.len() == models.len() {
        let folder: PathBuf = write(&Curve::new(rows, test.len()))?;
        format!("written: {}/efficiency.{{csv,json,svg}}", folder.display())
    } else {
        "efficiency.{csv,json,svg} not written: expected a run without options, which measures \
         every model"
            .into()
    });
    Ok(())
}
