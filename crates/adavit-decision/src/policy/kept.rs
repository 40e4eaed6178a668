//! What one image keeps of one block, as counts.

use serde::{Serialize, Serializer};

/// What one image keeps of one block.
///
/// The class token is always kept, so only patch tokens are stored. Serialized, the counts are
/// `tokens` (class token included), `heads`, `attention` and `mlp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BlockKept {
    /// Kept tokens apart from the class token.
    #[serde(rename = "tokens", serialize_with = "with_class_token")]
    pub patches: usize,
    /// Kept heads.
    pub heads: usize,
    /// Whether attention runs.
    pub attention: bool,
    /// Whether the MLP runs.
    pub mlp: bool,
}

impl BlockKept {
    /// Returns the number of kept tokens, class token included: at least 1.
    pub fn tokens(&self) -> usize {
        self.patches + 1
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde calls"
)]
fn with_class_token<S: Serializer>(patches: &usize, serializer: S) -> Result<S::Ok, S::Error> {
    (patches + 1).serialize(serializer)
}
