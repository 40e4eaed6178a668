#![doc = include_str!("../README.md")]

mod block;
mod checkpoint;
mod config;
mod cost_table;
mod error;
mod layers;
mod output;
mod positions;
mod prepared;
mod preprocessing;
mod presets;
mod reduction;
mod stem;
mod verify;
mod vit;

pub use checkpoint::import::{ImportOptions, Imported, Source, import, import_as, inspect};
pub use checkpoint::native::{Checkpoint, read_tensors, write_file, write_tensors};
pub use checkpoint::tensors::{
    Tensors, initial_tensors, is_decision_tensor, is_random_features, tensor_shapes,
};
pub use config::{ModelConfig, Normalization, PosEmbed};
pub use cost_table::paper_cost_table;
pub use error::{Error, Result};
pub use positions::resample_pos_embed;
pub use prepared::{PreparedTransformer, Strategy, Workspace};
pub use preprocessing::{CropMode, Interpolation, Picture, Preprocessing};
pub use presets::PRESETS;
pub use reduction::{ReductionMethod, TokenReduction};
pub use stem::Stem;
pub use stem::conv_stem::ConvStemConfig;
pub use stem::tokens_to_token::{T2tConfig, TokensType};
pub use verify::{Comparison, Recording, Replay, Verification, verify};
pub use output::{Capture, Output};
pub use vit::VisionTransformer;
