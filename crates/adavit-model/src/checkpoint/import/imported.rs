//! What to make of a checkpoint, and what was made of it.

use crate::checkpoint::native::Checkpoint;

/// Who wrote a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// adavit: with a `config.json` of its own.
    Adavit,
    /// timm, or PyTorch code with its names: DeiT's, T2T-ViT's, the published AdaViT's.
    Timm,
    /// Hugging Face's transformers: `ViTForImageClassification`, `ViTModel` and DeiT's.
    HuggingFace,
    /// torchvision's `VisionTransformer`.
    Torchvision,
}

impl Origin {
    /// The author's name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Adavit => "adavit",
            Self::Timm => "timm",
            Self::HuggingFace => "Hugging Face transformers",
            Self::Torchvision => "torchvision",
        }
    }
}

/// What to make of a checkpoint, where it is not taken as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// Heads, where neither a tensor nor a file says how many.
    pub num_heads: Option<usize>,
    /// Height and width of the images, for which the position embedding is resampled.
    pub img_size: Option<(usize, usize)>,
    /// Classes of a new head, in place of the one that is there.
    pub num_classes: Option<usize>,
    /// Of the new head.
    pub seed: u64,
    /// Leave out the distillation token and its head.
    pub drop_distillation: bool,
}

/// A checkpoint, and how it was understood.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Imported {
    /// What was read.
    pub checkpoint: Checkpoint,
    /// Who wrote it.
    pub origin: Origin,
    /// The format of its file.
    pub format: &'static str,
    /// The key under which the weights were, if they were not on top.
    pub wrapper: Option<String>,
    /// Whether the number of heads is an assumption, heads of 64 channels, since neither a tensor,
    /// a file nor an option says it.
    pub num_heads_assumed: bool,
    /// What was assumed or changed, a sentence each.
    pub notes: Vec<String>,
}
