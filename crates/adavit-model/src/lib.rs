//! Vision transformers that decide, for each image, which patches, heads and sub-layers to
//! compute, on candle.
//!
//! [`VisionTransformer::forward`] is the plain ViT, DeiT or T2T-ViT, [`VisionTransformer::forward_masked`]
//! the adaptive one of AdaViT (Meng et al., CVPR 2022, arXiv 2111.15668), where gates are factors:
//! it defines the semantics and trains. [`PreparedTransformer::forward_sparse`] gives the same
//! numbers from what is kept alone.
//!
//! Legend: B batch, N tokens (class token included), C width, H heads, D = C / H, L blocks,
//! K classes.
//!
//! ```
//! use adavit_decision::{DecisionConfig, Gating};
//! use adavit_model::{Capture, Checkpoint, ModelConfig, initial_tensors};
//! use candle_core::{DType, Device, Tensor};
//!
//! # fn main() -> Result<(), adavit_model::Error> {
//! let config = ModelConfig::preset("nano_patch7_28")?.with_decisions(DecisionConfig::default());
//! let tensors = initial_tensors(&config, 0, 0.0)?;
//! let model = Checkpoint { config, tensors }.model(&Device::Cpu)?;
//! let images = Tensor::zeros((2, 1, 28, 28), DType::F32, &Device::Cpu)?;
//! let output = model.forward_masked(&images, &mut Gating::Inference, Capture::default())?;
//! assert_eq!(output.logits.dims(), [2, 10]);
//! assert_eq!(output.policy().blocks.len(), 6);
//! # Ok(())
//! # }
//! ```

mod block;
mod checkpoint;
mod config;
mod conv_stem;
mod cost_table;
mod embed;
mod error;
mod file;
mod import;
mod layers;
mod positions;
mod prepared;
mod preprocessing;
mod presets;
mod reduction;
mod tokens_to_token;
mod verify;
mod vit;
mod weights;

pub use checkpoint::{Checkpoint, read_tensors, write_file, write_tensors};
pub use config::{ModelConfig, Normalization, PosEmbed};
pub use conv_stem::ConvStemConfig;
pub use cost_table::paper_cost_table;
pub use error::{Error, Result};
pub use import::{ImportOptions, Imported, Source, import, import_as, inspect};
pub use positions::resample_pos_embed;
pub use prepared::{PreparedTransformer, Strategy, Workspace};
pub use preprocessing::{CropMode, Interpolation, Picture, Preprocessing};
pub use presets::PRESETS;
pub use reduction::{ReductionMethod, TokenReduction};
pub use tokens_to_token::{T2tConfig, TokensType};
pub use verify::{Comparison, Recording, Replay, Verification, verify};
pub use vit::{Capture, Output, VisionTransformer};
pub use weights::{
    Tensors, initial_tensors, is_decision_tensor, is_random_features, tensor_shapes,
};
