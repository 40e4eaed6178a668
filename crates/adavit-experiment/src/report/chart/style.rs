//! How series are told apart: by colour, by dashes and by the shape of their marks, so that one that
//! lies on another stays visible, also without colours.

use crate::report::chart::canvas::{Canvas, Place};

/// Colours that colour-blind people tell apart, after Okabe and Ito, each with a contrast of 3 or more
/// on white and on the dark page.
pub(in crate::report) const PALETTE: [&str; 6] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b07d00", "#7f7f7f",
];
const DASHES: [&str; 5] = ["none", "7 4", "2 3", "10 3 2 3", "4 2"];
const SHAPES: [Shape; 7] = [
    Shape::Circle,
    Shape::Square,
    Shape::Triangle,
    Shape::Diamond,
    Shape::Cross,
    Shape::Plus,
    Shape::TriangleDown,
];

/// Width and height of a legend's sample.
pub(in crate::report) const SAMPLE: (f64, f64) = (32.0, 14.0);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Circle,
    Square,
    Triangle,
    Diamond,
    Cross,
    Plus,
    TriangleDown,
}

impl Shape {
    /// The outline around 0, `r` to each side.
    fn path(self, r: f64) -> String {
        let d = r * 0.85;
        match self {
            Self::Circle => format!("M{r} 0A{r} {r} 0 1 0 -{r} 0A{r} {r} 0 1 0 {r} 0Z"),
            Self::Square => format!("M-{d} -{d}H{d}V{d}H-{d}Z"),
            Self::Triangle => format!("M0 -{r}L{r} {d}H-{r}Z"),
            Self::TriangleDown => format!("M0 {r}L{r} -{d}H-{r}Z"),
            Self::Diamond => format!("M0 -{r}L{r} 0L0 {r}L-{r} 0Z"),
            Self::Cross => format!("M-{d} -{d}L{d} {d}M-{d} {d}L{d} -{d}"),
            Self::Plus => format!("M0 -{r}V{r}M-{r} 0H{r}"),
        }
    }
}

/// How one series looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::report) struct Style {
    colour: &'static str,
    dash: &'static str,
    shape: Shape,
    /// The first line is wide, so that it shows below those that follow.
    wide: bool,
}

impl Style {
    /// The style of the series of this number; the first 42 differ in colour or shape.
    pub(in crate::report) fn of(index: usize) -> Self {
        Self {
            colour: PALETTE[index % PALETTE.len()],
            dash: DASHES[index % DASHES.len()],
            shape: SHAPES[index % SHAPES.len()],
            wide: index == 0,
        }
    }

    /// A line through places.
    pub(in crate::report) fn line(self, canvas: &mut Canvas, places: &[Place]) {
        if places.len() < 2 {
            return;
        }
        let points: Vec<String> = places
            .iter()
            .map(|place| format!("{:.1},{:.1}", place.x, place.y))
            .collect();
        let width = if self.wide { 3.5 } else { 2.0 };
        canvas.add(&format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{width}\" \
             stroke-linejoin=\"round\" stroke-dasharray=\"{}\"/>",
            points.join(" "),
            self.colour,
            self.dash
        ));
    }

    /// A mark, open so that one below it shows through.
    pub(in crate::report) fn mark(self, canvas: &mut Canvas, at: Place, radius: f64) {
        canvas.add(&format!(
            "<path class=\"mark\" transform=\"translate({:.1} {:.1})\" d=\"{}\" fill=\"none\" \
             stroke=\"{}\" stroke-width=\"2\"/>",
            at.x,
            at.y,
            self.shape.path(radius),
            self.colour
        ));
    }

    /// What a legend shows of the series, its upper left corner at `at`.
    pub(in crate::report) fn sample(self, canvas: &mut Canvas, at: Place, with_line: bool) {
        let (width, height) = SAMPLE;
        let y = at.y + height / 2.0;
        if with_line {
            let end = at.x + width;
            self.line(canvas, &[Place { x: at.x, y }, Place { x: end, y }]);
        }
        let x = at.x + width / 2.0;
        self.mark(canvas, Place { x, y }, 4.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance by the web's contrast rules.
    fn luminance(colour: &str) -> f64 {
        let channel = |at: usize| {
            let value = u8::from_str_radix(&colour[at..at + 2], 16).unwrap();
            let value = f64::from(value) / 255.0;
            if value <= 0.04045 {
                value / 12.92
            } else {
                ((value + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
    }

    #[test]
    fn every_colour_is_seen_on_white_and_on_a_dark_page() {
        for colour in PALETTE {
            for page in ["#ffffff", "#121212"] {
                let (a, b) = (luminance(colour) + 0.05, luminance(page) + 0.05);
                let contrast = a.max(b) / a.min(b);
                assert!(contrast >= 3.0, "{colour} on {page}: {contrast:.2}");
            }
        }
    }

    #[test]
    fn no_two_series_look_the_same() {
        let styles: Vec<Style> = (0..PALETTE.len() * SHAPES.len()).map(Style::of).collect();
        for (i, style) in styles.iter().enumerate() {
            assert!(!styles[..i].contains(style), "series {i}");
            let (colour, shape) = (style.colour, style.shape);
            let same = |other: &&Style| (other.colour, other.shape) == (colour, shape);
            assert_eq!(styles.iter().filter(same).count(), 1);
        }
    }
}
