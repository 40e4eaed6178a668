//! Contracts of the crate, through its public functions.
//!
//! - `gradients`: gates have the gradient of their soft value, by closed form and by differences
//! - `noise`: the distribution of noise, its keys and its stream, and recorded noise
//! - `sampling`: how often noise and gates together choose what

mod gradients;
mod noise;
mod sampling;

use candle_core::Device;

const CPU: Device = Device::Cpu;
