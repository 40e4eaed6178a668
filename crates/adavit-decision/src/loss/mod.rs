//! Losses that hold a batch to its budget.

pub(crate) mod deviation;
pub(crate) mod macs;
pub(crate) mod usage;
