//! Contracts of every operation of the crate, through its public functions.
//!
//! - `operations`: each operation except attention equals its composed form, has the right gradients,
//!   and takes every shape at the edges.
//! - `attention`: the same for attention, with masks of tokens and gates of heads.
//! - `prepared`: prepared layers equal the operations, and compute only what they are asked for.
//! - `convolution`: the same for prepared convolutions.
//! - `threads`: results do not depend on the number of threads.
//!
//! Next to this folder, `set_threads.rs`: the number of threads is set without a data race. In
//! `src/ops/tests`: operations at every level of vector instructions, and what a NaN reaches.
#![expect(clippy::unwrap_used, reason = "a failure anywhere here fails its test")]

mod attention;
mod convolution;
mod operations;
mod prepared;
mod slices;
mod threads;
