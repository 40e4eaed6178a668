//! Checkpoints of others: of timm, Hugging Face, and the published AdaViT, DeiT and T2T-ViT code.
//!
//! Tensors get the names of the published AdaViT code, and the configuration is found from their
//! shapes; what shapes cannot say is taken from files beside them or assumed, and noted.

mod adapt;
pub(crate) mod imported;
pub(crate) mod names;
pub(crate) mod preset;
pub(crate) mod read;
mod shapes;
mod sidecar;
