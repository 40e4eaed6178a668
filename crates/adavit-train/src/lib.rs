#![doc = include_str!("../README.md")]

mod budget;
mod calibration;
mod classes;
mod config;
pub mod data;
mod device;
mod ema;
mod environment;
mod error;
mod evaluate;
mod event;
mod folder;
mod losses;
mod memory;
mod optim;
mod parameters;
mod predict;
mod progress;
mod realised;
pub mod report;
mod rng;
mod run;
mod schedule;
mod session;
mod snapshot;
mod stage;
mod summary;
pub mod sweep;
mod teacher;
mod tensorboard;
mod throughput;

pub use calibration::{calibrate, calibrate_best, off_budget};
pub use classes::ClassTable;
pub use config::{
    Distillation, Gates, Method, ModelOptions, StageConfig, Targets, TrainConfig, UsageWeights,
};
pub use device::select as select_device;
pub use ema::Ema;
pub use environment::{Machine, Start};
pub use error::{Error, Result};
pub use evaluate::{
    Evaluation, ImageReport, Images, Mode, OnImage, check_images, evaluate, evaluate_each,
    evaluate_sparse,
};
pub use event::{Control, Event, Outcome, StepReport};
pub use folder::next_run_folder;
pub use memory::peak_rss_bytes;
pub use optim::{AdamW, AdamWConfig, StepStats};
pub use parameters::{Group, Parameters};
pub use predict::{Found, Predicted, Prediction, Predictions, Predictor};
pub use progress::{MetricsRow, Stage};
pub use realised::{Adaptive, Keep, Realised};
pub use run::{resume, run_config, run_config_of, train};
pub use schedule::{LrSchedule, Ramp};
pub use summary::{AdaptiveSummary, DenseSummary, RandomSummary, Summary, UsageSummary};
pub use throughput::{Throughput, Workload};
