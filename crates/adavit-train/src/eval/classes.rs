//! Accuracy and compute class by class, and the confusion matrix.

/// Images counted by their class and by the class that a model predicted, with the MACs that they
/// took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassTable {
    /// Rows are true classes, columns predicted ones.
    confusion: Vec<Vec<u64>>,
    macs: Vec<u64>,
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
    }
}
