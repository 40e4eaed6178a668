//! What a policy costs, and what it keeps on average.

mod bounds;
mod expected;
pub(crate) mod formula;
pub(crate) mod macs;
pub(crate) mod paper;
pub(crate) mod usage;
