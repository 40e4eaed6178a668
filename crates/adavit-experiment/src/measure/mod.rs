//! Speeds of this machine: images per second, the product peak, and how much of the saved compute
//! becomes time.

pub(crate) mod memory;
pub(crate) mod realised;
pub(crate) mod throughput;

pub use memory::peak_rss_bytes;
pub use realised::{AdaptiveWorkload, Keep, Realised};
pub use throughput::{Throughput, Workload};
