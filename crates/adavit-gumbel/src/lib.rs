#![doc = include_str!("../README.md")]

mod categorical;
mod gate;
mod noise;
mod perturb;
mod schedule;

pub use gate::{hard_gate, is_on, keep_probability, soft_gate, threshold_gate};
pub use noise::{Noise, ReplayedNoise, ScaledNoise, SeededNoise, Site};
pub use schedule::Temperature;

pub use categorical::{argmax_one_hot, gumbel_softmax, gumbel_softmax_hard};
