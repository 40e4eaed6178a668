//! What a chart is drawn on: the text of an SVG file.

use crate::report::markup::escape;

/// Size of the text, in the chart's own coordinates.
pub(in crate::report) const TEXT: f64 = 13.0;

/// A place in the chart's own coordinates, from the upper left corner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::report) struct Place {
    pub(in crate::report) x: f64,
    pub(in crate::report) y: f64,
}

/// What the chart lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::report) enum Ground {
    /// A page, whose text colour and width it takes.
    Page,
    /// White: a file of its own.
    White,
}

/// Which part of a text lies at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::report) enum Anchor {
    Start,
    Middle,
    End,
}

impl Anchor {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

/// A picture that grows element by element; later ones lie above.
#[derive(Debug, Clone)]
pub(in crate::report) struct Canvas {
    ground: Ground,
    size: Place,
    body: String,
}

impl Canvas {
    /// An empty picture.
    pub(in crate::report) fn new(width: f64, height: f64, ground: Ground) -> Self {
        Self {
            ground,
            size: Place {
                x: width,
                y: height,
            },
            body: String::new(),
        }
    }

    fn ink(&self) -> &'static str {
        match self.ground {
            Ground::Page => "currentColor",
            Ground::White => "#222",
        }
    }

    /// Adds elements as they are.
    pub(in crate::report) fn add(&mut self, svg: &str) {
        self.body.push_str(svg);
        self.body.push('\n');
    }

    /// A thin line of the text's colour, paler by `opacity`.
    pub(in crate::report) fn line(&mut self, from: Place, to: Place, opacity: f64) {
        self.dashed(from, to, opacity, "none");
    }

    /// As [`Self::line`], of dashes.
    pub(in crate::report) fn dashed(&mut self, from: Place, to: Place, opacity: f64, dash: &str) {
        self.add(&format!(
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{}\" \
             stroke-opacity=\"{opacity}\" stroke-dasharray=\"{dash}\"/>",
            from.x,
            from.y,
            to.x,
            to.y,
            self.ink()
        ));
    }

    /// A text whose baseline is at `at`.
    pub(in crate::report) fn text(&mut self, at: Place, anchor: Anchor, text: &str) {
        self.write(at, anchor, text, "");
    }

    /// As [`Self::text`], read from below upwards.
    pub(in crate::report) fn text_upwards(&mut self, at: Place, anchor: Anchor, text: &str) {
        let turned = format!(" transform=\"rotate(-90 {:.1} {:.1})\"", at.x, at.y);
        self.write(at, anchor, text, &turned);
    }

    fn write(&mut self, at: Place, anchor: Anchor, text: &str, attributes: &str) {
        let (ink, anchor, text) = (self.ink(), anchor.name(), escape(text));
        self.add(&format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"{ink}\"{attributes}>{text}</text>",
            at.x, at.y
        ));
    }

    /// The SVG file.
    pub(in crate::report) fn finish(self) -> String {
        let (Place { x, y }, fixed) = (self.size, self.ground == Ground::White);
        let (size, ground) = if fixed {
            (
                format!(" width=\"{x}\" height=\"{y}\""),
                "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
            )
        } else {
            (String::new(), "")
        };
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\"{size} viewBox=\"0 0 {x} {y}\" \
             font-family=\"system-ui, sans-serif\" font-size=\"{TEXT}\">\n{ground}{}</svg>\n",
            self.body
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_takes_the_colour_of_its_page_or_lies_on_white() {
        let drawn = |ground| {
            let mut canvas = Canvas::new(10.0, 5.0, ground);
            canvas.text(Place { x: 1.0, y: 2.0 }, Anchor::Start, "<b>");
            canvas.finish()
        };
        let (page, file) = (drawn(Ground::Page), drawn(Ground::White));
        assert!(page.contains("currentColor") && !page.contains("width="));
        assert!(file.contains("fill=\"#fff\"") && !file.contains("currentColor"));
        assert!(page.contains("&lt;b&gt;"), "{page}");
    }
}
