#![doc = include_str!("../README.md")]

mod allocator;
mod allowance;
mod axis;
mod budget;
mod ceiling;
mod config;
mod cost;
mod loss;
mod network;
mod policy;

pub use config::{DecisionConfig, HeadDeactivation, Thresholds};
pub use network::{BlockLogits, Decision, DecisionNetwork, Gating};
pub use policy::block::{BlockPolicy, Policy};
pub use policy::hard::HardPolicy;
pub use policy::kept::BlockKept;
pub use policy::random::random_policy;

pub use cost::macs::{Geometry, MacsParts};
pub use cost::paper::PaperRounding;
pub use cost::usage::{BlockUsage, Usage, UsageMeter};

pub use loss::deviation::Deviation;
pub use loss::macs::MacsLoss;
pub use loss::usage::{AxisLoss, UsageLoss, UsageLosses};

pub use allocator::{Allocation, Allocator, AllocatorConfig, FIRST_ALLOCATED, Knot, choose};
pub use allowance::Allowance;
pub use budget::{BUDGET_FEATURES, Budgets, budget_features};
pub use ceiling::{Ceiling, GateLogits, PolicyAt};

pub use axis::Axis;
