//! Random brightness, contrast, saturation and hue, in random order.
//!
//! ```text
//! factor uniform in [max(0, 1 - amount), 1 + amount]     turn of the hue uniform in [-amount, amount]
//! ```
//!
//! torchvision's `ColorJitter` on Pillow's pictures.

use rand::RngCore;
use serde::{Deserialize, Serialize};

use crate::augmentation::distributions::uniform;
use crate::augmentation::ops::op::Op;
use crate::error::{Error, Result};
use crate::rng::shuffle;

/// How far each property may move.
///
/// In a file it is one number (brightness, contrast and saturation alike, no hue, as in timm), or a list
/// of three or four in the order of the fields.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "Amounts", into = "Amounts")]
pub struct ColorJitter {
    /// The amount of brightness.
    pub brightness: f64,
    /// The amount of contrast.
    pub contrast: f64,
    /// The amount of saturation.
    pub saturation: f64,
    /// The largest turn of the hue, in [0, 0.5] of a full turn.
    pub hue: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "color_jitter: expected one number, or a list of 3 (brightness, contrast, saturation) \
                 or 4 (and hue)"
)]
enum Amounts {
    One(f64),
    Each(Vec<f64>),
}

impl TryFrom<Amounts> for ColorJitter {
    type Error = String;

    fn try_from(amounts: Amounts) -> Result<Self, String> {
        match amounts {
            Amounts::One(amount) => Ok(Self::of(amount)),
            Amounts::Each(list) => match list[..] {
                [brightness, contrast, saturation] => Ok(Self {
                    brightness,
                    contrast,
                    saturation,
                    hue: 0.0,
                }),
                [brightness, contrast, saturation, hue] => Ok(Self {
                    brightness,
                    contrast,
                    saturation,
                    hue,
                }),
                _ => Err(format!(
                    "color_jitter: expected one number, or a list of 3 (brightness, contrast, \
                     saturation) or 4 (and hue), found {}",
                    list.len()
                )),
            },
        }
    }
}

impl From<ColorJitter> for Amounts {
    fn from(jitter: ColorJitter) -> Self {
        if jitter == ColorJitter::of(jitter.brightness) {
            return Self::One(jitter.brightness);
        }
        let ColorJitter {
            brightness,
            contrast,
            saturation,
            hue,
        } = jitter;
        Self::Each(vec![brightness, contrast, saturation, hue])
    }
}

impl ColorJitter {
    /// Returns the jitter of one amount for brightness, contrast and saturation, without hue.
    pub fn of(amount: f64) -> Self {
        Self {
            brightness: amount,
            contrast: amount,
            saturation: amount,
            hue: 0.0,
        }
    }

    /// Checks the amounts.
    ///
    /// # Errors
    /// [`Error::Setting`] if an amount is negative or not finite, or the hue is above 0.5.
    pub fn validate(&self) -> Result<()> {
        for (name, amount, most) in [
            ("brightness", self.brightness, f64::MAX),
            ("contrast", self.contrast, f64::MAX),
            ("saturation", self.saturation, f64::MAX),
            ("hue", self.hue, 0.5),
        ] {
            if !(0.0..=most).contains(&amount) {
                let range = if most == 0.5 {
                    "in [0, 0.5]"
                } else {
                    "of 0 or more"
                };
                return Err(Error::Setting(format!(
                    "augment.color_jitter: expected a {name} {range}, found {amount}"
                )));
            }
        }
        Ok(())
    }

    /// Draws the operations, in their order; none for an amount of 0.
    ///
    /// An amount of 0 leaves the draws of the others as they were.
    pub fn draw(&self, rng: &mut impl RngCore) -> Vec<Op> {
        let mut order = [0, 1, 2, 3];
        shuffle(&mut order, rng);
        let mut factor = |amount: f64| {
            let value = uniform(rng, (1.0 - amount).max(0.0), 1.0 + amount);
            (amount > 0.0).then_some(value)
        };
        let ops = [
            factor(self.brightness).map(Op::Brightness),
            factor(self.contrast).map(Op::Contrast),
            factor(self.saturation).map(Op::Color),
            Some(uniform(rng, -self.hue, self.hue))
                .filter(|_| self.hue > 0.0)
                .map(Op::Hue),
        ];
        order.into_iter().filter_map(|i| ops[i]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Stream, rng};

    #[test]
    fn factors_fill_their_ranges_and_orders_vary() {
        let jitter = ColorJitter {
            brightness: 0.4,
            contrast: 2.0,
            saturation: 0.0,
            hue: 0.1,
        };
        let mut rng = rng(0, Stream::Augment, 0, 0);
        let mut firsts = [0; 3];
        let (mut least, mut most) = (f64::MAX, f64::MIN);
        for _ in 0..3_000 {
            let ops = jitter.draw(&mut rng);
            assert_eq!(ops.len(), 3);
            for (place, op) in ops.iter().enumerate() {
                let kind = match *op {
                    Op::Brightness(factor) => {
                        (least, most) = (least.min(factor), most.max(factor));
                        0
                    }
                    Op::Contrast(factor) => {
                        assert!((0.0..3.0).contains(&factor));
                        1
                    }
                    Op::Hue(turn) => {
                        assert!((-0.1..0.1).contains(&turn));
                        2
                    }
                    _ => panic!("{op:?}"),
                };
                firsts[kind] += usize::from(place == 0);
            }
        }
        assert!((0.6..0.61).contains(&least) && (1.39..1.4).contains(&most));
        // A third of 3,000 each, within five standard deviations of 26.
        assert!(firsts.iter().all(|n| n.abs_diff(1_000) < 130), "{firsts:?}");
    }

    #[test]
    fn one_number_is_all_but_the_hue() {
        let from = |json: &str| serde_json::from_str::<ColorJitter>(json);
        assert_eq!(from("0.3").unwrap(), ColorJitter::of(0.3));
        assert_eq!(from("1").unwrap(), ColorJitter::of(1.0));
        assert_eq!(from("[0.4, 0.4, 0.4]").unwrap(), ColorJitter::of(0.4));
        let four = from("[0.1, 0.2, 0.3, 0.4]").unwrap();
        assert_eq!((four.brightness, four.hue), (0.1, 0.4));
        assert_eq!(serde_json::to_string(&four).unwrap(), "[0.1,0.2,0.3,0.4]");
        let one = serde_json::to_string(&ColorJitter::of(0.3)).unwrap();
        assert_eq!(one, "0.3");
        let error = from("[1.0, 2.0]").unwrap_err().to_string();
        assert!(error.contains("a list of 3") && error.contains("found 2"));
    }

    #[test]
    fn amounts_out_of_range_are_refused() {
        assert!(ColorJitter::of(0.4).validate().is_ok());
        assert!(ColorJitter::of(-0.1).validate().is_err());
        assert!(ColorJitter::of(f64::NAN).validate().is_err());
        let hue = ColorJitter {
            hue: 0.6,
            ..ColorJitter::default()
        };
        assert!(hue.validate().unwrap_err().to_string().contains("hue"));
    }
}
