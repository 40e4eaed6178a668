//! A sheet of small pictures, a row for each class.

use adavit_data::Picture;
use image::{Rgb, RgbImage, imageops};

use crate::report::glyphs::{self, HEIGHT, Pen};

/// Side of a picture on the sheet, in pixels.
const SIDE: u32 = 72;
const GAP: u32 = 6;
/// Pixels for each dot of a letter.
const SCALE: u32 = 2;
const LINE: u32 = HEIGHT * SCALE + 2 * GAP;

const BACKGROUND: Rgb<u8> = Rgb([250, 250, 250]);
const TEXT: Rgb<u8> = Rgb([30, 30, 30]);

/// Pictures in a row, under a title.
#[derive(Debug, Clone)]
pub struct SheetRow {
    /// Above the pictures.
    pub title: String,
    /// Of any size and of 1 or 3 channels.
    pub pictures: Vec<Picture>,
}

/// Draws rows of pictures; each keeps its proportions.
pub fn draw_contact_sheet(rows: &[SheetRow]) -> RgbImage {
    let columns = rows.iter().map(|row| row.pictures.len() as u32);
    let columns = columns.max().unwrap_or(0).max(4);
    let width = GAP + columns * (SIDE + GAP);
    let height = GAP + rows.len() as u32 * (LINE + SIDE + GAP);
    let mut sheet = RgbImage::from_pixel(width, height, BACKGROUND);
    for (number, row) in rows.iter().enumerate() {
        let top = GAP + number as u32 * (LINE + SIDE + GAP);
        let pen = Pen {
            left: GAP,
            top: top + GAP / 2,
            scale: SCALE,
            colour: TEXT,
        };
        glyphs::write(&mut sheet, pen, &row.title);
        for (place, picture) in row.pictures.iter().enumerate() {
            let small = small(picture);
            let left = GAP + place as u32 * (SIDE + GAP) + (SIDE - small.width()) / 2;
            let down = top + LINE + (SIDE - small.height()) / 2;
            imageops::replace(&mut sheet, &small, i64::from(left), i64::from(down));
        }
    }
    sheet
}

/// The picture within a square of the sheet.
fn small(picture: &Picture) -> RgbImage {
    let (height, width) = picture.size();
    let bytes = match picture.channels() {
        1 => picture.bytes().iter().flat_map(|x| [*x; 3]).collect(),
        _ => picture.bytes().to_vec(),
    };
    let Some(image) = RgbImage::from_raw(width as u32, height as u32, bytes) else {
        return RgbImage::new(1, 1);
    };
    let scale = f64::from(SIDE) / height.max(width) as f64;
    let side = |side: usize| ((side as f64 * scale).round() as u32).clamp(1, SIDE);
    imageops::resize(
        &image,
        side(width),
        side(height),
        imageops::FilterType::Triangle,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_picture_is_on_the_sheet_in_its_proportions() {
        let wide = Picture::new(1, (10, 20), vec![0; 200]).unwrap();
        let red = Picture::new(3, (5, 5), [255, 0, 0].repeat(25)).unwrap();
        let row = |title: &str, picture: &Picture| SheetRow {
            title: title.into(),
            pictures: vec![picture.clone(); 5],
        };
        let sheet = draw_contact_sheet(&[row("wide", &wide), row("red", &red)]);
        let count = |colour: [u8; 3]| sheet.pixels().filter(|pixel| pixel.0 == colour).count();
        assert_eq!(count([0, 0, 0]), 5 * 72 * 36);
        assert_eq!(count([255, 0, 0]), 5 * 72 * 72);
        assert!(count(TEXT.0) > 0);
    }
}
