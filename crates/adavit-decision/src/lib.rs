//! Decision networks of adaptive vision transformers: what to compute, what that costs, and the
//! loss that keeps it within a budget.
//!
//! AdaViT (Meng et al., CVPR 2022, arXiv 2111.15668) puts a small network in every block, which
//! chooses for each image the patch tokens, attention heads and sub-layers to compute.
//!
//! Legend: B batch, N tokens (class token included), C width, H heads, D = C / H, L blocks,
//! R width of fc1's output. MACs are multiply-adds (1 MAC = 2 FLOPs), usages ratios in [0, 1].
//!
//! # Errors
//! Tensor functions fail if candle fails or if shapes do not match.
//!
//! ```
//! use adavit_decision::{BlockUse, DecisionConfig, Geometry};
//!
//! let deit_small = Geometry {
//!     num_tokens: 197,
//!     embed_dim: 384,
//!     depth: 12,
//!     num_heads: 6,
//!     hidden_dim: 1536,
//!     embed_macs: 196 * 768 * 384,
//!     head_macs: 384 * 1000,
//! };
//! assert_eq!(deit_small.dense_macs(), 4_598_882_304);
//! let half = BlockUse { tokens: 99, heads: 3, attention: true, mlp: false };
//! let macs = deit_small.image_macs(&DecisionConfig::default(), &[half; 12]);
//! assert!(macs < deit_small.dense_macs() / 4);
//! ```

mod budget;
mod config;
mod hard;
mod loss;
mod macs;
mod network;
mod policy;
mod random;
mod usage;

pub use budget::MacsLoss;
pub use config::{DecisionConfig, HeadDeactivation, Thresholds};
pub use hard::HardPolicy;
pub use loss::{AxisLoss, Deviation, UsageLoss, UsageLosses};
pub use macs::{Geometry, MacsParts, PaperRounding};
pub use network::{Axis, BlockLogits, Decision, DecisionNetwork, Gating};
pub use policy::{BlockPolicy, BlockUse, Policy};
pub use random::random_policy;
pub use usage::{BlockUsage, Usage, UsageMeter};
