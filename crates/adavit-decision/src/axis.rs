//! The three axes that a model decides on.

use adavit_gumbel::Site;

/// An axis of decisions: which gates of a block, and which key their noise has.
///
/// The number of each variant is part of the noise's key. Published results depend on it, so a
/// number never changes and is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Axis {
    /// Attention and MLP of the block.
    Blocks = 0,
    /// Attention heads.
    Heads = 1,
    /// Patch tokens.
    Tokens = 2,
}

impl Axis {
    /// Returns the key of this axis's noise in block `block`.
    pub fn site(self, block: usize) -> Site {
        Site::new(block, self as u32)
    }
}
