//! The rules, one file each.

pub(crate) mod circles;
pub(crate) mod crates;
pub(crate) mod flags;
pub(crate) mod imports;
