#![doc = include_str!("../README.md")]

mod error;
pub mod measure;
pub mod report;
pub mod sweep;

pub use error::{Error, Result};
