//! Random erasing of normalised values, as timm's `reprob`.
//!
//! ```text
//! area / (height width) uniform in [min_area, max_area) / count     height / width log-uniform
//! ```
//!
//! Zhong et al. 2020 (arXiv 1708.04896). A rectangle as long as a side is drawn again, ten times in all.
//! The erasing of raw bytes, [`Augment::random_erasing`](crate::Augment::random_erasing), is another one.

use rand::RngCore;
use serde::{Deserialize, Serialize};

use crate::augmentation::distributions::{normal, normals, uniform, up_to};
use crate::error::{Error, Result};
use crate::rng::unit;

const ATTEMPTS: usize = 10;

/// What an erased rectangle holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErasingMode {
    /// 0, which is the mean of the data.
    #[default]
    Const,
    /// One normal number for each channel.
    Rand,
    /// A normal number for each value.
    Pixel,
}

/// Erases random rectangles.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RandomErasing {
    /// How often an image is erased, in [0, 1].
    pub probability: f64,
    /// What a rectangle holds then.
    pub mode: ErasingMode,
    /// The least area over that of the image.
    pub min_area: f64,
    /// The largest area over that of the image.
    pub max_area: f64,
    /// The least height over width; the largest is 1 over it.
    pub min_aspect: f64,
    /// The most rectangles; their number is uniform from 1 on, and each has its share of the area.
    pub max_count: u32,
}

impl Default for RandomErasing {
    /// Never, and otherwise timm's values.
    fn default() -> Self {
        Self {
            probability: 0.0,
            mode: ErasingMode::Const,
            min_area: 0.02,
            max_area: 1.0 / 3.0,
            min_aspect: 0.3,
            max_count: 1,
        }
    }
}

impl RandomErasing {
    /// Checks the values.
    ///
    /// # Errors
    /// [`Error::Setting`] if one is out of range.
    pub fn validate(&self) -> Result<()> {
        let wrong = |what: &str, expected: &str, found: f64| {
            Err(Error::Setting(format!(
                "augment.{what}: expected {expected}, found {found}"
            )))
        };
        if !(0.0..=1.0).contains(&self.probability) {
            return wrong("reprob", "a probability in [0, 1]", self.probability);
        }
        if !(1..=100).contains(&self.max_count) {
            return wrong("recount", "from 1 to 100", self.max_count.into());
        }
        if !(0.0 < self.min_area && self.min_area <= self.max_area && self.max_area <= 1.0) {
            let expected = format!("areas with 0 < min_area {} <= max_area <= 1", self.min_area);
            return wrong("max_area", &expected, self.max_area);
        }
        if !(self.min_aspect > 0.0 && self.min_aspect <= 1.0) {
            return wrong("min_aspect", "a number in (0, 1]", self.min_aspect);
        }
        Ok(())
    }

    /// Erases rectangles of an image.
    ///
    /// # Shapes
    /// `values`: `dims` = `[channels, height, width]`, normalised.
    pub fn apply(&self, values: &mut [f32], dims: [usize; 3], rng: &mut impl RngCore) {
        if unit(rng) >= self.probability {
            return;
        }
        let count = 1 + up_to(rng, self.max_count.max(1) as usize - 1);
        for _ in 0..count {
            self.erase_one(values, dims, count, rng);
        }
    }

    fn erase_one(
        &self,
        values: &mut [f32],
        [_, height, width]: [usize; 3],
        count: usize,
        rng: &mut impl RngCore,
    ) {
        let sides = |rng: &mut _| {
            let share = uniform(rng, self.min_area, self.max_area) / count as f64;
            let area = share * (height * width) as f64;
            let least = self.min_aspect.ln();
            let aspect = uniform(rng, least, -least).exp();
            let rows = (area * aspect).sqrt().round_ties_even() as usize;
            let columns = (area / aspect).sqrt().round_ties_even() as usize;
            (rows < height && columns < width).then_some((rows, columns))
        };
        let Some((rows, columns)) = (0..ATTEMPTS).find_map(|_| sides(rng)) else {
            return;
        };
        let top = up_to(rng, height - rows);
        let left = up_to(rng, width - columns);
        for plane in values.chunks_exact_mut(height * width) {
            let color = match self.mode {
                ErasingMode::Rand => normal(rng) as f32,
                ErasingMode::Const | ErasingMode::Pixel => 0.0,
            };
            for row in plane.chunks_exact_mut(width).skip(top).take(rows) {
                let row = &mut row[left..left + columns];
                if self.mode == ErasingMode::Pixel {
                    fill_normal(row, rng);
                } else {
                    row.fill(color);
                }
            }
        }
    }
}

fn fill_normal(values: &mut [f32], rng: &mut impl RngCore) {
    for pair in values.chunks_mut(2) {
        for (value, drawn) in pair.iter_mut().zip(normals(rng)) {
            *value = drawn as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Stream, rng};

    const DIMS: [usize; 3] = [3, 24, 32];
    const PLANE: usize = 24 * 32;
    /// No normal number, so that every erased value shows.
    const KEPT: f32 = 100.0;

    fn erased(erasing: RandomErasing, sample: u64) -> Vec<f32> {
        let mut values = vec![KEPT; 3 * PLANE];
        let mut rng = rng(0, Stream::Augment, 0, sample);
        erasing.apply(&mut values, DIMS, &mut rng);
        values
    }

    fn always(mode: ErasingMode, max_count: u32) -> RandomErasing {
        RandomErasing {
            probability: 1.0,
            mode,
            max_count,
            ..RandomErasing::default()
        }
    }

    #[test]
    fn each_mode_fills_the_same_rectangle_of_every_channel_its_own_way() {
        for sample in 0..40 {
            let zeros = erased(always(ErasingMode::Const, 1), sample);
            let colors = erased(always(ErasingMode::Rand, 1), sample);
            let noise = erased(always(ErasingMode::Pixel, 1), sample);
            let erased_places = |values: &[f32]| -> Vec<usize> {
                (0..3 * PLANE).filter(|&i| values[i] != KEPT).collect()
            };
            let places = erased_places(&zeros);
            let n = places.len() / 3;
            // Sides are rounded to whole pixels.
            assert!((10..=265).contains(&n), "{n}");
            assert_eq!(places, erased_places(&colors));
            assert_eq!(places, erased_places(&noise));
            assert!((0..n).all(|i| places[i] + PLANE == places[n + i]));
            assert!(places.iter().all(|&i| zeros[i] == 0.0));
            for channel in places.chunks(n) {
                assert!(channel.iter().all(|&i| colors[i] == colors[channel[0]]));
                let first = noise[channel[0]];
                assert!(channel[1..].iter().all(|&i| noise[i] != first));
            }
            assert_ne!(colors[places[0]], colors[places[n]]);
        }
    }

    #[test]
    fn noise_is_standard_normal() {
        let values: Vec<f32> = (0..100)
            .flat_map(|sample| erased(always(ErasingMode::Pixel, 1), sample))
            .filter(|&value| value != KEPT)
            .collect();
        let n = values.len() as f64;
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let square = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n;
        // More than 10,000 values: five standard deviations of 0.01 and 0.014.
        assert!(n > 10_000.0);
        assert!(
            mean.abs() < 0.05 && (square - 1.0).abs() < 0.07,
            "{mean} {square}"
        );
    }

    #[test]
    fn the_rate_is_the_probability() {
        let erasing = RandomErasing {
            probability: 0.25,
            ..RandomErasing::default()
        };
        let hit = |sample: &u64| erased(erasing, *sample).contains(&0.0);
        let often = (0..2_000).filter(hit).count();
        // Four standard deviations of 19.
        assert!((422..=578).contains(&often), "{often}");
    }

    #[test]
    fn several_rectangles_share_the_area() {
        let areas: Vec<usize> = (0..200)
            .map(|sample| erased(always(ErasingMode::Const, 3), sample))
            .map(|values| values[..PLANE].iter().filter(|&&x| x == 0.0).count())
            .collect();
        // A third of the image, rounded to whole pixels.
        assert!(
            areas.iter().all(|area| (1..=290).contains(area)),
            "{areas:?}"
        );
    }

    #[test]
    fn images_without_room_stay_whole() {
        let mut values = vec![KEPT; 3];
        let mut rng = rng(0, Stream::Augment, 0, 0);
        let mut full = always(ErasingMode::Const, 1);
        full.min_area = 1.0;
        full.max_area = 1.0;
        full.apply(&mut values, [3, 1, 1], &mut rng);
        assert_eq!(values, [KEPT; 3]);
        full.apply(&mut [], [3, 0, 0], &mut rng);
    }

    #[test]
    fn values_out_of_range_are_refused() {
        let wrong = |change: fn(&mut RandomErasing)| {
            let mut erasing = RandomErasing::default();
            change(&mut erasing);
            erasing.validate().unwrap_err().to_string()
        };
        assert!(wrong(|e| e.probability = 1.5).contains("augment.reprob"));
        assert!(wrong(|e| e.max_count = 0).contains("augment.recount"));
        assert!(wrong(|e| e.min_area = 0.0).contains("min_area 0"));
        assert!(wrong(|e| e.max_area = f64::NAN).contains("max_area"));
        assert!(wrong(|e| e.min_aspect = 0.0).contains("min_aspect"));
        assert!(RandomErasing::default().validate().is_ok());
    }
}
