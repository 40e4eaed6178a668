//! The order of an epoch of shards that are too large to stay in memory: read in runs, shuffled in a
//! buffer.
//!
//! ```text
//! shards    cut into runs of neighbours, of about 4 MiB
//! epoch     the runs in random order; the images of about 96 MiB of runs shuffled together
//! ```
//!
//! So a disk reads runs, not single images. Unlike WebDataset, which shuffles whole shards, images
//! that are near each other in a shard meet others from anywhere in the set, also where a shard is
//! sorted by class.

use crate::loader::order::epoch_order;
use crate::rng::{Stream, rng, shuffle};

/// About how many bytes of neighbours are read together.
#[cfg(any(feature = "pictures", test))]
pub(crate) const RUN_BYTES: u64 = 4 << 20;
/// About how many bytes of images are shuffled together.
pub(crate) const BUFFER_BYTES: u64 = 96 << 20;

/// Where an image lies in its shard.
#[cfg(any(feature = "pictures", test))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Spot {
    pub(crate) shard: u32,
    /// Rises with the place in the shard.
    pub(crate) offset: u64,
    /// About how many bytes it has there.
    pub(crate) bytes: u64,
}

/// The images of a set in the order in which shards hold them, cut into runs of neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRuns {
    /// For each image the number of its run, and its place in the stored order.
    images: Vec<Stored>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stored {
    run: u32,
    place: u32,
    bytes: u64,
}

impl StoredRuns {
    /// Cuts images into runs of at least `run_bytes`. The last run of a shard may be smaller.
    #[cfg(any(feature = "pictures", test))]
    pub(crate) fn cut(spots: &[Spot], run_bytes: u64) -> Self {
        let mut by_place: Vec<usize> = (0..spots.len()).collect();
        by_place.sort_by_key(|image| spots[*image]);
        let mut images = vec![
            Stored {
                run: 0,
                place: 0,
                bytes: 0
            };
            spots.len()
        ];
        let (mut run, mut bytes) = (0, 0);
        let mut shard = None;
        for (image, place) in by_place.into_iter().zip(0..) {
            let spot = spots[image];
            if shard.is_some_and(|shard| shard != spot.shard) || bytes >= run_bytes {
                run += 1;
                bytes = 0;
            }
            shard = Some(spot.shard);
            bytes += spot.bytes;
            images[image] = Stored {
                run,
                place,
                bytes: spot.bytes,
            };
        }
        Self { images }
    }

    /// Returns the runs of some of the images, as those of a set that holds them alone.
    #[cfg(any(feature = "pictures", test))]
    pub(crate) fn of(&self, indices: &[u32]) -> Self {
        let images = indices.iter().map(|index| self.images[*index as usize]);
        Self {
            images: images.collect(),
        }
    }

    /// Returns `indices` in the order of `epoch`, which depends on `(seed, epoch)` and on how the shards
    /// are cut.
    fn order(&self, indices: &[u32], seed: u64, epoch: u64) -> Vec<u32> {
        let stored = |index: &u32| self.images[*index as usize];
        let mut by_place = indices.to_vec();
        by_place.sort_by_key(|index| stored(index).place);
        let mut runs: Vec<&[u32]> = by_place
            .chunk_by(|a, b| stored(a).run == stored(b).run)
            .collect();
        let mut rng = rng(seed, Stream::Shuffle, epoch, 1);
        shuffle(&mut runs, &mut rng);
        let (mut order, mut first, mut bytes) = (Vec::with_capacity(indices.len()), 0, 0);
        for run in runs {
            order.extend_from_slice(run);
            bytes += run.iter().map(|index| stored(index).bytes).sum::<u64>();
            if bytes >= BUFFER_BYTES {
                shuffle(&mut order[first..], &mut rng);
                (first, bytes) = (order.len(), 0);
            }
        }
        shuffle(&mut order[first..], &mut rng);
        order
    }
}

/// Returns `indices` of a set in the order of `epoch`: in that of its runs if it is
/// [streamed](crate::Labelled::stored_runs), else in that of [`epoch_order`].
///
/// Both orders depend on `(seed, epoch)`, and hold every index once; they are not the same.
pub fn stored_order(runs: Option<&StoredRuns>, indices: &[u32], seed: u64, epoch: u64) -> Vec<u32> {
    match runs {
        Some(runs) => runs.order(indices, seed, epoch),
        None => epoch_order(indices, seed, epoch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `shards` shards, each with `each` images of 1 MiB, so that a run holds 4 and a buffer 96.
    fn spots(shards: u32, each: u64) -> Vec<Spot> {
        let of_shard = |shard| {
            (0..each).map(move |image| Spot {
                shard,
                offset: 512 * image,
                bytes: 1 << 20,
            })
        };
        (0..shards).flat_map(of_shard).collect()
    }

    fn runs(shards: u32, each: u64) -> StoredRuns {
        StoredRuns::cut(&spots(shards, each), RUN_BYTES)
    }

    fn all(n: u32) -> Vec<u32> {
        (0..n).collect()
    }

    #[test]
    fn every_image_comes_once() {
        let mut order = runs(7, 61).order(&all(427), 0, 0);
        assert_ne!(order, all(427));
        order.sort_unstable();
        assert_eq!(order, all(427));
        assert!(runs(0, 0).order(&[], 0, 0).is_empty());
    }

    #[test]
    fn an_epoch_has_an_order_of_its_own() {
        let (runs, all) = (runs(4, 50), all(200));
        let order = runs.order(&all, 1, 2);
        assert_eq!(order, runs.order(&all, 1, 2));
        assert_ne!(order, runs.order(&all, 1, 3));
        assert_ne!(order, runs.order(&all, 2, 2));
    }

    #[test]
    fn a_buffer_reads_whole_runs_from_several_shards() {
        let runs = runs(20, 48);
        let order = runs.order(&all(960), 0, 0);
        for buffer in order.chunks(96) {
            let mut of_run = std::collections::BTreeMap::new();
            let mut shards = std::collections::BTreeSet::new();
            for index in buffer {
                *of_run.entry(index / 4).or_insert(0) += 1;
                shards.insert(index / 48);
            }
            assert!(of_run.values().all(|images| *images == 4), "{of_run:?}");
            assert!(shards.len() > 5, "{shards:?}");
            assert!(!buffer.is_sorted());
        }
    }

    #[test]
    fn a_run_ends_with_its_shard() {
        let runs = runs(2, 6);
        let numbers: Vec<u32> = runs.images.iter().map(|image| image.run).collect();
        assert_eq!(numbers, [0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3]);
    }

    #[test]
    fn a_part_of_the_set_keeps_its_runs() {
        let runs = runs(3, 40);
        let odd: Vec<u32> = (1..120).step_by(2).collect();
        let order = runs.order(&odd, 5, 0);
        let part = runs.of(&odd).order(&all(60), 5, 0);
        let of_part: Vec<u32> = part.iter().map(|at| odd[*at as usize]).collect();
        assert_eq!(of_part, order);
    }

    #[test]
    fn a_set_in_memory_is_shuffled_as_a_whole() {
        assert_eq!(
            stored_order(None, &all(50), 3, 1),
            epoch_order(&all(50), 3, 1)
        );
    }
}
