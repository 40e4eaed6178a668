//! Contracts of the crate, through its public functions.

mod macs;
mod random_policy;
mod usage;
