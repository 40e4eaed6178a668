//! Files with tensors: safetensors, and what `torch.save` writes.
//!
//! Whatever a file claims of itself is checked against its length before memory is asked for, and
//! tensors are read one by one. A pickle is read as data: nothing in it is ever run.

pub(crate) mod open;
mod pickle;
mod pytorch;
pub(crate) mod safetensors;
pub(crate) mod sharded;
pub(crate) mod state_dict;
pub(crate) mod write;
