//! The program as people and scripts meet it. Which file holds which contract:
//!
//! - `help`: help, completions and the manual page cover every command, with the defaults of the code;
//! - `options`: every option of `train` changes the settings, and what is learnt;
//! - `settings`: the order of defaults, file, `--set` and options; unknown keys; the same word for the
//!   same thing in every command;
//! - `refusals`: what cannot be used is refused on one line, with exit status 2, and nothing panics;
//! - `messages`: what people read on standard error can be read and pasted;
//! - `runs`: run folders, results, resuming to the same weights, signals and time limits;
//! - `folders`: a folder is written by one process, found from anywhere, extended by more epochs; images
//!   that a checkpoint has learnt are named;
//! - `images`: your own images, in every format; fine-tuning; classes; broken pictures;
//! - `checkpoints`: checkpoints of others, recordings and pictures;
//! - `predict`: every kind of input and output, broken files, overlays;
//! - `calibrate`: thresholds for a budget, on the run's own held-out images;
//! - `ceiling`: no image costs more than `--max-macs`;
//! - `scenes`: the data set that is built from garments, in every command;
//! - `measure`: MACs and images per second of presets and checkpoints;
//! - `sweep`: sweeps resume, are timed again, and their runs are reported.
#![expect(
    clippy::unwrap_used,
    reason = "the helpers here are test code, which clippy does not see"
)]

mod calibrate;
mod ceiling;
mod checkpoints;
mod folders;
mod help;
mod helpers;
mod images;
mod measure;
mod messages;
mod options;
mod predict;
mod refusals;
mod runs;
mod scenes;
mod settings;
mod sweep;
