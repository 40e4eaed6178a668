//! 3-Augment: one of solarization, grayscale and blur, equally often.
//!
//! Touvron et al. 2022, "DeiT III: Revenge of the ViT" (arXiv 2204.07118), with the magnitudes of timm's
//! `3a`: solarized from 128 on, grey, or a Gaussian blur of a deviation in [0.1, 2). A colour jitter
//! follows.

use rand::RngCore;

use crate::augmentation::distributions::uniform;
use crate::augmentation::ops::op::Op;
use crate::rng::below;

/// The colour jitter that follows in DeiT III.
pub(super) const JITTER: f64 = 0.3;

/// Draws the operation.
pub(super) fn draw(rng: &mut impl RngCore) -> Op {
    match below(rng, 3) {
        0 => Op::Solarize(128.0),
        1 => Op::Color(0.0),
        _ => Op::GaussianBlur(uniform(rng, 0.1, 2.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Stream, rng};

    #[test]
    fn the_three_are_drawn_equally_often() {
        let mut rng = rng(0, Stream::Augment, 0, 0);
        let mut counts = [0_usize; 3];
        for _ in 0..3_000 {
            let kind = match draw(&mut rng) {
                Op::Solarize(128.0) => 0,
                Op::Color(0.0) => 1,
                Op::GaussianBlur(sigma) if (0.1..2.0).contains(&sigma) => 2,
                other => panic!("{other:?}"),
            };
            counts[kind] += 1;
        }
        // Five standard deviations of 26.
        assert!(counts.iter().all(|n| n.abs_diff(1_000) < 130), "{counts:?}");
    }
}
