//! The public differentiable operations: shape checks, and the choice between the fused and the
//! composed form.

pub(crate) mod activation;
pub(crate) mod adamw;
pub(crate) mod attention;
pub(crate) mod cross_entropy;
pub(crate) mod fused;
pub(crate) mod gate;
pub(crate) mod layer_norm;
pub(crate) mod linear;
pub(crate) mod mlp;
pub(crate) mod saved;
pub(crate) mod tap;
#[cfg(test)]
mod tests;
pub(crate) mod windows;
