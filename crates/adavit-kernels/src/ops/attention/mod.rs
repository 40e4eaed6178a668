//! Multi-head attention with gates: y = softmax(q k^T / sqrt(D) + mask) v per head.
//!
//! Tokens: a pair attends if both tokens are kept, and each token sees itself.
//! Heads, full deactivation: q, k, v and y are multiplied by the head's gate;
//! partial deactivation: the attention matrix of an off head is the identity.
//! Meng et al., AdaViT, CVPR 2022 (arXiv 2111.15668), section 3.

pub(crate) mod class;
pub(crate) mod multi_head;
mod pair;
mod pairs;
pub(crate) mod qkv;
