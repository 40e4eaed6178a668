//! What the fit of an allocator found.

use serde::{Deserialize, Serialize};

/// How well an allocator predicts, and what it gains, on the images that it was fitted on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AllocatorReport {
    /// How many images.
    pub images: usize,
    /// The budgets that an image may get.
    pub knots: Vec<KnotReport>,
    /// Several mean shares.
    pub points: Vec<PointReport>,
}

/// A budget that an image may get.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct KnotReport {
    /// The budget that the networks are asked for.
    pub asked: f64,
    /// The mean MACs of the images at it, over those of the dense model.
    pub share: f64,
    /// Their accuracy at it.
    pub top1: f64,
    /// The share of the variance of their losses that maps predict which have not seen the image.
    pub r2: f64,
    /// The same of the change of the loss from the knot before; of the first knot, of the loss.
    pub change_r2: f64,
    /// The penalty of that regression, per image, which predicts best images that it has not seen.
    pub penalty: f64,
}

/// Allocated budgets against one budget for all images, at the same mean MACs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PointReport {
    /// The mean MACs with allocated budgets, over those of the dense model.
    pub share: f64,
    /// The price of a share.
    pub price: f64,
    /// The accuracy with allocated budgets.
    pub top1: f64,
    /// The accuracy that budgets would give which are allocated by maps that have not seen the image.
    pub unseen_top1: f64,
    /// The accuracy with one budget for all, linear between the knots.
    pub uniform_top1: f64,
}

impl AllocatorReport {
    /// Returns the point whose mean share is the nearest to `share`, if there is any.
    pub fn nearest(&self, share: f64) -> Option<&PointReport> {
        let far = |point: &&PointReport| (point.share - share).abs();
        let points = self.points.iter();
        points.min_by(|a, b| far(a).total_cmp(&far(b)))
    }

    /// Returns what was found in two lines, for people; the second for the mean share `budget`.
    pub fn text(&self, budget: f64) -> String {
        let r2 = self.knots.iter();
        let r2: Vec<String> = r2
            .map(|knot| format!("{:.2} at {:.3}", knot.r2, knot.share))
            .collect();
        let first = format!(
            "allocator: R² of the loss, of {} images that the fit has not seen: {}",
            self.images,
            r2.join(", ")
        );
        let Some(point) = self.nearest(budget) else {
            return first;
        };
        format!(
            "{first}\nallocator: at {:.4} of the dense model top-1 {:.4} allocated ({:.4} by maps that \
             have not seen the image), {:.4} with one budget for all",
            point.share, point.top1, point.unseen_top1, point.uniform_top1
        )
    }
}
