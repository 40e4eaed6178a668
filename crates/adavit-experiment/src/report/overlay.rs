//! Which patches each block keeps, drawn over the picture.
//!
//! The picture comes first, then a panel for each block, row by row, each under its number. A dropped
//! patch is pale. The boxes below a panel say what ran: `attn` is blue where attention did, `MLP` is
//! orange where the MLP did, and both are grey where they were skipped.

use adavit_decision::BlockKept;
use image::{ImageFormat, Rgb, RgbImage};

use crate::error::{Error, Result};
use crate::report::glyphs::{self, ADVANCE, HEIGHT, Pen};

/// The least side of a panel, in pixels.
const SIDE: usize = 112;
/// Between panels, in pixels.
const GAP: u32 = 8;
/// Pixels for each dot of a letter.
const SCALE: u32 = 2;
/// Height of a line of text, in pixels.
const LINE: u32 = HEIGHT * SCALE + 6;

const BACKGROUND: Rgb<u8> = Rgb([40, 40, 40]);
const TEXT: Rgb<u8> = Rgb([240, 240, 240]);
/// Blue and orange of Okabe and Ito's palette, which colour-blind people tell apart.
const ATTENTION: Ran = Ran {
    name: "attn",
    colour: Rgb([0, 114, 178]),
    text: Rgb([255; 3]),
};
const MLP: Ran = Ran {
    name: "MLP",
    colour: Rgb([230, 159, 0]),
    text: Rgb([0; 3]),
};
const SKIPPED: Rgb<u8> = Rgb([86, 86, 86]);
const SKIPPED_TEXT: Rgb<u8> = Rgb([170, 170, 170]);

/// How a page explains the colours of the boxes.
pub(super) const KEY: [(&str, &str); 3] = [
    ("#0072b2", "attention ran"),
    ("#e69f00", "MLP ran"),
    ("#565656", "skipped"),
];

/// A picture as a model takes it, and what each block uses of it.
#[derive(Debug, Clone, Copy)]
pub struct Overlay<'a> {
    /// `(channels, height, width)`, 1 or 3 channels.
    pub pixels: &'a [u8],
    /// Height and width.
    pub size: (usize, usize),
    /// Patches in each direction, rows then columns.
    pub grid: (usize, usize),
    /// Tokens in front of the patches.
    pub num_prefix_tokens: usize,
    /// What ran, block by block.
    pub blocks: &'a [BlockKept],
    /// Which tokens are kept, block by block.
    pub kept: &'a [Vec<bool>],
    /// Lines of text above the panels, as of the prediction.
    pub caption: &'a [String],
}

/// One of the two halves of a block, as its box shows it.
#[derive(Debug, Clone, Copy)]
struct Ran {
    name: &'static str,
    colour: Rgb<u8>,
    text: Rgb<u8>,
}

/// A part of a picture, in pixels.
#[derive(Debug, Clone, Copy)]
struct Area {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

/// Draws the picture and what each block uses of it.
pub fn draw_overlay(overlay: &Overlay) -> RgbImage {
    let factor = overlay.factor();
    let (height, width) = overlay.size;
    let (width, height) = (width as u32 * factor, height as u32 * factor);
    let panels = overlay.blocks.len() as u32 + 1;
    let columns = f64::from(panels).sqrt().ceil() as u32;
    let step_x = width + GAP;
    let step_y = LINE + height + LINE + GAP;
    let total = columns * step_x + GAP;
    let caption = wrapped(
        overlay.caption,
        ((total - 2 * GAP) / (ADVANCE * SCALE)) as usize,
    );
    let top = GAP + caption.len() as u32 * LINE;
    let rows = panels.div_ceil(columns);
    let mut image = RgbImage::from_pixel(total, top + rows * step_y, BACKGROUND);
    for (row, line) in (0u32..).zip(&caption) {
        glyphs::write(&mut image, pen(GAP, GAP + row * LINE, TEXT), line);
    }
    for panel in 0..panels {
        let area = Area {
            left: GAP + panel % columns * step_x,
            top: top + panel / columns * step_y,
            width,
            height,
        };
        match panel.checked_sub(1) {
            None => overlay.panel(&mut image, area, None),
            Some(block) => overlay.panel(&mut image, area, Some(block as usize)),
        }
    }
    image
}

/// The picture alone, as it is.
pub(super) fn draw_picture(overlay: &Overlay) -> RgbImage {
    let (height, width) = overlay.size;
    RgbImage::from_fn(width as u32, height as u32, |x, y| {
        overlay.pixel((y as usize, x as usize))
    })
}

fn pen(left: u32, top: u32, colour: Rgb<u8>) -> Pen {
    Pen {
        left,
        top,
        scale: SCALE,
        colour,
    }
}

/// Lines of at most `letters` letters, divided between words.
fn wrapped(lines: &[String], letters: usize) -> Vec<String> {
    let mut all = Vec::new();
    for line in lines {
        let mut current = String::new();
        for word in line.split(' ') {
            let longer = current.chars().count() + 1 + word.chars().count();
            if !current.is_empty() && longer > letters {
                all.push(std::mem::take(&mut current));
            }
            if !current.is_empty() {
                current.push(' ');
            }
            current.push_str(word);
        }
        all.push(current);
    }
    all
}

impl Overlay<'_> {
    /// By how much the picture is enlarged.
    fn factor(&self) -> u32 {
        let (height, width) = self.size;
        SIDE.div_ceil(height.min(width)).max(1) as u32
    }

    /// Draws the picture, or what a block uses of it; `area` is the picture's, below its line of text.
    fn panel(&self, image: &mut RgbImage, area: Area, block: Option<usize>) {
        let title = block.map_or_else(
            || "image".to_string(),
            |block| format!("block {}", block + 1),
        );
        glyphs::write(image, pen(area.left, area.top, TEXT), &title);
        let area = Area {
            top: area.top + LINE,
            ..area
        };
        let factor = self.factor();
        for (y, x) in places(area) {
            let place = ((y / factor) as usize, (x / factor) as usize);
            let mut pixel = self.pixel(place);
            if block.is_some_and(|block| !self.keeps(place, &self.kept[block])) {
                pixel = pale(pixel);
            }
            image.put_pixel(area.left + x, area.top + y, pixel);
        }
        let Some(used) = block.map(|block| self.blocks[block]) else {
            return;
        };
        let half = Area {
            top: area.top + area.height,
            width: area.width / 2,
            height: LINE,
            ..area
        };
        let right = Area {
            left: half.left + half.width,
            width: area.width - half.width,
            ..half
        };
        draw_box(image, half, ATTENTION, used.attention);
        draw_box(image, right, MLP, used.mlp);
    }

    fn pixel(&self, (y, x): (usize, usize)) -> Rgb<u8> {
        let (height, width) = self.size;
        let plane = height * width;
        let at = y * width + x;
        if self.pixels.len() >= 3 * plane {
            Rgb([0, 1, 2].map(|channel| self.pixels[channel * plane + at]))
        } else {
            Rgb([self.pixels[at]; 3])
        }
    }

    /// Whether the patch at a pixel is kept.
    fn keeps(&self, (y, x): (usize, usize), kept: &[bool]) -> bool {
        let (rows, columns) = self.grid;
        let (row, column) = (y * rows / self.size.0, x * columns / self.size.1);
        kept[self.num_prefix_tokens + row * columns + column]
    }
}

/// Every row and column of an area.
fn places(area: Area) -> impl Iterator<Item = (u32, u32)> {
    (0..area.height).flat_map(move |y| (0..area.width).map(move |x| (y, x)))
}

fn draw_box(image: &mut RgbImage, area: Area, what: Ran, ran: bool) {
    let (colour, text) = if ran {
        (what.colour, what.text)
    } else {
        (SKIPPED, SKIPPED_TEXT)
    };
    for (y, x) in places(area) {
        image.put_pixel(area.left + x, area.top + y, colour);
    }
    let free = area.width.saturating_sub(glyphs::width(what.name, SCALE));
    glyphs::write(
        image,
        pen(area.left + free / 2, area.top + 3, text),
        what.name,
    );
}

fn pale(pixel: Rgb<u8>) -> Rgb<u8> {
    Rgb(pixel.0.map(|x| (u16::from(x) / 5 + 176) as u8))
}

/// Pictures in one row under a title.
pub(super) fn row_of_pictures(title: &str, pictures: &[RgbImage]) -> RgbImage {
    let width = pictures.iter().map(RgbImage::width).sum();
    let height = pictures.iter().map(RgbImage::height).max().unwrap_or(0);
    let mut all = RgbImage::from_pixel(width, GAP + LINE + height, BACKGROUND);
    glyphs::write(&mut all, pen(GAP, GAP, TEXT), title);
    let mut left = 0;
    for picture in pictures {
        image::imageops::replace(&mut all, picture, left, i64::from(GAP + LINE));
        left += i64::from(picture.width());
    }
    all
}

/// A PNG file.
pub(super) fn png(picture: &RgbImage) -> Result<Vec<u8>> {
    let mut png = std::io::Cursor::new(Vec::new());
    picture
        .write_to(&mut png, ImageFormat::Png)
        .map_err(|error| Error::Drawing {
            what: "an image",
            message: error.to_string(),
        })?;
    Ok(png.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(caption: &[String]) -> RgbImage {
        let used = BlockKept {
            patches: 1,
            heads: 1,
            attention: true,
            mlp: false,
        };
        draw_overlay(&Overlay {
            pixels: &[0; 16],
            size: (4, 4),
            grid: (2, 2),
            num_prefix_tokens: 1,
            blocks: &[used],
            kept: &[vec![true, true, false, false, false]],
            caption,
        })
    }

    #[test]
    fn dropped_patches_are_pale_and_boxes_say_what_ran() {
        let image = drawn(&[]);
        // Two panels of 28 times 4 pixels side by side.
        assert_eq!(image.dimensions(), (2 * 120 + 8, 8 + 20 + 112 + 20 + 8));
        let (first, second, top) = (GAP, GAP + 112 + GAP, GAP + LINE);
        assert_eq!(image.get_pixel(first, top), &Rgb([0; 3]));
        assert_eq!(image.get_pixel(second, top), &Rgb([0; 3]));
        assert_eq!(image.get_pixel(second + 60, top), &Rgb([176; 3]));
        assert_eq!(image.get_pixel(second, top + 112), &ATTENTION.colour);
        assert_eq!(image.get_pixel(second + 111, top + 112), &SKIPPED);
    }

    #[test]
    fn panels_have_names_and_the_caption_has_room() {
        let named = |image: &RgbImage, top: u32, left: u32| {
            let area = (left..left + 84).flat_map(|x| (top..top + 14).map(move |y| (x, y)));
            area.filter(|(x, y)| *image.get_pixel(*x, *y) == TEXT)
                .count()
                > 100
        };
        let bare = drawn(&[]);
        assert!(named(&bare, GAP, GAP) && named(&bare, GAP, GAP + 112 + GAP));
        let lines = ["label coat".to_string(), "predicted a shirt 0.71".into()];
        let captioned = drawn(&lines);
        // The second line is wider than two panels.
        assert_eq!(captioned.height(), bare.height() + 3 * LINE);
        assert!(named(&captioned, GAP, GAP));
    }
}
