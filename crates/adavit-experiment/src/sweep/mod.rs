//! A sweep: accuracy against compute and time, of the adaptive model and of what people ask it to be
//! compared with.
//!
//! ```text
//! OUT/runs/NAME       the run folder of each model that is trained
//! OUT/points/NAME.json what each model does on the test images
//! OUT/efficiency.csv  one line for each of them;  .json with the comparisons;  .md as tables;
//!                     .svg drawn
//! ```
//!
//! Every model is chosen, and every threshold moved, on held-out training images; the test images
//! are looked at once for each point. A sweep that was stopped goes on where it was.

mod compare;
mod config;
mod driver;
mod job;
mod names;
mod point;
mod speed;
mod tables;
mod time_again;
mod write;

pub use compare::{Comparison, Verdict};
pub use config::{Rival, SmallerModel, SweepConfig, Variant};
pub use driver::{Efficiency, measure_speeds, sweep};
pub use point::{Kind, Point, Speed};
