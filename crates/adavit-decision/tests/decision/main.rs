//! Contracts of the crate, through its public functions.
//!
//! - `macs`: what a policy costs, by the `exact` and the `paper` accounting
//! - `ceiling`: what no image costs more than
//! - `budget`: which usage a budget in MACs asks for
//! - `usage`: what the meter reports, and which images it refuses
//! - `losses`: the usage losses of a batch, and their gradients
//! - `hard_policy`: the class token is always kept, and policies of other sizes are refused
//! - `random_policy`: which shares random policies keep, and what they cost
//! - `noise_keys`: the key of each axis's noise, on which published results depend
//! - `helpers`: models and decisions that several files use
#![expect(clippy::unwrap_used, reason = "a failure anywhere here fails its test")]

mod budget;
mod ceiling;
mod hard_policy;
mod helpers;
mod losses;
mod macs;
mod noise_keys;
mod random_policy;
mod usage;
