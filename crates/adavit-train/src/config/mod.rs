//! Settings of a run: one TOML file reproduces one run.

pub(crate) mod method;
pub(crate) mod model;
pub(crate) mod train_config;
mod unknown;
mod validate;
