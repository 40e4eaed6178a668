//! Places of rectangles that do not overlap.

use rand::RngCore;

use crate::picture::Window;
use crate::rng::below;
use crate::scenes::protocol::{CANVAS, TRIES};

/// Draws a place for each size, height and width, so that none overlaps those before it; `None` if
/// [`TRIES`] draws find no place for one.
pub(super) fn places(sizes: &[(usize, usize)], rng: &mut impl RngCore) -> Option<Vec<Window>> {
    let mut placed: Vec<Window> = Vec::with_capacity(sizes.len());
    for &(height, width) in sizes {
        let mut draw = || Window {
            top: below(rng, (CANVAS - height + 1) as u64) as usize,
            left: below(rng, (CANVAS - width + 1) as u64) as usize,
            height,
            width,
        };
        let free = |window: &Window| !placed.iter().any(|other| overlap(window, other));
        let found = (0..TRIES).map(|_| draw()).find(free)?;
        placed.push(found);
    }
    Some(placed)
}

/// Whether two rectangles have a pixel in common.
fn overlap(a: &Window, b: &Window) -> bool {
    let rows = a.top < b.top + b.height && b.top < a.top + a.height;
    let columns = a.left < b.left + b.width && b.left < a.left + a.width;
    rows && columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Stream, rng};

    fn window(top: usize, left: usize, height: usize, width: usize) -> Window {
        Window {
            top,
            left,
            height,
            width,
        }
    }

    #[test]
    fn rectangles_that_touch_do_not_overlap() {
        let a = window(10, 10, 5, 3);
        for (other, expected) in [
            (window(15, 10, 5, 3), false),
            (window(14, 10, 5, 3), true),
            (window(10, 13, 5, 3), false),
            (window(5, 5, 5, 20), false),
            (window(5, 5, 6, 20), true),
            (window(11, 11, 1, 1), true),
        ] {
            assert_eq!(overlap(&a, &other), expected, "{other:?}");
            assert_eq!(overlap(&other, &a), expected, "{other:?}");
        }
    }

    #[test]
    fn every_place_of_the_canvas_can_be_drawn_and_what_does_not_fit_is_none() {
        let rng = &mut rng(0, Stream::Scene, 0, 0);
        let mut rows = [0; 3];
        for _ in 0..300 {
            let placed = places(&[(CANVAS - 2, CANVAS)], rng).unwrap();
            assert_eq!(placed[0].left, 0);
            rows[placed[0].top] += 1;
        }
        // Five standard deviations of a binomial (300, 1/3).
        assert!(rows.iter().all(|&n: &i32| (n - 100).abs() < 41), "{rows:?}");
        assert_eq!(places(&[(CANVAS, CANVAS), (1, 1)], rng), None);
    }
}
