//! What an adaptive model spends its compute on: numbers and pictures as files, for documents.

use std::path::Path;

use adavit_decision::BlockUsage;
use adavit_model::{Checkpoint, write_file};
use candle_core::Device;
use image::{ImageFormat, RgbImage};
use serde::Serialize;

use super::adaptive::{Adaptive, drawable};
use super::charts::{Labels, Series, lines_on_white};
use crate::data::Dataset;
use crate::evaluate::{Images, Mode, evaluate_each};
use crate::folder::RunFolder;
use crate::{Error, Result};

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
    /// Spearman's rank correlation of an image's multiply-adds with the plain model's loss on it.
    pub macs_and_plain_loss: f64,
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

/// Writes `analysis.json`, `usage.svg` and pictures of the run in a folder into the folder `out`:
/// `least.png` and `most.png` of the images by their compute, `easiest.png` and `hardest.png` by the
/// plain model's loss.
///
/// # Errors
/// If the folder holds no finished models, or its data cannot be read.
pub fn write_analysis(run: &Path, out: &Path, device: &Device) -> Result<Analysis> {
    let config = RunFolder::read_config(run)?;
    config.method.expect_learned()?;
    let checkpoint = Checkpoint::load(&run.join("best"))?;
    if !drawable(&checkpoint.config) {
        return Err(Error::Input(format!(
            "analysis: expected images of 1 or 3 channels to draw, found {}",
            checkpoint.config.in_chans
        )));
    }
    let adaptive = Adaptive::evaluated(&checkpoint, &config, device)?;
    let losses = adaptive.plain_losses(run)?;
    let analysis = adaptive.analysis(&losses);
    std::fs::create_dir_all(out).map_err(Error::io("making", out))?;
    let json = serde_json::to_vec_pretty(&analysis)
        .map_err(|error| Error::Input(format!("analysis: {error}")))?;
    write_file(&out.join("analysis.json"), &json)?;
    write_file(
        &out.join("usage.svg"),
        usage_chart(&analysis.blocks)?.as_bytes(),
    )?;
    let (least, most) = adaptive.extremes(DRAWN, &adaptive.macs());
    let (easiest, hardest) = adaptive.extremes(DRAWN, &losses);
    for (records, name) in [
        (least, "least.png"),
        (most, "most.png"),
        (easiest, "easiest.png"),
        (hardest, "hardest.png"),
    ] {
        let pictures = adaptive.drawn(&records)?;
        let pictures: Vec<RgbImage> = pictures.into_iter().map(|(picture, _)| picture).collect();
        write_file(&out.join(name), &png(&beside(&pictures))?)?;
    }
    Ok(analysis)
}

/// The plain model's loss on each image.
pub(super) fn plain_losses(
    checkpoint: &Path,
    test: &Dataset,
    (batch_size, device): (usize, &Device),
) -> Result<Vec<f64>> {
    let dense = Checkpoint::load(checkpoint)?;
    let stats = test.mean_std_for(&dense.config);
    let indices = test.indices();
    let images = Images {
        dataset: test,
        indices: &indices,
        stats: &stats,
        batch_size,
        device,
    };
    let mut losses = Vec::with_capacity(indices.len());
    evaluate_each(&dense.model(device)?, &images, Mode::Dense, &mut |image| {
        losses.push(image.loss);
        Ok(())
    })?;
    Ok(losses)
}

/// Spearman's rank correlation; equal values share the mean of their ranks. 0 where one side has no
/// differences.
pub(super) fn rank_correlation(xs: &[f64], ys: &[f64]) -> f64 {
    let (xs, ys) = (ranks(xs), ranks(ys));
    let mean = (xs.len() as f64 - 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum()
    };
    let spread = (product(&xs, &xs) * product(&ys, &ys)).sqrt();
    if spread > 0.0 {
        product(&xs, &ys) / spread
    } else {
        0.0
    }
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|i, j| values[*i].total_cmp(&values[*j]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for group in order.chunk_by(|i, j| values[*i] == values[*j]) {
        let rank = start as f64 + (group.len() - 1) as f64 / 2.0;
        for index in group {
            ranks[*index] = rank;
        }
        start += group.len();
    }
    ranks
}

fn usage_chart(blocks: &[BlockUsage]) -> Result<String> {
    let series = |name: &str, share: fn(&BlockUsage) -> f64| Series {
        name: name.into(),
        points: blocks
            .iter()
            .enumerate()
            .map(|(block, usage)| ((block + 1) as f64, share(usage)))
            .collect(),
    };
    let labels = Labels {
        x: "block",
        y: "kept",
    };
    let all = [
        series("tokens", |usage| usage.tokens),
        series("heads", |usage| usage.heads),
        series("attention", |usage| usage.attention),
        series("MLP", |usage| usage.mlp),
    ];
    lines_on_white(&all, labels)
}

/// Pictures in one row.
fn beside(pictures: &[RgbImage]) -> RgbImage {
    let width = pictures.iter().map(RgbImage::width).sum();
    let height = pictures.iter().map(RgbImage::height).max().unwrap_or(0);
    let mut all = RgbImage::new(width, height);
    let mut left = 0;
    for picture in pictures {
        image::imageops::replace(&mut all, picture, left, 0);
        left += i64::from(picture.width());
    }
    all
}

/// A PNG file.
pub(super) fn png(picture: &RgbImage) -> Result<Vec<u8>> {
    let mut png = std::io::Cursor::new(Vec::new());
    picture
        .write_to(&mut png, ImageFormat::Png)
        .map_err(|error| Error::Input(format!("drawing an image: {error}")))?;
    Ok(png.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_correlate_whatever_the_values() {
        let xs = [1.0, 2.0, 3.0, 4.0];
        assert!((rank_correlation(&xs, &[1.0, 10.0, 100.0, 1000.0]) - 1.0).abs() < 1e-12);
        assert!((rank_correlation(&xs, &[4.0, 3.0, 2.0, -9.0]) + 1.0).abs() < 1e-12);
        assert_eq!(rank_correlation(&xs, &[5.0; 4]), 0.0);
        // Ranks 0.5, 0.5, 2, 3 by hand: 4.5 over the root of 4.5 times 5.
        let ties = rank_correlation(&[1.0, 1.0, 2.0, 3.0], &xs);
        assert!((ties - 4.5 / (4.5f64 * 5.0).sqrt()).abs() < 1e-12);
    }
}
