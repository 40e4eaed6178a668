//! Contracts of the crate, through its public functions:
//!
//! - `allocations`: a sparse forward allocates nothing per block;
//! - `allocator`: budgets that are allocated to images are the same on every path;
//! - `batches`: an image has the same bits alone, in any batch and for any number of threads;
//! - `ceiling`: no image costs more than its ceiling, on any path;
//! - `checkpoints`: what is written is read back, and the error names all that does not fit;
//! - `dropout`: what training leaves out is left out whole, and by image;
//! - `elastic`: networks that take a budget are the same on every path;
//! - `hostile`: a damaged or hostile file is read or refused, without a panic or much memory;
//! - `import`: what a checkpoint of others says is taken, and what is assumed is noted;
//! - `names`: the same model under the names of others gives the same logits;
//! - `positions`: position embeddings are resampled as by timm;
//! - `recordings`: every path computes what the published code computed;
//! - `reduction`: fewer tokens from block to block, with gradients;
//! - `semantics`: what holds for every adaptive model, whatever its weights;
//! - `sparse`: the sparse path equals the masked one, which defines what a decision means.
#![expect(clippy::unwrap_used, reason = "a failure anywhere here fails its test")]

mod allocations;
mod allocator;
mod batches;
mod ceiling;
mod checkpoints;
mod common;
mod dropout;
mod elastic;
mod foreign;
mod harness;
mod hostile;
mod import;
mod names;
mod positions;
mod recordings;
mod reduction;
mod semantics;
mod sparse;
