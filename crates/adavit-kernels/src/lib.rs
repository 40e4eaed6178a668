//! Differentiable tensor operations of a vision transformer, for candle.
//!
//! Every function here has a gradient for each tensor that its documentation says has one, on
//! every device and in f32 and f64. candle's own layer norm and last-dimension softmax cut the
//! graph without an error.
//!
//! Legend: B batch, N tokens (class token included), C width, H heads, D = C / H.
//!
//! A NaN among the inputs reaches every output that depends on it; [`attention()`] says what its
//! masks leave out.
//!
//! # Errors
//! Every function fails if a shape is not what its documentation says, or if candle fails.

mod activation;
mod adamw;
mod attention;
pub mod composed;
mod convolution;
mod fused;
mod gate;
mod kept;
mod lanes;
mod linear;
mod loss;
mod math;
mod mlp;
mod norm;
mod packed;
mod parts;
mod prepared;
mod product;
mod rows;
mod shape;
mod shared;
mod simd;
mod tap;
mod threads;
mod tile;
mod trace;
mod windows;

#[cfg(test)]
mod levels_tests;
#[cfg(test)]
mod nan_tests;
#[cfg(test)]
#[path = "../tests/kernels/common.rs"]
mod test_common;

pub use activation::{erf, gelu, softmax, tanh};
pub use adamw::{AdamWSlot, AdamWStep, adamw, squared_norms};
pub use attention::{AttentionMaps, HeadGate, attention, class_attention, multi_head_attention};
pub use convolution::{ConvolutionPlaces, PixelGrid, PreparedConvolution};
pub use gate::{gate_groups, gate_tokens, gated_residual};
pub use linear::{gelu_linear, linear, linear_gelu};
pub use loss::cross_entropy;
pub use mlp::mlp;
pub use norm::layer_norm;
pub use parts::{Parts, Rows};
pub use prepared::{
    ImageHeads, Images, PreparedLayerNorm, PreparedLinear, SmallLinear, Work, attend,
};
pub use simd::simd_level;
pub use threads::{MOST_THREADS, in_pool, set_threads, side_by_side, threads};
pub use trace::SPAN_TARGET;
pub use windows::{Window, im2col, patchify};
