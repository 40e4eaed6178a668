//! What an elastic model shows of each image at a budget.

use adavit_data::{batches, make_batch};
use adavit_decision::{Allowance, Budgets};
use adavit_model::{PreparedTransformer, Workspace};

use crate::error::Result;
use crate::eval::evaluation::{cross_entropy, rank_of};
use crate::eval::images::Images;

/// What a model shows of the images at one budget, in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    /// Cross entropy with the label.
    pub(super) losses: Vec<f64>,
    /// MACs over those of the dense model.
    pub(super) shares: Vec<f64>,
    /// The mean of these, rounded as that of an evaluation.
    pub(super) share: f64,
    /// Whether the label has the highest logit.
    pub(super) right: Vec<bool>,
    /// `(images, C)`: the class tokens behind the first block.
    pub(super) tokens: Vec<f32>,
}

impl Record {
    /// Runs `model` on the images with `budgets`.
    ///
    /// # Errors
    /// If an image cannot be read, or a logit is not finite.
    pub(super) fn of(
        model: &PreparedTransformer,
        images: &Images,
        budgets: Budgets,
    ) -> Result<Self> {
        let config = model.config();
        let geometry = config.geometry();
        let dense = geometry.dense_macs() as f64;
        let decisions = config.decisions.clone().unwrap_or_default();
        let allowance = Allowance {
            budget: Some(budgets),
            ..Allowance::default()
        };
        let mut workspace = Workspace::default();
        let mut record = Self::default();
        let mut all_macs = 0;
        for indices in batches(images.indices, images.batch_size) {
            let normalization = images.normalization;
            let batch = make_batch(images.dataset, indices, None, normalization, images.device)?;
            let logits = model.forward_sparse_within(&batch.images, &allowance, &mut workspace)?;
            let labels = batch.labels.to_vec1::<u32>()?;
            for (image, (logits, label)) in logits.to_vec2::<f32>()?.iter().zip(labels).enumerate()
            {
                let kept = workspace.policy().image_kept(image);
                let macs = geometry.image_macs(&decisions, &kept);
                all_macs += macs;
                record.shares.push(macs as f64 / dense);
                record.right.push(rank_of(logits, label as usize)? == 0);
                record.losses.push(cross_entropy(logits, label as usize));
            }
            record.tokens.extend(workspace.class_tokens());
        }
        record.share = all_macs as f64 / record.shares.len() as f64 / dense;
        Ok(record)
    }

    /// The share of images whose label has the highest logit.
    pub(super) fn top1(&self) -> f64 {
        let right = self.right.iter().filter(|right| **right).count();
        right as f64 / self.right.len() as f64
    }
}
