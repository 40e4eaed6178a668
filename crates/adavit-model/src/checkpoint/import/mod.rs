//! Checkpoints of others: of timm, Hugging Face, torchvision, and the published AdaViT, DeiT and T2T-ViT
//! code.
//!
//! Tensors get the names of the published AdaViT code, and the configuration is found from their
//! shapes; what shapes cannot say is taken from files beside them or assumed, and noted.

mod adapt;
mod folder;
pub(crate) mod imported;
pub(crate) mod names;
mod prefixes;
pub(crate) mod preset;
pub(crate) mod read;
mod shapes;
mod sidecar;
mod torchvision;
