//! Losses of the dense model, and how they go with compute.

use std::path::Path;

use adavit_data::{Labelled, all_indices};
use adavit_model::Checkpoint;
use adavit_train::{Evaluator, Images, Mode};
use candle_core::Device;

use crate::error::Result;

/// The dense model's loss on each image.
pub(super) fn dense_losses(
    checkpoint: &Path,
    test: &dyn Labelled,
    batch_size: usize,
    device: &Device,
) -> Result<Vec<f64>> {
    let dense = Checkpoint::load(checkpoint)?;
    let normalization = dense.config.normalization_for(test)?;
    let indices = all_indices(test);
    let images = Images {
        dataset: test,
        indices: &indices,
        normalization: &normalization,
        batch_size,
        device,
    };
    let mut losses = Vec::with_capacity(indices.len());
    let model = dense.model(device)?;
    for batch in Evaluator::new(&model, &images, Mode::Dense)? {
        losses.extend(batch?.iter().map(|image| image.loss));
    }
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
