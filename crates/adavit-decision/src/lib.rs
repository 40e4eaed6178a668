#![doc = include_str!("../README.md")]

mod budget;
mod config;
mod hard;
mod loss;
mod macs;
mod network;
mod policy;
mod random;
mod usage;

pub use budget::MacsLoss;
pub use config::{DecisionConfig, HeadDeactivation, Thresholds};
pub use hard::HardPolicy;
pub use loss::{AxisLoss, Deviation, UsageLoss, UsageLosses};
pub use macs::{Geometry, MacsParts, PaperRounding};
pub use network::{Axis, BlockLogits, Decision, DecisionNetwork, Gating};
pub use policy::{BlockPolicy, BlockUse, Policy};
pub use random::random_policy;
pub use usage::{BlockUsage, Usage, UsageMeter};
