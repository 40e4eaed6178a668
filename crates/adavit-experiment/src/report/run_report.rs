//! Writes the report of a run.

use std::path::{Path, PathBuf};

use adavit_data::Labelled;
use adavit_model::{Checkpoint, write_file};
use adavit_train::{REPORT, RunFolder};
use candle_core::Device;

use crate::error::Result;
use crate::report::adaptive::{AdaptiveResults, drawable};
use crate::report::compute::{compute, confusion, usage};
use crate::report::gallery::{extremes, mistakes};
use crate::report::html::Page;
use crate::report::overview::{overview, trade_off};
use crate::report::settings::settings;
use crate::report::training::{steps_per_epoch, training};

/// Writes the report of the run in a folder, to `out` or as its `report.html`; returns the file.
///
/// The images of `test` go through the adaptive model once more, by the sparse path on `device`.
///
/// # Errors
/// If the folder holds no run, or its data or checkpoint cannot be read.
pub fn write_report(
    run: &Path,
    test: &dyn Labelled,
    out: Option<&Path>,
    device: &Device,
) -> Result<PathBuf> {
    let config = RunFolder::read_config(run)?;
    config.method.expect_learned()?;
    let rows = RunFolder::read_metrics(run)?;
    let summary = RunFolder::read_summary_of(run);
    let best = run.join("best");
    let adaptive = best
        .is_dir()
        .then(|| AdaptiveResults::evaluated(&Checkpoint::load(&best)?, &config, test, device))
        .transpose()?;
    let title = format!(
        "adavit: {}",
        run.file_name().unwrap_or_default().to_string_lossy()
    );
    let mut page = Page::new(&title);
    overview(&mut page, summary.as_ref(), &rows);
    if let Some(adaptive) = &adaptive {
        trade_off(&mut page, adaptive, &config, summary.as_ref(), &rows);
    }
    settings(&mut page, &config, steps_per_epoch(&rows))?;
    training(&mut page, &config, &rows);
    if let Some(adaptive) = &adaptive {
        usage(&mut page, adaptive);
        compute(&mut page, adaptive, run)?;
        confusion(&mut page, adaptive);
        if drawable(adaptive.config()) {
            mistakes(&mut page, adaptive)?;
            extremes(&mut page, adaptive)?;
        }
    }
    let path = out.map_or_else(|| run.join(REPORT), Path::to_path_buf);
    write_file(&path, page.finish(&title).as_bytes())?;
    Ok(path)
}
