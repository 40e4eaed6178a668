#![doc = include_str!("../README.md")]

mod config;
mod error;
mod eval;
mod optim;
mod ranges;
mod run;

// Main types: settings, runs, evaluation.
pub use config::train_config::TrainConfig;
pub use eval::evaluate::{
    Evaluator, Turns, evaluate, evaluate_in_turns, evaluate_prepared, in_turns,
};
pub use eval::evaluation::{Evaluation, ImageReport, median};
pub use eval::images::{Images, check_images};
pub use eval::mode::{Mode, RandomDraw, drawn_policy};
pub use run::destination::Destination;
pub use run::driver::{resume, run_config, run_config_of, train, train_through};
pub use run::event::{Control, Event, Outcome, StepReport};
pub use run::extend::extend;
pub use run::folder::{REPORT, RunFolder, claim_checkpoint};
pub use run::images::{ImageSource, RunImages, TestedImages, open_images, open_parts, open_tested};
pub use run::lock::FolderLock;
pub use run::places::load_data;
pub use run::summary::{AdaptiveSummary, DenseSummary, RandomSummary, Summary, UsageSummary};

// Parts of the settings.
pub use config::class_weights::ClassWeights;
pub use config::distillation::Distillation;
pub use config::elastic::Elastic;
pub use config::fine_tune::FineTune;
pub use config::gates::Gates;
pub use config::method::Method;
pub use config::model::ModelOptions;
pub use config::stage_config::StageConfig;
pub use config::tables::{merge, without_places};
pub use config::usage_weights::{Targets, UsageWeights};

// Parts of a training loop.
pub use optim::adamw::{AdamW, AdamWConfig, StepStats};
pub use optim::ema::Ema;
pub use optim::parameters::{Group, Parameters};
pub use optim::schedule::{LrSchedule, Ramp};
pub use run::session::Session;
pub use run::trainable::trainable;

// What a run records, and what follows from it.
pub use error::{Error, Result};
pub use eval::allocation::fit::{Allocated, fit_allocator};
pub use eval::allocation::report::{AllocatorReport, KnotReport, PointReport};
pub use eval::calibration::{calibrate, calibrate_best, off_budget};
pub use eval::classes::{ClassTable, Confused};
pub use run::environment::{Machine, Start};
pub use run::progress::{MetricsRow, Stage};
pub use run::trained_on::trained_on;
