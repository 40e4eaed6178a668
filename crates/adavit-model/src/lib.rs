#![doc = include_str!("../README.md")]

mod allowed;
mod block;
mod budget_curve;
mod checkpoint;
mod config;
mod cost_table;
mod dropout;
mod error;
mod layers;
mod output;
mod positions;
mod predict;
mod prepared;
mod presets;
mod reduction;
mod stem;
mod trained_on;
mod verify;
mod vit;

pub use budget_curve::{BudgetCurve, CurvePoint};
pub use checkpoint::native::Checkpoint;
pub use config::ModelConfig;
pub use prepared::{PreparedTransformer, Workspace};
pub use vit::{VisionTransformer, WithDropout};

pub use config::PosEmbed;
pub use dropout::{Dropout, DropoutRates};
pub use error::{Error, Result};
pub use output::{Capture, Output};
pub use predict::{ClassProbability, Prediction, PredictionOutcome, Predictor};
pub use prepared::block::Strategy;
pub use presets::PRESETS;
pub use stem::Stem;
pub use stem::conv_stem::ConvStemConfig;
pub use stem::tokens_to_token::{T2tConfig, TokensType};

pub use checkpoint::file::safetensors::read_tensors;
pub use checkpoint::file::write::{check_writable, write_file, write_tensors};
pub use checkpoint::import::imported::{ImportOptions, Imported, Origin};
pub use checkpoint::import::read::{import, import_as, inspect};
pub use checkpoint::tensors::{
    Tensors, initial_tensors, is_allocator_tensor, is_budget_tensor, is_decision_tensor,
    is_random_features, tensor_shapes,
};
pub use cost_table::paper_cost_table;
pub use positions::resample_pos_embed;
pub use reduction::{ReductionMethod, TokenReduction};
pub use trained_on::TrainedOn;
pub use verify::compare::TensorComparison;
pub use verify::recording::Recording;
pub use verify::replay::Replay;
pub use verify::{Verification, verify};
