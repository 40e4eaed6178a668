//! Accuracy, compute, usage and speed of a model on a set of images, and thresholds or an allocator for
//! budgets.

pub(crate) mod allocation;
pub(crate) mod calibration;
pub(crate) mod classes;
pub(crate) mod evaluate;
pub(crate) mod evaluation;
pub(crate) mod images;
pub(crate) mod mode;
