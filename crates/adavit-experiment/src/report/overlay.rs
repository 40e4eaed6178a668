//! Which patches each block keeps, drawn over the picture.
//!
//! The picture comes first, then a panel for each block, row by row. A dropped patch is pale; the bar
//! below a panel is blue where attention ran and orange where the MLP did.

use adavit_decision::BlockKept;
use image::{ImageFormat, Rgb, RgbImage};

use crate::error::{Error, Result};

/// The least side of a panel, in pixels.
const SIDE: usize = 112;
/// Between panels, in pixels.
const GAP: u32 = 6;
/// Height of the bar below a panel, in pixels.
const BAR: u32 = 6;

const BACKGROUND: Rgb<u8> = Rgb([128, 128, 128]);
/// Blue and orange of Okabe and Ito's palette, which colour-blind people tell apart.
const ATTENTION: Rgb<u8> = Rgb([0, 114, 178]);
const MLP: Rgb<u8> = Rgb([230, 159, 0]);
const OFF: Rgb<u8> = Rgb([170, 170, 170]);

/// A picture as a model takes it, and its grid of patches.
#[derive(Debug, Clone, Copy)]
pub struct Drawn<'a> {
    /// `(channels, height, width)`, 1 or 3 channels.
    pub pixels: &'a [u8],
    /// Height and width.
    pub size: (usize, usize),
    /// Patches in each direction, rows then columns.
    pub grid: (usize, usize),
    /// Tokens in front of the patches.
    pub num_prefix_tokens: usize,
}

/// Draws the picture and what each block uses of it: kept tokens, and what ran.
pub fn draw_kept(drawn: &Drawn, blocks: &[BlockKept], kept: &[Vec<bool>]) -> RgbImage {
    let (height, width) = drawn.size;
    let factor = SIDE.div_ceil(height.min(width)).max(1) as u32;
    let (panel_width, panel_height) = (width as u32 * factor, height as u32 * factor);
    let panels = blocks.len() as u32 + 1;
    let columns = f64::from(panels).sqrt().ceil() as u32;
    let rows = panels.div_ceil(columns);
    let (step_x, step_y) = (panel_width + GAP, panel_height + BAR + GAP);
    let size = (columns * step_x + GAP, rows * step_y + GAP);
    let mut image = RgbImage::from_pixel(size.0, size.1, BACKGROUND);
    let corner = |panel: u32| {
        let (row, column) = (panel / columns, panel % columns);
        (GAP + column * step_x, GAP + row * step_y)
    };
    for panel in 0..panels {
        let (left, top) = corner(panel);
        let block = panel.checked_sub(1).map(|block| block as usize);
        for (y, x) in (0..panel_height).flat_map(|y| (0..panel_width).map(move |x| (y, x))) {
            let place = ((y / factor) as usize, (x / factor) as usize);
            let mut pixel = drawn.pixel(place);
            if block.is_some_and(|block| !drawn.keeps(place, &kept[block])) {
                pixel = pale(pixel);
            }
            image.put_pixel(left + x, top + y, pixel);
        }
        let Some(block) = block else {
            continue;
        };
        let used = blocks[block];
        let middle = panel_width / 2;
        for (from, to, colour) in [
            (0, middle, if used.attention { ATTENTION } else { OFF }),
            (middle, panel_width, if used.mlp { MLP } else { OFF }),
        ] {
            for (y, x) in (0..BAR).flat_map(|y| (from..to).map(move |x| (y, x))) {
                image.put_pixel(left + x, top + panel_height + y, colour);
            }
        }
    }
    image
}

impl Drawn<'_> {
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

fn pale(pixel: Rgb<u8>) -> Rgb<u8> {
    Rgb(pixel.0.map(|x| (u16::from(x) / 5 + 176) as u8))
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

    #[test]
    fn dropped_patches_are_pale_and_bars_tell_what_ran() {
        let drawn = Drawn {
            pixels: &[0; 16],
            size: (4, 4),
            grid: (2, 2),
            num_prefix_tokens: 1,
        };
        let used = BlockKept {
            patches: 1,
            heads: 1,
            attention: true,
            mlp: false,
        };
        let kept = vec![vec![true, true, false, false, false]];
        let image = draw_kept(&drawn, &[used], &kept);
        // Two panels of 28 times 4 pixels side by side.
        assert_eq!(image.dimensions(), (2 * 118 + 6, 112 + 6 + 12));
        assert_eq!(image.get_pixel(GAP, GAP), &Rgb([0; 3]));
        let second = GAP + 112 + GAP;
        assert_eq!(image.get_pixel(second, GAP), &Rgb([0; 3]));
        assert_eq!(image.get_pixel(second + 60, GAP), &Rgb([176; 3]));
        assert_eq!(image.get_pixel(second, GAP + 112), &ATTENTION);
        assert_eq!(image.get_pixel(second + 111, GAP + 112), &OFF);
    }
}
