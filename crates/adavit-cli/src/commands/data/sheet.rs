//! The sheet of pictures.

use std::path::Path;

use adavit_data::{Found, PictureSet};
use adavit_experiment::report::{SheetRow, draw_contact_sheet};
use adavit_model::write_file;
use anyhow::{Context, Result};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};

/// Classes that are drawn: the first ones.
const CLASSES: usize = 20;
/// Pictures of each class.
const PICTURES: usize = 8;

/// Writes a PNG with the first pictures of each class of the first part.
pub(super) fn write_sheet(path: &Path, found: &Found) -> Result<()> {
    let rows: Vec<SheetRow> = found.parts().next().map_or_else(Vec::new, rows);
    let mut png = Vec::new();
    // A sheet is written once, and often kept in documents.
    let encoder =
        PngEncoder::new_with_quality(&mut png, CompressionType::Best, FilterType::Adaptive);
    draw_contact_sheet(&rows)
        .write_with_encoder(encoder)
        .with_context(|| format!("drawing {}", path.display()))?;
    Ok(write_file(path, &png)?)
}

fn rows(set: &PictureSet) -> Vec<SheetRow> {
    let mut rows: Vec<SheetRow> = set
        .class_names()
        .iter()
        .take(CLASSES)
        .map(|name| SheetRow {
            title: name.clone(),
            pictures: Vec::new(),
        })
        .collect();
    for (i, &label) in set.labels().iter().enumerate() {
        let Some(row) = rows.get_mut(label as usize) else {
            continue;
        };
        if row.pictures.len() < PICTURES {
            // Broken ones are in the report.
            row.pictures.extend(set.picture(i, 3));
        }
    }
    rows
}
