//! Puts a sweep's plain and adaptive model of seed 0 into `data/fashion-mnist-nano`, with
//! thresholds for several budgets: what the bench `efficiency` measures.
//!
//! ```sh
//! cargo run --release -p adavit-benches --example ship_checkpoints -- SWEEP BUDGET DATA_DIR
//! ```
//!
//! SWEEP is the folder of the sweep, BUDGET the one that the adaptive model was trained for, and
//! DATA_DIR the folder of the four files of Fashion-MNIST, whose held-out images move the thresholds.

use std::path::PathBuf;

use adavit_benches::shipped::{CHECKPOINTS, ShippedPoint, TestImages, workspace};
use adavit_model::{Checkpoint, write_file};
use adavit_train::data::{self, MeanStd, held_out};
use adavit_train::{Images, calibrate, evaluate_sparse, run_config};
use anyhow::{Context, Result, bail};
use candle_core::Device;

/// Shares of the plain model's multiply-adds.
const BUDGETS: [f64; 4] = [0.57, 0.4545, 0.4, 0.35];

fn main() -> Result<()> {
    adavit_benches::set_threads();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [sweep, budget, data_dir] = &args[..] else {
        bail!(
            "expected SWEEP BUDGET DATA_DIR, found {} arguments",
            args.len()
        );
    };
    let runs = PathBuf::from(sweep).join("runs");
    let adaptive_run = runs.join(format!("adaptive-{budget}-s0"));
    let config = run_config(&adaptive_run)?;
    let dense = Checkpoint::load(&runs.join("dense-s0").join("dense"))?;
    let adaptive = Checkpoint::load(&adaptive_run.join("best"))?;
    let train = data::load(&config.data, Some(data_dir.as_ref()))?.train;
    let split = held_out(train.len(), config.held_out, config.seed)?;
    let stats = dense.config.normalization.as_ref().map(MeanStd::from);
    let images = Images {
        dataset: &train,
        indices: &split.held_out,
        stats: &stats.context("the checkpoint's normalization")?,
        batch_size: config.eval_batch_size,
        device: &Device::Cpu,
    };
    let folder = workspace().join(CHECKPOINTS);
    dense.save(&folder.join("dense"))?;
    adaptive.save(&folder.join("adaptive"))?;
    let test = TestImages::load()?;
    let measured = test.images(&Device::Cpu);
    let point = |budget, checkpoint: &Checkpoint| -> Result<ShippedPoint> {
        let decisions = checkpoint.config.decisions.as_ref();
        let found = evaluate_sparse(&checkpoint.prepared(&Device::Cpu)?, &measured, &mut |_| {
            Ok(())
        })?;
        Ok(ShippedPoint {
            budget,
            thresholds: decisions.map(|decisions| decisions.thresholds),
            top1: found.top1,
        })
    };
    let mut points = vec![point(None, &dense)?];
    for budget in BUDGETS {
        let mut model = adaptive.model(&Device::Cpu)?;
        calibrate(&mut model, &images, budget)?;
        let moved = Checkpoint {
            config: model.config().clone(),
            tensors: adaptive.tensors.clone(),
        };
        points.push(point(Some(budget), &moved)?);
    }
    let json = serde_json::to_vec_pretty(&points)?;
    write_file(&folder.join("points.json"), &json)?;
    adavit_benches::tell(&format!("written: {}", folder.display()));
    Ok(())
}
