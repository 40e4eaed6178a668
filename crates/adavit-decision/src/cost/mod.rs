//! What a policy costs and what it keeps.

pub(crate) mod macs;
pub(crate) mod usage;
