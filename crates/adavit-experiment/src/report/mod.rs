//! `report.html`: the results of a run in one file that needs no network.

mod adaptive;
mod analysis;
mod calibration;
mod chart;
mod compute;
mod contact_sheet;
pub(crate) mod efficiency;
mod gallery;
mod glyphs;
mod html;
mod markup;
mod overlay;
mod overview;
mod run_report;
mod settings;
mod statistics;
mod training;

pub use analysis::{Analysis, ClassCompute, write_analysis};
pub use contact_sheet::{SheetRow, draw_contact_sheet};
pub use efficiency::{CurvePoint, efficiency_chart};
pub use overlay::{Overlay, draw_overlay};
pub use run_report::write_report;
