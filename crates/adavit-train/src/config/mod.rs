//! Settings of a run: one TOML file reproduces one run.

pub(crate) mod class_weights;
pub(crate) mod device;
pub(crate) mod distillation;
pub(crate) mod elastic;
pub(crate) mod fine_tune;
pub(crate) mod gates;
pub(crate) mod method;
pub(crate) mod model;
pub(crate) mod stage_config;
pub(crate) mod tables;
pub(crate) mod train_config;
mod unknown;
pub(crate) mod usage_weights;
mod validate;
mod wrong_values;
