//! Repeated augmentation: a picture occurs several times in a row, each time varied otherwise.
//!
//! Hoffer et al. 2020, "Augment your batch" (arXiv 1901.09335); DeiT's `RASampler`.

/// A picture's place in an epoch with repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RepeatedSample {
    /// Index of the picture in the data set.
    pub index: u32,
    /// Which repeat this is, from 0; it keys the draws, see
    /// [`KeyedAugment::repeat`](crate::KeyedAugment::repeat).
    pub repeat: u32,
}

/// The first time that a picture occurs.
impl From<u32> for RepeatedSample {
    fn from(index: u32) -> Self {
        Self { index, repeat: 0 }
    }
}

/// Returns the order of an epoch in which every picture of `order` occurs `repeats` times in a row.
///
/// DeiT's sampler makes this list, deals it to its processes in turn, and each stops at its share of the
/// number of pictures: an epoch costs as much as one without repeats, and sees one picture of `repeats`.
/// In one process, and here, that is a `truncate` to the length of `order`. Without it, an epoch sees every
/// picture and costs `repeats` times as much.
///
/// ```
/// use adavit_data::repeated_order;
/// let mut order = repeated_order(&[8, 7, 9], 2);
/// assert_eq!(order.len(), 6);
/// assert_eq!((order[0].index, order[1].index), (8, 8));
/// assert_eq!((order[0].repeat, order[1].repeat), (0, 1));
/// order.truncate(3); // As long as an epoch without repeats.
/// ```
pub fn repeated_order(order: &[u32], repeats: u32) -> Vec<RepeatedSample> {
    let repeated = |&index: &u32| (0..repeats).map(move |repeat| RepeatedSample { index, repeat });
    order.iter().flat_map(repeated).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_repeat_is_the_order_without_repeats() {
        let order: Vec<u32> = (0..50).rev().collect();
        let repeated = repeated_order(&order, 1);
        let plain: Vec<u32> = repeated.iter().map(|sample| sample.index).collect();
        assert_eq!(plain, order);
        assert!(repeated.iter().all(|sample| sample.repeat == 0));
    }

    #[test]
    fn every_picture_occurs_in_a_row_with_every_repeat() {
        let indices: Vec<u32> = (0..20).map(|i| 5 * i).collect();
        let order = repeated_order(&indices, 3);
        let mut seen = Vec::new();
        for row in order.chunks(3) {
            assert!(row.iter().all(|sample| sample.index == row[0].index));
            let repeats: Vec<u32> = row.iter().map(|sample| sample.repeat).collect();
            assert_eq!(repeats, [0, 1, 2]);
            seen.push(row[0].index);
        }
        assert_eq!(seen, indices);
        assert!(repeated_order(&indices, 0).is_empty());
    }
}
