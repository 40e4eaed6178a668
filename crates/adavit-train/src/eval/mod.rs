//! Accuracy, compute, usage and speed of a model on a set of images, and thresholds for a budget.

pub(crate) mod calibration;
pub(crate) mod classes;
pub(crate) mod evaluate;
pub(crate) mod evaluation;
pub(crate) mod images;
pub(crate) mod mode;
