//! The order of an epoch, and the batches cut from it: made one at a time, or ahead on worker threads.

pub(crate) mod batch;
pub(crate) mod order;
pub(crate) mod streamed;
pub(crate) mod workers;
