#![doc = include_str!("../README.md")]

mod args;
pub mod composed;
mod cpu;
mod ops;
mod prepared;
mod shape;
mod trace;

// The operations, in the order of a forward pass, and their arguments.
pub use args::{AffineMap, AttentionMaps, HeadGate, MlpMaps, Qkv, Window};
pub use ops::activation::{erf, gelu, softmax, tanh};
pub use ops::attention::class::class_attention;
pub use ops::attention::multi_head::multi_head_attention;
pub use ops::attention::qkv::attention;
pub use ops::cross_entropy::cross_entropy;
pub use ops::gate::{gate_groups, gate_tokens, gated_residual};
pub use ops::layer_norm::layer_norm;
pub use ops::linear::{gelu_linear, linear, linear_gelu};
pub use ops::mlp::mlp;
pub use ops::windows::{im2col, patchify};

// The optimizer's step.
pub use ops::adamw::{AdamWSlot, AdamWStep, adamw, squared_norms};

// Inference on slices.
pub use cpu::parts::{ProductParts, Rows};
pub use prepared::attention::{HeadSizes, ImageHeads, ImageRows, attend};
pub use prepared::convolution::{ConvolutionPlaces, PixelGrid, PreparedConvolution};
pub use prepared::layer_norm::PreparedLayerNorm;
pub use prepared::linear::{PreparedLinear, SmallLinear};
pub use prepared::workspace::Workspace;

// Threads, vector instructions and spans of a process.
pub use cpu::pools::{MOST_THREADS, set_threads};
pub use cpu::simd::simd_level;
pub use cpu::threads::{in_pool, side_by_side, threads};
pub use trace::SPAN_TARGET;
