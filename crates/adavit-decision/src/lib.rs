#![doc = include_str!("../README.md")]

mod config;
mod cost;
mod loss;
mod network;
mod policy;

pub use config::{DecisionConfig, HeadDeactivation, Thresholds};
pub use cost::macs::{Geometry, MacsParts, PaperRounding};
pub use cost::usage::{BlockUsage, Usage, UsageMeter};
pub use loss::macs::MacsLoss;
pub use loss::usage::{AxisLoss, Deviation, UsageLoss, UsageLosses};
pub use network::{Axis, BlockLogits, Decision, DecisionNetwork, Gating};
pub use policy::block::{BlockPolicy, BlockUse, Policy};
pub use policy::hard::HardPolicy;
pub use policy::random::random_policy;
