//! Puts a sweep's dense and adaptive models of seed 0 into `data/fashion-mnist-nano`, with
//! thresholds for several budgets: what the bench `efficiency` measures.
//!
//! ```sh
//! cargo run --release -p adavit-benches --example ship_checkpoints -- SWEEP DATA_DIR
//! ```
//!
//! SWEEP is the folder of the sweep, DATA_DIR the folder of the four files of Fashion-MNIST, whose
//! held-out images move the thresholds.

use std::path::PathBuf;

use adavit_benches::shipped::{CHECKPOINTS, DENSE, ShippedPoint, TestImages, workspace};
use adavit_data::held_out;
use adavit_model::{Checkpoint, write_file};
use adavit_train::{Images, calibrate_best, evaluate_prepared, off_budget, run_config};
use anyhow::{Context, Result, bail};
use candle_core::Device;

/// What the adaptive models were trained for, and what their thresholds are moved to: shares of the
/// dense model's multiply-adds.
const BUDGETS: [(f64, [f64; 2]); 2] = [(0.4545, [0.6, 0.4545]), (0.2857, [0.38, 0.2857])];

fn main() -> Result<()> {
    adavit_benches::set_threads();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [sweep, data_dir] = &args[..] else {
        bail!("expected SWEEP DATA_DIR, found {} arguments", args.len());
    };
    let runs = PathBuf::from(sweep).join("runs");
    let adaptive = |trained: f64| runs.join(format!("adaptive-{trained}-s0"));
    let config = run_config(&adaptive(BUDGETS[0].0))?;
    let dense = Checkpoint::load(&runs.join("dense-s0").join("dense"))?;
    let train = adavit_data::load(&config.data, Some(data_dir.as_ref()))?.train;
    let split = held_out(train.len(), config.held_out, config.seed)?;
    let normalization = dense.config.normalization.as_ref();
    let images = Images {
        dataset: &train,
        indices: &split.held_out,
        normalization: normalization.context("the checkpoint's normalization")?,
        batch_size: config.eval_batch_size,
        device: &Device::Cpu,
    };
    let folder = workspace().join(CHECKPOINTS);
    dense.save(&folder.join(DENSE))?;
    let test = TestImages::load()?;
    let mut points = vec![point(DENSE, None, &dense, &test)?];
    for (trained, budgets) in BUDGETS {
        let adaptive = Checkpoint::load(&adaptive(trained).join("best"))?;
        let name = format!("adaptive-{trained}");
        adaptive.save(&folder.join(&name))?;
        for budget in budgets {
            let mut calibrated = adaptive.clone();
            let mut model = calibrated.model(&Device::Cpu)?;
            let found = calibrate_best(&mut model, &images, budget)?;
            if let Some(text) = off_budget(found.macs_share, budget) {
                bail!("{name}: {text}");
            }
            calibrated.config = model.config().clone();
            points.push(point(&name, Some(budget), &calibrated, &test)?);
        }
    }
    let json = serde_json::to_vec_pretty(&points)?;
    write_file(&folder.join("points.json"), &json)?;
    adavit_benches::print_note(&format!("written: {}", folder.display()));
    Ok(())
}

/// A model and its accuracy on the shipped test images.
fn point(
    name: &str,
    budget: Option<f64>,
    checkpoint: &Checkpoint,
    test: &TestImages,
) -> Result<ShippedPoint> {
    let decisions = checkpoint.config.decisions.as_ref();
    let prepared = checkpoint.prepared(&Device::Cpu)?;
    let found = evaluate_prepared(&prepared, &test.images(&Device::Cpu))?;
    Ok(ShippedPoint {
        checkpoint: name.to_owned(),
        budget,
        thresholds: decisions.map(|decisions| decisions.thresholds),
        top1: found.top1,
    })
}
