//! A training run, from its settings to its summary.

mod allocation;
pub(crate) mod destination;
pub(crate) mod driver;
mod elastic;
pub(crate) mod environment;
mod epoch;
pub(crate) mod event;
pub(crate) mod extend;
pub(crate) mod folder;
mod given_dense;
pub(crate) mod images;
pub(crate) mod lock;
mod losses;
pub(crate) mod places;
pub(crate) mod progress;
pub(crate) mod session;
pub(crate) mod snapshot;
pub(crate) mod stage;
pub(crate) mod summary;
mod targets;
mod teacher;
pub(crate) mod tensorboard;
mod test_stage;
pub(crate) mod trainable;
pub(crate) mod trained_on;
