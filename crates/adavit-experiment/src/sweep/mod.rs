//! A sweep: accuracy against compute and time, of the adaptive model and of its rivals.
//!
//! ```text
//! OUT/runs/NAME       the run folder of each model that is trained
//! OUT/points/NAME.json the results of each model on the test images
//! OUT/efficiency.csv  one line for each model;  .json with the comparisons;  .md as tables;
//!                     .svg as a chart
//! ```
//!
//! Every model and every threshold is chosen on held-out training images; the test images are used
//! once for each point. A sweep that was stopped resumes where it was.

mod compare;
mod config;
mod driver;
mod job;
mod measured;
mod names;
mod plan;
mod point;
mod speed;
mod tables;
mod time_again;
mod validate;
mod write;

pub use compare::{PairedComparison, Verdict};
pub use config::{Rival, SmallerModel, SweepConfig, Variant};
pub use driver::{Efficiency, measure_speeds, sweep};
pub use point::{ModelKind, Point, Speed};
