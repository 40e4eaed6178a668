#![doc = include_str!("../README.md")]

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
