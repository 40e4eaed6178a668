#![doc = include_str!("../README.md")]

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
mod predict;
mod prepared;
mod presets;
mod reduction;
mod tokens_to_token;
mod trained_on;
mod verify;
mod vit;
mod weights;

pub use checkpoint::{Checkpoint, read_tensors, write_file, write_tensors};
pub use config::{ModelConfig, PosEmbed};
pub use conv_stem::ConvStemConfig;
pub use cost_table::paper_cost_table;
pub use error::{Error, Result};
pub use import::{ImportOptions, Imported, Source, import, import_as, inspect};
pub use positions::resample_pos_embed;
pub use predict::{ClassProbability, Prediction, PredictionOutcome, Predictor};
pub use prepared::{PreparedTransformer, Strategy, Workspace};
pub use presets::PRESETS;
pub use reduction::{ReductionMethod, TokenReduction};
pub use tokens_to_token::{T2tConfig, TokensType};
pub use trained_on::TrainedOn;
pub use verify::{Comparison, Recording, Replay, Verification, verify};
pub use vit::{Capture, Output, VisionTransformer};
pub use weights::{
    Tensors, initial_tensors, is_decision_tensor, is_random_features, tensor_shapes,
};
