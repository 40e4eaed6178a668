//! Contracts of the crate, through its public functions.

mod gradients;
mod noise;
mod sampling;
