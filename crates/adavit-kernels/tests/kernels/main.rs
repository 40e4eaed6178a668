//! Contracts of every operation of the crate, through its public functions.
#![expect(clippy::unwrap_used, reason = "a failure anywhere here fails its test")]

mod attention;
mod operations;
mod prepared;
mod threads;
