//! Writes the report of a run.

use std::path::{Path, PathBuf};

use adavit_data::Dataset;
use adavit_model::{Checkpoint, write_file};
use adavit_train::{REPORT, RunFolder};
use candle_core::Device;

use crate::error::Result;
use crate::report::adaptive::AdaptiveResults;
use crate::report::html::Page;
use crate::report::training::{curves, overview, trade_off};

/// Writes the report of the run in a folder, to `out` or as its `report.html`; returns the file.
///
/// The images of `test` go through the adaptive model once more, by the sparse path on `device`.
///
/// # Errors
/// If the folder holds no run, or its data or checkpoint cannot be read.
pub fn write_report(
    run: &Path,
    test: &Dataset,
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
    overview(&mut page, &config, summary.as_ref(), rows.is_empty());
    curves(&mut page, &rows)?;
    if let Some(adaptive) = &adaptive {
        trade_off(&mut page, adaptive, summary.as_ref(), &rows)?;
        adaptive.usage(&mut page);
        adaptive.compute(&mut page, run)?;
        adaptive.confusion(&mut page);
        adaptive.gallery(&mut page)?;
    }
    let path = out.map_or_else(|| run.join(REPORT), Path::to_path_buf);
    write_file(&path, page.finish(&title).as_bytes())?;
    Ok(path)
}
