//! Builds one scene from a generator.
//!
//! Draws are made in this order: how many garments; the other classes; the order of all; which garments;
//! sizes and places, until they fit; the clutter. Frozen scenes depend on it.

use rand::RngCore;

use crate::picture::Window;
use crate::rng::{below, shuffle};
use crate::scenes::garment::{Garment, resized_to};
use crate::scenes::garments::{Garments, Seen};
use crate::scenes::layout::places;
use crate::scenes::protocol::{
    CANVAS, CLASSES, COUNTS, GARMENT_SIDE, PIECE_SIDE, PIECES, SIZES, VISIBLE,
};
use crate::scenes::truth::{GarmentBox, SceneTruth};

/// A scene and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scene {
    /// `(CANVAS, CANVAS)`.
    pub(super) pixels: Vec<u8>,
    pub(super) truth: SceneTruth,
}

/// A garment that was drawn for a scene.
#[derive(Debug, Clone, Copy)]
struct Chosen<'a> {
    class: usize,
    seen: Seen<'a>,
}

impl Scene {
    /// Draws a scene whose label is `class`.
    pub(super) fn draw(garments: &Garments, class: usize, rng: &mut impl RngCore) -> Self {
        let chosen = chosen(garments, class, rng);
        let windows = arranged(&chosen, rng);
        let mut pixels = vec![0; CANVAS * CANVAS];
        for _ in 0..PIECES {
            add_piece(garments, &mut pixels, rng);
        }
        let boxes = chosen.iter().zip(windows).map(|(chosen, window)| {
            let size = (window.height, window.width);
            let garment = Garment::resized(chosen.seen.picture, chosen.seen.window, size);
            GarmentBox {
                class: chosen.class as u32,
                area: cover(&mut pixels, &garment, window),
                window,
            }
        });
        let truth = SceneTruth::new(boxes.collect());
        Self { pixels, truth }
    }
}

fn draw_below(rng: &mut impl RngCore, n: usize) -> usize {
    below(rng, n as u64) as usize
}

/// Draws the garments: more than half of `class`, each other one of a further class.
fn chosen<'a>(garments: &'a Garments, class: usize, rng: &mut impl RngCore) -> Vec<Chosen<'a>> {
    let count = COUNTS[draw_below(rng, COUNTS.len())];
    let others = count / 2;
    let mut classes = vec![class; count - others];
    let mut further: Vec<usize> = (0..CLASSES).filter(|other| *other != class).collect();
    for _ in 0..others {
        classes.push(further.remove(draw_below(rng, further.len())));
    }
    shuffle(&mut classes, rng);
    let garment = |class| Chosen {
        class,
        seen: garments.of_class(class, draw_below(rng, garments.len_of(class))),
    };
    classes.into_iter().map(garment).collect()
}

/// Draws sizes and places. Where they do not fit, they are drawn again, and the largest size is one less,
/// so that this ends soon for garments of any form.
fn arranged(chosen: &[Chosen], rng: &mut impl RngCore) -> Vec<Window> {
    let (smallest, mut largest) = (*SIZES.start(), *SIZES.end());
    loop {
        let sizes = chosen.iter().map(|one| {
            let size = smallest + draw_below(rng, largest - smallest + 1);
            resized_to(one.seen.window, size)
        });
        let sizes: Vec<(usize, usize)> = sizes.collect();
        if let Some(windows) = places(&sizes, rng) {
            return windows;
        }
        largest = smallest.max(largest - 1);
    }
}

/// Adds a piece of a random garment to the canvas, clipped to 255.
fn add_piece(garments: &Garments, pixels: &mut [u8], rng: &mut impl RngCore) {
    let picture = garments.picture(draw_below(rng, garments.len()));
    let from_top = draw_below(rng, GARMENT_SIDE - PIECE_SIDE + 1);
    let from_left = draw_below(rng, GARMENT_SIDE - PIECE_SIDE + 1);
    let top = draw_below(rng, CANVAS - PIECE_SIDE + 1);
    let left = draw_below(rng, CANVAS - PIECE_SIDE + 1);
    for row in 0..PIECE_SIDE {
        let from = &picture[(from_top + row) * GARMENT_SIDE + from_left..][..PIECE_SIDE];
        let to = &mut pixels[(top + row) * CANVAS + left..][..PIECE_SIDE];
        for (to, from) in to.iter_mut().zip(from) {
            *to = to.saturating_add(*from);
        }
    }
}

/// Puts a garment over what is there, and returns how many pixels it covers.
fn cover(pixels: &mut [u8], garment: &Garment, window: Window) -> usize {
    let mut area = 0;
    for (row, from) in garment.pixels.chunks_exact(garment.width).enumerate() {
        let to = &mut pixels[(window.top + row) * CANVAS + window.left..][..garment.width];
        for (to, from) in to.iter_mut().zip(from) {
            if *from >= VISIBLE {
                *to = *from;
                area += 1;
            }
        }
    }
    area
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::dataset::Dataset;
    use crate::rng::{Stream, rng};

    /// A garment of each class, whose pixels all have the value 20 + class.
    fn plain_garments() -> Garments {
        let names = (0..CLASSES).map(|class| class.to_string()).collect();
        let labels: Vec<u8> = (0..CLASSES as u8).collect();
        let images = labels.iter().flat_map(|label| [20 + label; 784]).collect();
        let set = Dataset::new("plain", [1, 28, 28], images, labels, names).unwrap();
        Garments::new(Arc::new(set), (0..CLASSES as u32).collect()).unwrap()
    }

    #[test]
    fn garments_that_fill_their_picture_still_find_places() {
        let garments = plain_garments();
        for sample in 0..200 {
            let scene = Scene::draw(&garments, 3, &mut rng(0, Stream::Scene, 0, sample));
            for garment in scene.truth.boxes() {
                let Window { height, width, .. } = garment.window;
                assert!(height == width && SIZES.contains(&height), "{garment:?}");
                assert_eq!(garment.area, height * width);
            }
        }
    }

    #[test]
    fn a_garment_covers_the_clutter_and_clutter_is_everywhere_else() {
        let garments = plain_garments();
        let mut clutter = 0;
        for sample in 0..50 {
            let scene = Scene::draw(&garments, 7, &mut rng(0, Stream::Scene, 0, sample));
            let mut left = scene.pixels.clone();
            for garment in scene.truth.boxes() {
                for row in garment.window.top..garment.window.top + garment.window.height {
                    let row =
                        &mut left[row * CANVAS + garment.window.left..][..garment.window.width];
                    let value = 20 + garment.class as u8;
                    assert!(row.iter().all(|pixel| *pixel == value), "{garment:?}");
                    row.fill(0);
                }
            }
            clutter += left.iter().filter(|pixel| **pixel > 0).count();
        }
        // Eight pieces of 64 pixels, of which garments and other pieces cover some.
        assert!((50 * 250..50 * 512).contains(&clutter), "{clutter}");
    }

    #[test]
    fn pixels_below_visible_let_the_clutter_through() {
        let garment = Garment {
            height: 1,
            width: 3,
            pixels: vec![VISIBLE - 1, VISIBLE, 255],
        };
        let mut pixels = vec![7; CANVAS * CANVAS];
        let window = Window {
            top: 2,
            left: 4,
            height: 1,
            width: 3,
        };
        assert_eq!(cover(&mut pixels, &garment, window), 2);
        assert_eq!(pixels[2 * CANVAS + 4..][..3], [7, VISIBLE, 255]);
        assert_eq!(pixels.iter().filter(|pixel| **pixel != 7).count(), 2);
    }
}
