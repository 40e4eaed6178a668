//! The order of an epoch.

use crate::rng::{Stream, rng, shuffle};

/// Returns `indices` in the order of `epoch`: a shuffle that depends on `(seed, epoch)` only.
pub fn epoch_order(indices: &[u32], seed: u64, epoch: u64) -> Vec<u32> {
    let mut order = indices.to_vec();
    shuffle(&mut order, &mut rng(seed, Stream::Shuffle, epoch, 0));
    order
}

/// Cuts `order` into batches of `batch_size`; the last one holds what is left.
///
/// # Panics
/// If `batch_size` is 0.
pub fn batches(order: &[u32], batch_size: usize) -> std::slice::Chunks<'_, u32> {
    order.chunks(batch_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_a_permutation() {
        let indices: Vec<u32> = (0..500).map(|i| 3 * i).collect();
        let mut order = epoch_order(&indices, 0, 0);
        assert_ne!(order, indices);
        order.sort_unstable();
        assert_eq!(order, indices);
        assert!(epoch_order(&[], 0, 0).is_empty());
    }

    #[test]
    fn order_differs_between_epochs_and_seeds_only() {
        let indices: Vec<u32> = (0..100).collect();
        let order = epoch_order(&indices, 1, 2);
        assert_eq!(order, epoch_order(&indices, 1, 2));
        assert_ne!(order, epoch_order(&indices, 1, 3));
        assert_ne!(order, epoch_order(&indices, 2, 2));
        assert_ne!(order, epoch_order(&indices, 2, 1));
    }

    #[test]
    fn last_partial_batch_is_kept() {
        let order: Vec<u32> = (0..10).collect();
        let sizes: Vec<_> = batches(&order, 4).map(<[u32]>::len).collect();
        assert_eq!(sizes, [4, 4, 2]);
        assert_eq!(batches(&order, 4).flatten().count(), 10);
    }
}
