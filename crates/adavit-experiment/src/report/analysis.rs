//! What an adaptive model spends its compute on: numbers and pictures as files, for documents.

use std::path::Path;

use adavit_data::Labelled;
use adavit_decision::BlockUsage;
use adavit_model::{Checkpoint, write_file};
use adavit_train::RunFolder;
use candle_core::Device;
use image::RgbImage;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::report::adaptive::{AdaptiveResults, Record, drawable};
use crate::report::chart::axis::Values;
use crate::report::chart::figure::{Chart, Form, Series};
use crate::report::chart::frame::Labels;
use crate::report::overlay::{png, row_of_pictures};
use crate::report::statistics::rank_correlation;

/// Images of each kind that are drawn.
const DRAWN: usize = 6;

/// What the adaptive model of a run does with the test images.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Analysis {
    /// How many test images.
    pub images: usize,
    /// Accuracy.
    pub top1: f64,
    /// Mean multiply-adds of an image.
    pub macs: f64,
    /// The multiply-adds that 10 % of the images stay below, that half of them do, and that 90 % do.
    pub macs_percentiles: [u64; 3],
    /// Spearman's rank correlation of an image's multiply-adds with the dense model's loss on it.
    pub macs_and_dense_loss: f64,
    /// What is kept, block by block.
    pub blocks: Vec<BlockUsage>,
    /// Class by class.
    pub classes: Vec<ClassCompute>,
}

/// The images of a class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassCompute {
    /// Its name.
    pub class: String,
    /// How many images.
    pub images: u64,
    /// Accuracy.
    pub top1: f64,
    /// Mean multiply-adds.
    pub macs: f64,
}

impl Analysis {
    /// The numbers, `losses` being the dense model's of each image.
    fn of(results: &AdaptiveResults, losses: &[f64]) -> Self {
        let table = &results.classes;
        let classes = (0..table.confusion().len()).filter_map(|class| {
            Some(ClassCompute {
                class: results.class_name(class),
                images: table.images(class),
                top1: table.top1(class)?,
                macs: table.mean_macs(class)?,
            })
        });
        let found = &results.evaluation;
        Self {
            images: found.images,
            top1: found.top1,
            macs: found.macs,
            macs_percentiles: found.macs_percentiles,
            macs_and_dense_loss: rank_correlation(&results.macs(), losses),
            blocks: found.usage.per_block.clone(),
            classes: classes.collect(),
        }
    }
}

/// Writes `analysis.json`, `usage.svg` and pictures of the run in a folder into the folder `out`:
/// `least.png` and `most.png` of the images by their compute, `easiest.png` and `hardest.png` by the
/// dense model's loss.
///
/// # Errors
/// If the folder holds no finished models, or its data cannot be read.
pub fn write_analysis(
    run: &Path,
    test: &dyn Labelled,
    out: &Path,
    device: &Device,
) -> Result<Analysis> {
    let config = RunFolder::read_config(run)?;
    config.method.expect_learned()?;
    let checkpoint = Checkpoint::load(&run.join("best"))?;
    if !drawable(&checkpoint.config) {
        return Err(Error::Setting(format!(
            "analysis: expected images of 1 or 3 channels to draw, found {}",
            checkpoint.config.in_chans
        )));
    }
    let adaptive = AdaptiveResults::evaluated(&checkpoint, &config, test, device)?;
    let losses = adaptive.dense_losses(run)?;
    let analysis = Analysis::of(&adaptive, &losses);
    std::fs::create_dir_all(out).map_err(Error::io("making", out))?;
    let json = serde_json::to_vec_pretty(&analysis).map_err(|error| Error::Encode {
        what: "analysis.json",
        message: error.to_string(),
    })?;
    write_file(&out.join("analysis.json"), &json)?;
    let usage = usage_chart(&analysis.blocks);
    write_file(&out.join("usage.svg"), usage.as_bytes())?;
    let compute = adaptive.extremes(DRAWN, &adaptive.macs());
    let difficulty = adaptive.extremes(DRAWN, &losses);
    for (records, name, title) in [
        (compute.least, "least.png", "least compute"),
        (compute.most, "most.png", "most compute"),
        (
            difficulty.least,
            "easiest.png",
            "easiest for the dense model",
        ),
        (
            difficulty.most,
            "hardest.png",
            "hardest for the dense model",
        ),
    ] {
        let picture = row_of_pictures(title, &overlays(&adaptive, &records)?);
        write_file(&out.join(name), &png(&picture)?)?;
    }
    Ok(analysis)
}

/// Pictures of images, each with its label and prediction above.
fn overlays(adaptive: &AdaptiveResults, records: &[Record]) -> Result<Vec<RgbImage>> {
    let replay = adaptive.replay(records)?;
    let pictures = replay.answers().enumerate().map(|(place, answer)| {
        let caption = [
            format!("label: {}", answer.label),
            format!("predicted: {} {:.2}", answer.predicted, answer.probability),
            format!("MACs: {:.2} of dense", answer.macs_share),
        ];
        replay.overlay(place, &caption)
    });
    Ok(pictures.collect())
}

fn usage_chart(blocks: &[BlockUsage]) -> String {
    let series = |name: &str, share: fn(&BlockUsage) -> f64| {
        let shares = blocks.iter().enumerate();
        let points = shares.map(|(block, usage)| ((block + 1) as f64, share(usage)));
        Series {
            name: name.into(),
            points: points.collect(),
            form: Form::Curve,
        }
    };
    let chart = Chart {
        series: &[
            series("tokens", |usage| usage.tokens),
            series("heads", |usage| usage.heads),
            series("attention", |usage| usage.attention),
            series("MLP", |usage| usage.mlp),
        ],
        labels: Labels {
            x: "block",
            y: "kept share",
        },
        x: Values::Whole,
        note: None,
    };
    chart.file()
}
