//! Seeded generators, one per purpose and place: the list of every random stream.
//!
//! Every random decision is keyed by what it is for and where it happens, never by the order of
//! calls. Any number of threads or workers, and a resumed run, draw the same numbers.
//!
//! The 32 key bytes of a ChaCha8 generator are `seed (8) | a (8) | b (8) | tag (8)`, integers in
//! little-endian order:
//!
//! | stream | a | b | tag |
//! | --- | --- | --- | --- |
//! | [`Stream::Shuffle`] | epoch | 0 | `shuffle` |
//! | [`Stream::Augment`] | epoch | sample | `augment` |
//! | [`Stream::Mixup`] | epoch | batch | `mixup` |
//! | [`Stream::Budget`] | epoch | sample | `budget` |
//! | [`Stream::HeldOut`] | 0 | 0 | `heldout` |
//! | [`Stream::Subset`] | 0 | 0 | `subset` |
//! | [`Stream::Bootstrap`] | number of images | 0 | `bootstrp` |
//! | [`Stream::Weights`] | hash of the tensor's name | 0 | `weights` |
//! | [`Stream::Scene`] | epoch | sample | `scene` |
//! | [`Stream::FixedScene`] | part | sample | `fixscene` |
//! | noise of gates and dropout, in `adavit-gumbel` | epoch | sample | block (4), axis (4) |
//!
//! ChaCha's own stream number is 0, except for the augmentation: there it is 256 `repeat` + `part`, so that
//! each repeat of a picture and each part of its augmentation has numbers of its own.
//!
//! A stream's tag is ASCII letters. Read as a block number it is above 1.6 billion, so no generator
//! made here equals one of that noise.

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What a generator is for. All purposes are listed here, so that no two share a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stream {
    /// The order of samples within an epoch.
    Shuffle,
    /// Crop, flip, colours and erasing of one image.
    Augment,
    /// What images of a batch are mixed with, and how much.
    Mixup,
    /// The budget that one image is trained with.
    Budget,
    /// The part of the training images that is held out.
    HeldOut,
    /// The class-balanced subset of a data set.
    Subset,
    /// The resampled images of a comparison.
    Bootstrap,
    /// The initial values of a tensor.
    Weights,
    /// A scene of an epoch of training.
    Scene,
    /// A scene that belongs to no epoch.
    FixedScene,
}

impl Stream {
    /// The last eight bytes of the key; published runs depend on them, so they never change.
    const fn tag(self) -> [u8; 8] {
        match self {
            Self::Shuffle => *b"shuffle\0",
            Self::Augment => *b"augment\0",
            Self::Mixup => *b"mixup\0\0\0",
            Self::Budget => *b"budget\0\0",
            Self::HeldOut => *b"heldout\0",
            Self::Subset => *b"subset\0\0",
            Self::Bootstrap => *b"bootstrp",
            Self::Weights => *b"weights\0",
            Self::Scene => *b"scene\0\0\0",
            Self::FixedScene => *b"fixscene",
        }
    }
}

/// Returns the generator of `stream` for `(seed, a, b)`; the table at the top of this module says what
/// `a` and `b` are.
///
/// ```
/// use adavit_data::rng::{Stream, rng, unit};
/// let (seed, epoch, sample) = (1, 2, 3);
/// let draw = || unit(&mut rng(seed, Stream::Augment, epoch, sample));
/// assert_eq!(draw(), draw());
/// ```
pub fn rng(seed: u64, stream: Stream, a: u64, b: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&a.to_le_bytes());
    key[16..24].copy_from_slice(&b.to_le_bytes());
    key[24..].copy_from_slice(&stream.tag());
    ChaCha8Rng::from_seed(key)
}

/// Draws an integer in `0..n`.
///
/// The result is the high half of `u64 * n`. Its bias is below `n / 2^64`, and unlike `random_range`
/// it does not change with the version of `rand`.
pub fn below(rng: &mut impl RngCore, n: u64) -> u64 {
    ((u128::from(rng.next_u64()) * u128::from(n)) >> 64) as u64
}

/// Draws a number in [0, 1), of 53 random bits.
pub fn unit(rng: &mut impl RngCore) -> f64 {
    (rng.next_u64() >> 11) as f64 * (f64::EPSILON / 2.0)
}

/// Shuffles in place (Fisher-Yates).
pub fn shuffle<T>(xs: &mut [T], rng: &mut impl RngCore) {
    for i in (1..xs.len()).rev() {
        let j = below(rng, i as u64 + 1) as usize;
        xs.swap(i, j);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAMS: [Stream; 10] = [
        Stream::Budget,
        Stream::Shuffle,
        Stream::Augment,
        Stream::Mixup,
        Stream::HeldOut,
        Stream::Subset,
        Stream::Bootstrap,
        Stream::Weights,
        Stream::Scene,
        Stream::FixedScene,
    ];

    #[test]
    fn unit_fills_its_interval() {
        let mut rng = rng(0, Stream::Augment, 0, 0);
        let numbers: Vec<f64> = (0..4000).map(|_| unit(&mut rng)).collect();
        assert!(numbers.iter().all(|x| (0.0..1.0).contains(x)));
        let mean = numbers.iter().sum::<f64>() / 4000.0;
        // Within four standard deviations, 1 / sqrt(12 * 4000) each.
        assert!((mean - 0.5).abs() < 0.019, "{mean}");
    }

    #[test]
    fn every_part_of_the_key_changes_the_numbers() {
        let first = |seed, stream, a, b| rng(seed, stream, a, b).next_u64();
        let mut seen: Vec<u64> = STREAMS.iter().map(|&s| first(1, s, 2, 3)).collect();
        seen.extend([
            first(0, Stream::Shuffle, 2, 3),
            first(1, Stream::Shuffle, 0, 3),
            first(1, Stream::Shuffle, 3, 2),
            first(1, Stream::Shuffle, 2, 0),
        ]);
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
        assert_eq!(
            first(1, Stream::Augment, 2, 3),
            first(1, Stream::Augment, 2, 3)
        );
    }

    #[test]
    fn no_tag_can_be_a_small_block_number() {
        for stream in STREAMS {
            let tag = stream.tag();
            assert!(
                tag[..4].iter().all(u8::is_ascii_lowercase),
                "tag of {stream:?}"
            );
            assert!(u32::from_le_bytes([tag[0], tag[1], tag[2], tag[3]]) > 1_600_000_000);
        }
    }

    #[test]
    fn below_reaches_every_value_and_no_other() {
        let mut rng = rng(0, Stream::Shuffle, 0, 0);
        let mut counts = [0; 5];
        for _ in 0..5_000 {
            counts[below(&mut rng, 5) as usize] += 1;
        }
        // Five standard deviations of a binomial (5000, 0.2).
        assert!(
            counts.iter().all(|&c: &i32| (c - 1_000).abs() < 142),
            "{counts:?}"
        );
        assert_eq!(below(&mut rng, 1), 0);
    }
}
