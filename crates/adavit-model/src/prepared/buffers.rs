//! Buffers of a forward, kept from one to the next.

use adavit_decision::Ceiling;
use adavit_kernels::Workspace;

use super::decide::Logits;
use super::plan::BlockPlan;
use crate::config::ModelConfig;

/// Buffers of the blocks, kept from one to the next.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// `(B N, C)`: the tokens, which blocks change in place.
    pub(super) xs: Vec<f32>,
    pub(super) normed: Vec<f32>,
    /// `(B N, 3 C)`.
    pub(super) qkv: Vec<f32>,
    pub(super) attended: Vec<f32>,
    /// `(B N, R)`.
    pub(super) hidden: Vec<f32>,
    /// Images with a gate that nobody knows, since its logit is NaN.
    pub(super) unknown: Vec<bool>,
    pub(super) class_rows: Vec<usize>,
    pub(super) patch_rows: Vec<usize>,
    pub(super) logits: Logits,
    /// `(B, F)`: the features of each image's budget, for networks that take one.
    pub(super) budget: Vec<f32>,
    /// Of the images that are on their way, if they have one.
    pub(super) ceiling: Option<Ceiling>,
    pub(super) plan: BlockPlan,
    pub(super) work: Workspace,
}

/// The tokens that a stem adds to.
pub(super) struct TokenRows<'a> {
    /// `(B, N, C)`.
    pub(super) xs: &'a mut [f32],
    /// The patch tokens' rows.
    pub(super) patch_rows: &'a [usize],
}

impl Buffers {
    /// Makes room for `b` images; allocates only where more is needed than ever before.
    pub(super) fn reserve(&mut self, config: &ModelConfig, b: usize) {
        let (n, c) = (config.num_tokens(), config.embed_dim);
        let tokens = b * n;
        for buffer in [&mut self.xs, &mut self.normed, &mut self.attended] {
            buffer.resize(tokens * c, 0.0);
        }
        self.qkv.resize(tokens * 3 * c, 0.0);
        self.hidden.resize(tokens * config.hidden_dim(), 0.0);
        self.unknown.clear();
        self.unknown.resize(b, false);
        self.class_rows.clear();
        self.class_rows.extend((0..b).map(|image| image * n));
        self.patch_rows.clear();
        let prefix = config.num_prefix_tokens();
        self.patch_rows
            .extend((0..tokens).filter(|row| row % n >= prefix));
    }
}
