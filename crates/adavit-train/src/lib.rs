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
    Evaluator, Turns, evaluate, evaluate_in_turns, evaluate_prepared, in_turns,
};
pub use eval::evaluation::{Evaluation, ImageReport, median};
pub use eval::images::{Images, check_images};
pub use eval::mode::{Mode, RandomDraw, drawn_policy};
pub use optim::adamw::{AdamW, AdamWConfig, StepStats};
pub use optim::ema::Ema;
pub use optim::parameters::{Group, Parameters};
pub use optim::schedule::{LrSchedule, Ramp};
pub use run::driver::{resume, run_config, run_config_of, train, train_through};
pub use run::environment::{Machine, Start};
pub use run::event::{Control, Event, Outcome, StepReport};
pub use run::folder::{REPORT, RunFolder, next_run_folder};
pub use run::progress::{MetricsRow, Stage};
pub use run::session::Session;
pub use run::stage::trainable;
pub use run::summary::{AdaptiveSummary, DenseSummary, RandomSummary, Summary, UsageSummary};
