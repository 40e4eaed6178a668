//! Accuracy and compute class by class, and the confusion matrix.

/// Images counted by their class and by the class that a model predicted, with the MACs that they
/// took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassTable {
    /// Rows are true classes, columns predicted ones.
    confusion: Vec<Vec<u64>>,
    macs: Vec<u64>,
}

/// A class whose images are predicted as another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confused {
    /// The true class.
    pub label: usize,
    /// The predicted class.
    pub predicted: usize,
    /// How many images.
    pub images: u64,
}

impl ClassTable {
    /// An empty table for `num_classes` classes.
    pub fn new(num_classes: usize) -> Self {
        Self {
            confusion: vec![vec![0; num_classes]; num_classes],
            macs: vec![0; num_classes],
        }
    }

    /// Counts an image; classes that the table has no room for are left out.
    pub fn add(&mut self, label: u32, predicted: u32, macs: u64) {
        let (label, predicted) = (label as usize, predicted as usize);
        let row = self.confusion.get_mut(label);
        if let Some(count) = row.and_then(|row| row.get_mut(predicted)) {
            *count += 1;
            self.macs[label] += macs;
        }
    }

    /// Images by their class (rows) and by the predicted class (columns).
    pub fn confusion(&self) -> &[Vec<u64>] {
        &self.confusion
    }

    /// How many images are of a class.
    pub fn images(&self, class: usize) -> u64 {
        self.confusion[class].iter().sum()
    }

    /// Share of a class's images that were predicted as it; none without images.
    pub fn top1(&self, class: usize) -> Option<f64> {
        let images = self.images(class);
        (images > 0).then(|| self.confusion[class][class] as f64 / images as f64)
    }

    /// The pairs of a class and another one that its images are predicted as, the most frequent pairs
    /// first, at most `count`.
    pub fn confused(&self, count: usize) -> Vec<Confused> {
        let rows = self.confusion.iter().enumerate();
        let pairs = rows.flat_map(|(label, row)| {
            let columns = row.iter().enumerate();
            columns.map(move |(predicted, &images)| Confused {
                label,
                predicted,
                images,
            })
        });
        let mut pairs: Vec<Confused> = pairs
            .filter(|pair| pair.label != pair.predicted && pair.images > 0)
            .collect();
        pairs.sort_by_key(|pair| std::cmp::Reverse(pair.images));
        pairs.truncate(count);
        pairs
    }

    /// Mean MACs of a class's images; none without images.
    pub fn mean_macs(&self, class: usize) -> Option<f64> {
        let images = self.images(class);
        (images > 0).then(|| self.macs[class] as f64 / images as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_counted_by_class_and_prediction() {
        let mut table = ClassTable::new(3);
        for (label, predicted, macs) in [(0, 0, 10), (0, 1, 20), (2, 2, 5), (7, 0, 1)] {
            table.add(label, predicted, macs);
        }
        assert_eq!(table.confusion()[0], [1, 1, 0]);
        assert_eq!((table.top1(0), table.mean_macs(0)), (Some(0.5), Some(15.0)));
        assert_eq!((table.top1(1), table.mean_macs(1)), (None, None));
        assert_eq!(table.images(2), 1);
        let pair = |label, predicted, images| Confused {
            label,
            predicted,
            images,
        };
        for _ in 0..2 {
            table.add(2, 0, 1);
        }
        assert_eq!(table.confused(9), [pair(2, 0, 2), pair(0, 1, 1)]);
        assert_eq!(table.confused(1), [pair(2, 0, 2)]);
    }
}
