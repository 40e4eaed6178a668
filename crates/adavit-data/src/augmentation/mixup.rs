//! Mixup and CutMix: images of a batch are mixed in pairs, and their targets alike.
//!
//! ```text
//! mixup    x_i = lam x_i + (1 - lam) x_j                     lam ~ Beta(alpha, alpha), j = B - 1 - i
//! cutmix   x_i = x_j inside of a box of sqrt(1 - lam) of each side; lam = 1 - box / image
//! targets  y_i = lam y_i + (1 - lam) y_j
//! ```
//!
//! Zhang et al. 2018 (arXiv 1710.09412), Yun et al. 2019 (arXiv 1905.04899), as timm's `Mixup`: the image
//! is mixed with its mirror place in the batch, and `lam` is corrected where the border clips the box.

use rand::RngCore;
use serde::{Deserialize, Serialize};

use crate::augmentation::distributions::{symmetric_beta, up_to};
use crate::error::{Error, Result};
use crate::rng::{below, unit};

/// Which images share a draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MixupMode {
    /// All images of a batch.
    #[default]
    Batch,
    /// The two images of a pair.
    Pair,
    /// None: each image has its own.
    Elem,
}

/// How images of a batch are mixed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mixup {
    /// Alpha of mixup; 0 turns it off.
    pub mixup: f64,
    /// Alpha of CutMix; 0 turns it off.
    pub cutmix: f64,
    /// The least and the largest side of CutMix's box over that of the image; alpha is not used then.
    pub cutmix_minmax: Option<(f64, f64)>,
    /// How often anything is mixed, in [0, 1].
    pub probability: f64,
    /// How often that is CutMix, if both are on, in [0, 1].
    pub switch_probability: f64,
    /// Which images share a draw.
    pub mode: MixupMode,
}

/// What happens to one image.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mix {
    Nothing,
    Blend(f64),
    Cut(CutBox),
}

/// The rows and columns that come from the other image.
#[derive(Debug, Clone, Copy, PartialEq)]
struct CutBox {
    rows: (usize, usize),
    columns: (usize, usize),
    /// The share of the image outside of the box.
    kept: f64,
}

impl Default for Mixup {
    /// Off, and otherwise timm's values.
    fn default() -> Self {
        Self {
            mixup: 0.0,
            cutmix: 0.0,
            cutmix_minmax: None,
            probability: 1.0,
            switch_probability: 0.5,
            mode: MixupMode::Batch,
        }
    }
}

impl Mixup {
    /// Whether anything is ever mixed.
    pub fn is_on(&self) -> bool {
        self.probability > 0.0 && (self.mixup > 0.0 || self.cuts())
    }

    fn cuts(&self) -> bool {
        self.cutmix > 0.0 || self.cutmix_minmax.is_some()
    }

    /// Checks the values.
    ///
    /// # Errors
    /// [`Error::Setting`] if one is out of range.
    pub fn validate(&self) -> Result<()> {
        for (name, alpha) in [("mixup", self.mixup), ("cutmix", self.cutmix)] {
            if !(alpha >= 0.0 && alpha.is_finite()) {
                return Err(Error::Setting(format!(
                    "augment.{name}: expected 0 (off) or a number above, found {alpha}"
                )));
            }
        }
        for (name, probability) in [
            ("mixup_prob", self.probability),
            ("mixup_switch_prob", self.switch_probability),
        ] {
            if !(0.0..=1.0).contains(&probability) {
                return Err(Error::Setting(format!(
                    "augment.{name}: expected a probability in [0, 1], found {probability}"
                )));
            }
        }
        match self.cutmix_minmax {
            Some((low, high)) if !(low >= 0.0 && low <= high && high <= 1.0) => {
                Err(Error::Setting(format!(
                    "augment.cutmix_minmax: expected 0 <= least <= largest <= 1, found [{low}, {high}]"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Mixes the images of a batch in place; returns the share of each that is its own.
    ///
    /// # Shapes
    /// `images`: `dims` = `[B, channels, height, width]`; the result: `(B,)`. The middle image of an odd
    /// batch has no other, and stays as it is.
    ///
    /// # Errors
    /// [`Error::Setting`] if `images` has another number of values than `dims`.
    pub fn mix(
        &self,
        images: &mut [f32],
        dims: [usize; 4],
        rng: &mut impl RngCore,
    ) -> Result<Vec<f32>> {
        let [batch, channels, height, width] = dims;
        let expected = dims
            .iter()
            .try_fold(1_usize, |n, side| n.checked_mul(*side));
        if expected != Some(images.len()) {
            return Err(Error::Setting(format!(
                "expected the values of {batch} images of {channels}x{height}x{width}, found {}",
                images.len()
            )));
        }
        let mixes = self.draw(batch, (height, width), rng);
        let size = channels * height * width;
        let mut spare = vec![0.0; if batch > 1 { size } else { 0 }];
        let (firsts, seconds) = images.split_at_mut(batch.div_ceil(2) * size);
        let pairs = firsts.chunks_exact_mut(size.max(1));
        let others = seconds.chunks_exact_mut(size.max(1)).rev();
        for (i, (first, second)) in pairs.zip(others).enumerate() {
            spare.copy_from_slice(first);
            mixes[i].apply(first, second, (height, width));
            mixes[batch - 1 - i].apply(second, &spare, (height, width));
        }
        Ok(mixes.iter().map(|mix| mix.own_share() as f32).collect())
    }

    /// Draws what happens to each image.
    fn draw(&self, batch: usize, size: (usize, usize), rng: &mut impl RngCore) -> Vec<Mix> {
        let half = batch / 2;
        let mut mixes = match self.mode {
            MixupMode::Batch => vec![self.draw_one(size, rng); batch],
            MixupMode::Elem => (0..batch).map(|_| self.draw_one(size, rng)).collect(),
            MixupMode::Pair => {
                let mut mixes: Vec<Mix> = (0..half).map(|_| self.draw_one(size, rng)).collect();
                mixes.resize(batch.div_ceil(2), Mix::Nothing);
                mixes.extend_from_within(..half);
                mixes[batch - half..].reverse();
                mixes
            }
        };
        if batch % 2 == 1 {
            mixes[half] = Mix::Nothing;
        }
        mixes
    }

    fn draw_one(&self, size: (usize, usize), rng: &mut impl RngCore) -> Mix {
        if !self.is_on() || unit(rng) >= self.probability {
            return Mix::Nothing;
        }
        let both = self.mixup > 0.0 && self.cuts();
        if self.mixup > 0.0 && !(both && unit(rng) < self.switch_probability) {
            return Mix::Blend(symmetric_beta(rng, self.mixup));
        }
        Mix::Cut(match self.cutmix_minmax {
            Some(range) => CutBox::of_sides(range, size, rng),
            None => CutBox::of_area(1.0 - symmetric_beta(rng, self.cutmix), size, rng),
        })
    }
}

impl CutBox {
    /// A box of this share of the image, clipped by its borders around a uniform centre.
    fn of_area(share: f64, (height, width): (usize, usize), rng: &mut impl RngCore) -> Self {
        let mut clipped = |side: usize| {
            let cut = (side as f64 * share.max(0.0).sqrt()) as usize;
            let center = below(rng, side as u64) as usize;
            let end = (center + cut.div_ceil(2)).min(side);
            (center.saturating_sub(cut / 2), end)
        };
        let (rows, columns) = (clipped(height), clipped(width));
        Self::new(rows, columns, (height, width))
    }

    /// A box whose sides are uniform in `range` of the image's, and which lies in it.
    fn of_sides(
        (low, high): (f64, f64),
        (height, width): (usize, usize),
        rng: &mut impl RngCore,
    ) -> Self {
        let mut within = |side: usize| {
            let (least, most) = ((side as f64 * low) as usize, (side as f64 * high) as usize);
            // The upper bound is left out, as in timm, unless it is the only number.
            let cut = least + up_to(rng, (most - least).saturating_sub(1));
            let start = up_to(rng, side - cut);
            (start, start + cut)
        };
        let (rows, columns) = (within(height), within(width));
        Self::new(rows, columns, (height, width))
    }

    fn new(rows: (usize, usize), columns: (usize, usize), size: (usize, usize)) -> Self {
        let area = (rows.1 - rows.0) * (columns.1 - columns.0);
        Self {
            rows,
            columns,
            kept: 1.0 - area as f64 / (size.0 * size.1).max(1) as f64,
        }
    }
}

impl Mix {
    /// The share of the image that is its own.
    fn own_share(&self) -> f64 {
        match self {
            Self::Nothing => 1.0,
            Self::Blend(lam) => *lam,
            Self::Cut(cut) => cut.kept,
        }
    }

    fn apply(&self, image: &mut [f32], other: &[f32], (height, width): (usize, usize)) {
        match self {
            Self::Nothing => {}
            Self::Blend(lam) => {
                let (own, rest) = (*lam as f32, (1.0 - lam) as f32);
                for (value, other) in image.iter_mut().zip(other) {
                    *value = *value * own + other * rest;
                }
            }
            Self::Cut(CutBox { rows, columns, .. }) => {
                let plane = (height * width).max(1);
                let planes = image.chunks_exact_mut(plane);
                for (image, other) in planes.zip(other.chunks_exact(plane)) {
                    for y in rows.0..rows.1 {
                        let part = y * width + columns.0..y * width + columns.1;
                        image[part.clone()].copy_from_slice(&other[part]);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Stream, rng};

    /// Images of 2 channels and 8x6 pixels; each value of image `i` is `i`.
    const SIZE: usize = 2 * 8 * 6;

    fn batch(n: usize) -> Vec<f32> {
        (0..n * SIZE).map(|value| (value / SIZE) as f32).collect()
    }

    fn mixed(mixup: Mixup, n: usize, seed: u64) -> (Vec<f32>, Vec<f32>) {
        let mut images = batch(n);
        let mut rng = rng(seed, Stream::Mixup, 0, 0);
        let own_share = mixup.mix(&mut images, [n, 2, 8, 6], &mut rng).unwrap();
        (images, own_share)
    }

    fn blend(mode: MixupMode) -> Mixup {
        Mixup {
            mixup: 0.8,
            mode,
            ..Mixup::default()
        }
    }

    fn cut(mode: MixupMode) -> Mixup {
        Mixup {
            cutmix: 1.0,
            mode,
            ..Mixup::default()
        }
    }

    /// The mean of each image, which is its own share of itself and the rest of the other.
    fn assert_shares(images: &[f32], own_share: &[f32]) {
        let n = own_share.len();
        for (i, image) in images.chunks(SIZE).enumerate() {
            let mean = image.iter().sum::<f32>() / SIZE as f32;
            let other = (n - 1 - i) as f32;
            let expected = i as f32 * own_share[i] + other * (1.0 - own_share[i]);
            assert!((mean - expected).abs() < 1e-4, "{i}: {mean}, {expected}");
        }
    }

    #[test]
    fn shares_are_those_of_the_pixels_in_every_mode() {
        for mode in [MixupMode::Batch, MixupMode::Pair, MixupMode::Elem] {
            for mixup in [blend(mode), cut(mode)] {
                for seed in 0..20 {
                    for n in [1, 2, 5, 6] {
                        let (images, own_share) = mixed(mixup, n, seed);
                        assert_eq!(own_share.len(), n);
                        assert_shares(&images, &own_share);
                    }
                }
            }
        }
    }

    #[test]
    fn modes_say_who_shares_a_draw() {
        let (_, batch) = mixed(blend(MixupMode::Batch), 6, 1);
        assert!(batch.iter().all(|share| *share == batch[0]), "{batch:?}");
        let (_, pair) = mixed(blend(MixupMode::Pair), 6, 1);
        assert!((0..3).all(|i| pair[i] == pair[5 - i]) && pair[0] != pair[1]);
        let (_, elem) = mixed(blend(MixupMode::Elem), 6, 1);
        assert!((0..3).all(|i| elem[i] != elem[5 - i]), "{elem:?}");
    }

    #[test]
    fn the_middle_image_of_an_odd_batch_stays_as_it_is() {
        for mode in [MixupMode::Batch, MixupMode::Pair, MixupMode::Elem] {
            let (images, own_share) = mixed(blend(mode), 5, 2);
            assert_eq!(own_share[2], 1.0);
            assert!(images[2 * SIZE..3 * SIZE].iter().all(|&value| value == 2.0));
            assert_ne!(own_share[1], 1.0);
        }
    }

    #[test]
    fn a_box_of_the_other_image_is_the_same_in_every_channel() {
        let mut sizes = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let (images, own_share) = mixed(cut(MixupMode::Batch), 2, seed);
            assert!(images.iter().all(|&value| value == 0.0 || value == 1.0));
            assert_eq!(images[..48], images[48..96]);
            let cut = images[..48].iter().filter(|&&value| value == 1.0).count();
            assert!((own_share[0] - (1.0 - cut as f32 / 48.0)).abs() < 1e-6);
            sizes.insert(cut);
        }
        assert!(sizes.len() > 10, "{sizes:?}");
    }

    #[test]
    fn sides_of_the_box_lie_in_their_range() {
        let mixup = Mixup {
            cutmix_minmax: Some((0.25, 0.75)),
            ..Mixup::default()
        };
        for seed in 0..50 {
            let (images, _) = mixed(mixup, 2, seed);
            let rows = (0..8)
                .filter(|y| images[y * 6..][..6].contains(&1.0))
                .count();
            let columns = (0..6).filter(|x| (0..8).any(|y| images[y * 6 + x] == 1.0));
            // Of 8 rows from 2 to 5, of 6 columns from 1 to 3.
            assert!((2..=5).contains(&rows), "{rows}");
            assert!((1..=3).contains(&columns.count()));
        }
    }

    #[test]
    fn probabilities_decide_what_is_mixed_and_how() {
        let both = Mixup {
            mixup: 0.8,
            cutmix: 1.0,
            probability: 0.5,
            switch_probability: 0.25,
            ..Mixup::default()
        };
        let mut rng = rng(0, Stream::Mixup, 0, 0);
        let mut counts = [0_usize; 3];
        for _ in 0..8_000 {
            counts[match both.draw_one((8, 6), &mut rng) {
                Mix::Nothing => 0,
                Mix::Blend(_) => 1,
                Mix::Cut(_) => 2,
            }] += 1;
        }
        // 4,000, 3,000 and 1,000, within five standard deviations.
        let expected = [(4_000, 224), (3_000, 217), (1_000, 148)];
        for (count, (mean, tolerance)) in counts.iter().zip(expected) {
            assert!(count.abs_diff(mean) < tolerance, "{counts:?}");
        }
    }

    #[test]
    fn what_is_off_changes_nothing() {
        let (images, own_share) = mixed(Mixup::default(), 4, 0);
        assert_eq!((images, own_share), (batch(4), vec![1.0; 4]));
        assert!(!Mixup::default().is_on());
        assert!(cut(MixupMode::Batch).is_on());
        let mut none = Vec::new();
        let mut rng = rng(0, Stream::Mixup, 0, 0);
        for dims in [[0, 2, 8, 6], [4, 2, 0, 6]] {
            let shares = cut(MixupMode::Elem).mix(&mut none, dims, &mut rng).unwrap();
            assert_eq!(shares.len(), dims[0]);
        }
    }

    #[test]
    fn another_number_of_values_is_refused() {
        let mut rng = rng(0, Stream::Mixup, 0, 0);
        let error = blend(MixupMode::Batch).mix(&mut [0.0; 5], [1, 1, 2, 2], &mut rng);
        assert!(error.unwrap_err().to_string().contains("found 5"));
    }
}
