#![doc = include_str!("../README.md")]

pub mod composed;
mod cpu;
mod ops;
mod prepared;
mod shape;
mod trace;

pub use cpu::parts::{Parts, Rows};
pub use cpu::pools::{MOST_THREADS, set_threads};
pub use cpu::simd::simd_level;
pub use cpu::threads::{in_pool, side_by_side, threads};
pub use ops::activation::{erf, gelu, softmax, tanh};
pub use ops::adamw::{AdamWSlot, AdamWStep, adamw, squared_norms};
pub use ops::attention::{
    AttentionMaps, HeadGate, attention, class_attention, multi_head_attention,
};
pub use ops::cross_entropy::cross_entropy;
pub use ops::gate::{gate_groups, gate_tokens, gated_residual};
pub use ops::layer_norm::layer_norm;
pub use ops::linear::{gelu_linear, linear, linear_gelu};
pub use ops::mlp::mlp;
pub use ops::windows::{Window, im2col, patchify};
pub use prepared::convolution::{ConvolutionPlaces, PixelGrid, PreparedConvolution};
pub use prepared::linear::{
    ImageHeads, Images, PreparedLayerNorm, PreparedLinear, SmallLinear, Work, attend,
};
pub use trace::SPAN_TARGET;
