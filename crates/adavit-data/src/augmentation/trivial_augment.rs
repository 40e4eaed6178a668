//! TrivialAugment: one operation of a uniform magnitude for each picture.
//!
//! Müller and Hutter 2021 (arXiv 2103.10158), with the wide space, the 31 magnitudes, the nearest pixel
//! and the black fill of torchvision's `TrivialAugmentWide`.

use rand::RngCore;

use crate::augmentation::ops::affine::{Filter, Sampling};
use crate::augmentation::ops::op::Op;
use crate::rng::below;

const BINS: usize = 31;
const KINDS: u64 = 14;

/// How TrivialAugment moves pixels.
pub(super) const SAMPLING: Sampling = Sampling {
    filter: Filter::Nearest,
    fill: [0; 3],
};

/// Draws the operation; none is one of the fourteen.
pub(super) fn draw(rng: &mut impl RngCore) -> Option<Op> {
    let kind = below(rng, KINDS);
    let bin = below(rng, BINS as u64) as usize;
    let sign = if below(rng, 2) == 1 { -1.0 } else { 1.0 };
    op(kind, bin, sign)
}

fn op(kind: u64, bin: usize, sign: f64) -> Option<Op> {
    let signed = |most: f32| sign * linspace(0.0, most, bin);
    Some(match kind {
        0 => return None,
        1 => Op::ShearX(signed(0.99)),
        2 => Op::ShearY(signed(0.99)),
        // torchvision moves the picture to the right and down by whole pixels.
        3 => Op::TranslateX(-signed(32.0).trunc()),
        4 => Op::TranslateY(-signed(32.0).trunc()),
        5 => Op::Rotate(signed(135.0)),
        6 => Op::Brightness(1.0 + signed(0.99)),
        7 => Op::Color(1.0 + signed(0.99)),
        8 => Op::Contrast(1.0 + signed(0.99)),
        9 => Op::Sharpness(1.0 + signed(0.99)),
        10 => Op::Posterize(8 - (bin as f64 / ((BINS - 1) as f64 / 6.0)).round_ties_even() as u32),
        11 => Op::Solarize(linspace(255.0, 0.0, bin)),
        12 => Op::AutoContrast,
        _ => Op::Equalize,
    })
}

/// One of [`BINS`] numbers from `first` to `last`, in f32 and from the nearer end, as PyTorch has them.
fn linspace(first: f32, last: f32, bin: usize) -> f64 {
    let step = (last - first) / (BINS - 1) as f32;
    f64::from(if bin < BINS / 2 {
        first + step * bin as f32
    } else {
        last - step * (BINS - 1 - bin) as f32
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Stream, rng};

    #[test]
    fn magnitudes_span_the_wide_space() {
        let debug = |kind, bin, sign| format!("{:?}", op(kind, bin, sign));
        assert_eq!(debug(0, 30, 1.0), "None");
        assert_eq!(op(5, 30, -1.0), Some(Op::Rotate(-135.0)));
        assert_eq!(op(3, 30, 1.0), Some(Op::TranslateX(-32.0)));
        assert_eq!(op(4, 15, -1.0), Some(Op::TranslateY(16.0)));
        assert_eq!(op(10, 0, 1.0), Some(Op::Posterize(8)));
        assert_eq!(op(10, 30, 1.0), Some(Op::Posterize(2)));
        assert_eq!(op(11, 0, 1.0), Some(Op::Solarize(255.0)));
        assert_eq!(op(11, 30, 1.0), Some(Op::Solarize(0.0)));
        assert_eq!(op(6, 0, -1.0), Some(Op::Brightness(1.0)));
        let Some(Op::ShearX(shear)) = op(1, 30, 1.0) else {
            panic!("not a shear")
        };
        assert!((shear - 0.99).abs() < 1e-7, "{shear}");
    }

    #[test]
    fn every_kind_is_drawn_equally_often() {
        let mut rng = rng(0, Stream::Augment, 0, 0);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..14_000 {
            let name = format!("{:?}", draw(&mut rng).map(|op| format!("{op:?}")));
            let name = name.split('(').take(2).collect::<String>();
            *counts.entry(name).or_insert(0_usize) += 1;
        }
        // Five standard deviations of 30.
        assert_eq!(counts.len(), 14);
        assert!(
            counts.values().all(|n| n.abs_diff(1_000) < 152),
            "{counts:?}"
        );
    }
}
