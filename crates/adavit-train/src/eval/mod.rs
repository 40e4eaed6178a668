//! Accuracy, compute and usage of a model on a set of images, and thresholds for a budget.

pub(crate) mod calibration;
pub(crate) mod classes;
pub(crate) mod evaluate;
