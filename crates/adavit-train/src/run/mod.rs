//! A training run, from its settings to its summary.

pub(crate) mod driver;
pub(crate) mod environment;
mod epoch;
pub(crate) mod event;
pub(crate) mod folder;
mod losses;
pub(crate) mod progress;
pub(crate) mod session;
pub(crate) mod snapshot;
pub(crate) mod stage;
pub(crate) mod summary;
mod targets;
mod teacher;
pub(crate) mod tensorboard;
mod test_stage;
