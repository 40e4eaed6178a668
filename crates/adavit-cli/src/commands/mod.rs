//! One module for each command: its options, what it does, what it prints.

pub(crate) mod calibrate;
pub(crate) mod completions;
pub(crate) mod convert;
pub(crate) mod data;
pub(crate) mod eval;
pub(crate) mod inspect;
pub(crate) mod macs;
pub(crate) mod man;
pub(crate) mod predict;
pub(crate) mod report;
pub(crate) mod sweep;
pub(crate) mod throughput;
pub(crate) mod train;
pub(crate) mod verify;
