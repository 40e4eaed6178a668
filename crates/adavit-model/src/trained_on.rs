//! What a checkpoint was trained on: recorded, so that nothing is chosen by images that it has seen.

use serde::{Deserialize, Serialize};

/// The training images of a model, and how those that were held out of them were chosen.
///
/// The same images, share and seed give the same held-out images, which the model was not trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainedOn {
    /// The data set's name, or the last part of its folder's path.
    pub data: String,
    /// Number of training images, the held-out ones included.
    pub images: usize,
    /// CRC-32 of their labels, then their pixels.
    pub crc32: u32,
    /// Share of the images that was held out, in (0, 1).
    pub held_out: f64,
    /// Seed that chose the held-out images.
    pub seed: u64,
}

impl TrainedOn {
    /// Returns what differs from `other`, in words: nothing if the same images were held out.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        if (self.images, self.crc32) != (other.images, other.crc32) {
            let of = |one: &Self| {
                format!(
                    "{} training images of {} (CRC-32 {:08x})",
                    one.images, one.data, one.crc32
                )
            };
            found.push(format!("{}, not {}", of(self), of(other)));
        }
        if self.held_out != other.held_out {
            found.push(format!(
                "held_out {}, not {}",
                self.held_out, other.held_out
            ));
        }
        if self.seed != other.seed {
            found.push(format!("seed {}, not {}", self.seed, other.seed));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named_and_the_name_of_the_same_images_does_not_count() {
        let called = |data: &str| TrainedOn {
            data: data.into(),
            images: 10,
            crc32: 1,
            held_out: 0.1,
            seed: 0,
        };
        let (one, renamed) = (called("a"), called("b"));
        assert!(one.differences(&renamed).is_empty());
        let other = TrainedOn {
            crc32: 2,
            held_out: 0.2,
            seed: 3,
            ..renamed
        };
        assert_eq!(
            one.differences(&other),
            [
                "10 training images of a (CRC-32 00000001), not 10 training images of b (CRC-32 00000002)",
                "held_out 0.1, not 0.2",
                "seed 0, not 3",
            ]
        );
    }
}
