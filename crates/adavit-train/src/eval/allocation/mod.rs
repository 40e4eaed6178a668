//! Fits the allocator of an elastic model: which images gain by more compute.

pub(crate) mod fit;
mod price;
mod record;
pub(crate) mod report;
mod ridge;
