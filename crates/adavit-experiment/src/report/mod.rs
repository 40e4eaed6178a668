//! `report.html`: the results of a run in one file that needs no network.

mod adaptive;
mod analysis;
mod charts;
pub(crate) mod efficiency;
mod html;
mod overlay;
mod run_report;
mod statistics;
mod training;

pub use analysis::{Analysis, ClassCompute, write_analysis};
pub use efficiency::{CurvePoint, efficiency_chart};
pub use overlay::{Drawn, draw_kept};
pub use run_report::write_report;
