//! Optimizer, averaged weights and schedules.

pub(crate) mod adamw;
pub(crate) mod depth;
pub(crate) mod ema;
pub(crate) mod gradients;
pub(crate) mod parameters;
pub(crate) mod schedule;
