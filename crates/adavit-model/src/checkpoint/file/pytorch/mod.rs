//! Files of `torch.save`.

pub(super) mod archive;
pub(super) mod legacy;
mod views;
