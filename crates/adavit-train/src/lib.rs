#![doc = include_str!("../README.md")]

mod config;
mod error;
mod eval;
mod optim;
mod run;

pub use config::method::Method;
pub use config::model::ModelOptions;
pub use config::train_config::{
    Distillation, Gates, StageConfig, Targets, TrainConfig, UsageWeights, merge, without_places,
};
pub use error::{Error, Result};
pub use eval::calibration::{calibrate, calibrate_best, off_budget};
pub use eval::classes::ClassTable;
pub use eval::evaluate::{
    Evaluation, ImageReport, Images, Mode, OnImage, check_images, drawn_policy, evaluate,
    evaluate_each, evaluate_sparse,
};
pub use optim::adamw::{AdamW, AdamWConfig, StepStats};
pub use optim::ema::Ema;
pub use optim::parameters::{Group, Parameters};
pub use optim::schedule::{LrSchedule, Ramp};
pub use run::destination::Destination;
pub use run::driver::{resume, run_config, run_config_of, train, train_through};
pub use run::environment::{Machine, Start};
pub use run::event::{Control, Event, Outcome, StepReport};
pub use run::extend::extend;
pub use run::folder::{REPORT, RunFolder, claim_checkpoint};
pub use run::lock::FolderLock;
pub use run::places::load_data;
pub use run::progress::{MetricsRow, Stage};
pub use run::session::Session;
pub use run::stage::trainable;
pub use run::summary::{AdaptiveSummary, DenseSummary, RandomSummary, Summary, UsageSummary};
pub use run::trained_on::trained_on;
