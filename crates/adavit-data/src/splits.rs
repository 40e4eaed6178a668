//! Seeded splits of a data set's indices.

use crate::error::{Error, Result};
use crate::rng::{Stream, rng, shuffle};

/// Two disjoint parts of `0..n`, each ascending, together complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Indices to train on.
    pub train: Vec<u32>,
    /// Indices to choose a model by.
    pub held_out: Vec<u32>,
}

/// Splits `0..n` so that about `fraction` of it is held out, at least one index on either side.
///
/// The same `(n, fraction, seed)` gives the same split.
///
/// # Errors
/// [`Error::Setting`] if `fraction` is not inside (0, 1) or `n` is not in `2..=u32::MAX`.
pub fn held_out(n: usize, fraction: f64, seed: u64) -> Result<Split> {
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(Error::Setting(format!(
            "held_out: expected a fraction above 0 and below 1, found {fraction}"
        )));
    }
    let end = index_end(n)?;
    if end < 2 {
        return Err(Error::Setting(format!(
            "held_out: expected at least 2 images, so that some can be held out, found {n}"
        )));
    }
    let count = ((n as f64 * fraction).round() as usize).clamp(1, n - 1);
    let mut order: Vec<u32> = (0..end).collect();
    shuffle(&mut order, &mut rng(seed, Stream::HeldOut, 0, 0));
    let mut train = order.split_off(count);
    order.sort_unstable();
    train.sort_unstable();
    Ok(Split {
        train,
        held_out: order,
    })
}

/// Returns the ascending indices of `per_class` images of every label that occurs: the first ones of
/// each label in a seeded order of all images.
///
/// # Errors
/// [`Error::Setting`] if a label has fewer images than `per_class`.
pub fn class_balanced(labels: &[u8], per_class: usize, seed: u64) -> Result<Vec<u32>> {
    let mut available = [0_usize; 256];
    for &label in labels {
        available[label as usize] += 1;
    }
    if let Some(label) = available.iter().position(|&n| n > 0 && n < per_class) {
        return Err(Error::Setting(format!(
            "expected at least {per_class} images of class {label}, found {}",
            available[label]
        )));
    }
    let mut order: Vec<u32> = (0..index_end(labels.len())?).collect();
    shuffle(&mut order, &mut rng(seed, Stream::Subset, 0, 0));
    let mut taken = [0_usize; 256];
    order.retain(|&i| {
        let count = &mut taken[labels[i as usize] as usize];
        *count += 1;
        *count <= per_class
    });
    order.sort_unstable();
    Ok(order)
}

fn index_end(n: usize) -> Result<u32> {
    u32::try_from(n)
        .map_err(|_| Error::Setting(format!("expected at most {} images, found {n}", u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_out_split_is_disjoint_complete_and_ascending() {
        for (n, fraction) in [(2, 0.01), (2, 0.99), (10, 0.1), (1_000, 0.05), (999, 0.5)] {
            let split = held_out(n, fraction, 7).unwrap();
            assert!(split.train.is_sorted() && split.held_out.is_sorted());
            assert!(!split.train.is_empty() && !split.held_out.is_empty());
            let mut all = [split.train, split.held_out].concat();
            all.sort_unstable();
            assert!(all.iter().copied().eq(0..n as u32), "n = {n}");
        }
    }

    #[test]
    fn held_out_split_depends_on_the_seed_alone() {
        let split = |seed| held_out(100, 0.1, seed).unwrap();
        assert_eq!(split(3), split(3));
        assert_ne!(split(3), split(4));
        assert_eq!(split(3).held_out.len(), 10);
    }

    #[test]
    fn fraction_outside_the_open_interval_is_refused() {
        for fraction in [0.0, 1.0, -0.1, f64::NAN, f64::INFINITY] {
            let error = held_out(10, fraction, 0).unwrap_err().to_string();
            assert!(error.contains("above 0 and below 1"), "{error}");
        }
        assert!(
            held_out(1, 0.5, 0)
                .unwrap_err()
                .to_string()
                .contains("found 1")
        );
    }

    #[test]
    fn subset_has_the_same_number_of_every_class() {
        let labels: Vec<u8> = (0..100).map(|i| if i < 60 { 0 } else { 4 }).collect();
        let subset = class_balanced(&labels, 20, 0).unwrap();
        assert!(subset.is_sorted_by(|a, b| a < b));
        let of = |class| {
            let hits = subset.iter().filter(|&&i| labels[i as usize] == class);
            hits.count()
        };
        assert_eq!((subset.len(), of(0), of(4)), (40, 20, 20));
        assert_ne!(subset, class_balanced(&labels, 20, 1).unwrap());
        let error = class_balanced(&labels, 41, 0).unwrap_err().to_string();
        assert!(error.contains("class 4, found 40"), "{error}");
    }
}
